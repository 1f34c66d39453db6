"""Summarise conversations that exceed their model's context window."""
