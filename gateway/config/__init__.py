"""The settings: `settings` lists them, `sources` reads them, `parsers` checks each value."""
