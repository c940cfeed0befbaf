"""The use case of inference: admit a request, send it to a provider, track what it used."""
