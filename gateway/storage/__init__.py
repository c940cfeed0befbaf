"""Files, SQLite databases, shared memory and writing behind: how they are opened, locked and written, whatever they contain."""
