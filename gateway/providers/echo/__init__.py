"""The offline provider: it answers with what it was told."""
