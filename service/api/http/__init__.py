"""The OpenAI-compatible HTTP API, bound from the contract by Connexion."""
