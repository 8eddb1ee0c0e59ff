"""One bench a provider: the provider itself, and a stub of its vendor."""
