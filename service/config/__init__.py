"""The configuration: its schema, its file and its problems."""
