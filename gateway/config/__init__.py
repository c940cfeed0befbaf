"""Reads the configuration: ``settings`` has the list of settings, ``sources`` reads them, ``parsers`` turns text into values."""
