"""Handlers: from a call to an answer. One module a subject."""
