"""Which provider serves a request, under which name, and for which price."""
