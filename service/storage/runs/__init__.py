"""Stored runs, their queue and idempotency keys."""
