"""Files, SQLite databases and shared memory: how they are opened, written and locked, whatever is in them."""
