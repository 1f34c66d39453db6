"""Clients of a running gateway, and of one in this process, for the commands."""
