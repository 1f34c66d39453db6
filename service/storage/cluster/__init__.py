"""Gateways that share one database."""
