"""Bounds of what an upstream may send, and of how long a connection without a request is kept."""

KEEP_ALIVE_SECONDS = 4.0
"""Below the 5 s after which uvicorn, and so vLLM, closes an idle connection."""
ASK_SYSTEM_AFTER_SECONDS = 0.001
"""How long a connection of aiohttp's has been idle when the system is asked what has come meanwhile. Our own asks each time."""
MAX_RESEND_SECONDS = 1.0
MAX_HEAD_BYTES = 256 * 1024
"""What may come in until the head of a response is complete, with all interim responses before it."""
MAX_HEADER_BYTES = 64 * 1024
"""The longest line of a head."""
MAX_HEADERS = 512
MAX_INTERIM_RESPONSES = 100
READ_BUFFER_BYTES = 64 * 1024
"""Reading from an upstream stops when twice as much waits for a client; what has been read at once comes on top."""
