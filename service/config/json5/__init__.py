"""Reading and editing JSON5 without losing comments."""
