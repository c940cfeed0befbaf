"""Implementations of ``TokenStore``: a JSON file, and memory."""
