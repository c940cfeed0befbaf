"""Endpoints: from a request's context to a response. One module a subject."""
