"""Implementations of the token store."""
