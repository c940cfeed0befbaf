"""The command lines: ``serve`` is ``gateway``, ``tokens`` is ``token_manager.py``."""
