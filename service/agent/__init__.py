"""The agent loop and what it reads: no SQL, no wire format."""
