"""The agent loop and what it reads: no storage, no wire format."""
