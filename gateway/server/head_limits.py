"""Limits of a request's head."""

MAX_HEAD_BYTES = 64 * 1024
"""The request line and all headers of a request together, unless a setting says otherwise."""
MAX_HEADERS = 512
