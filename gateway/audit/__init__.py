"""Who changed what, when: one line a change, each bound to the one before. ``entry`` is the line, ``journal`` the file."""
