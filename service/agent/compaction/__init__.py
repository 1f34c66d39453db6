"""Summarising a conversation that outgrows its model's context window."""
