"""Conversations that last: how a session is named, what was said in it, and one run at a time in each."""
