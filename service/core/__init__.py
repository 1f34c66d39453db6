"""Types and tools for every package; imports nothing else of the project."""
