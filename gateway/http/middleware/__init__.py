"""Steps that every request meets before its endpoint, and some of them again at its end. ``app`` lists them in order."""
