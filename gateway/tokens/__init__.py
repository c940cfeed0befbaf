"""Tokens: the record, its secret, the file that holds them, and the one writer.

``record`` and ``secret`` are values, ``view`` and ``grants`` what follows from them, ``changes`` what can be done to them;
``document`` turns records into JSON and back; ``token_file`` keeps them safe on disk; ``watcher`` gives a server the newest
good view; ``service`` is the only way to change them.
"""
