"""Counts of requests, tokens and runs over all gateways that share a database."""
