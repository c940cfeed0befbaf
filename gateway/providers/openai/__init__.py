"""The provider for every upstream that speaks OpenAI's API."""
