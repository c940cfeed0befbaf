"""The audit log: who changed what, and when. ``hash_chain`` has the form of a line, ``log`` the file."""
