"""Implementations of the counter store."""
