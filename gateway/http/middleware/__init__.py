"""Steps that every request meets before its endpoint."""
