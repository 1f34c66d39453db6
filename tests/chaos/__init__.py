"""Live gateways that are killed, and gateways that share a database."""
