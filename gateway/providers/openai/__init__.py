"""The provider for every OpenAI-compatible upstream."""
