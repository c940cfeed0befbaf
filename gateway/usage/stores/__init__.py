"""Implementations of the usage store."""
