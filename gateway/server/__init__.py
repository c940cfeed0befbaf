"""The processes and sockets: the worker, its supervisor, and the adapter to aiohttp's server."""
