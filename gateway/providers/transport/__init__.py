"""The one room that opens connections to upstreams. Its door is ``door.Transport``: a request in, a head and chunks out."""
