"""The offline provider: it answers with the text that it was sent."""
