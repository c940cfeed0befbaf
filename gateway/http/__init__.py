"""The HTTP floor. ``protocol`` meets the socket, ``pipeline`` is one request's way, ``gate`` decides who and whether,
``table`` lists every route, ``routes/`` answers them, ``relay`` sends answers back. Only this floor imports aiohttp's server."""
