"""The typed configuration: its file, its values and what is said of it."""
