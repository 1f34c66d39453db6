"""Coordination of gateways that share one database."""
