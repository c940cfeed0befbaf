"""How much a token may use. ``policy`` holds the limits as values."""
