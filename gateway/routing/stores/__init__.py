"""Implementations of the stores of this package."""
