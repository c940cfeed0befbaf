"""Tokens: what is stored of them, what follows from it, where it is stored, and how it changes.

``models`` and ``secret`` are values; ``hierarchy``, ``rights`` and ``lookup`` compute what follows from records; ``changes``
computes what a change does to them. ``store`` declares where tokens are stored and changed in transactions, ``stores`` has the
implementations. A server keeps the newest tokens in a ``cache`` and writes uses with ``last_used``.
"""
