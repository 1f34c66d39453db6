"""Run records, the queue of each session, and idempotency keys."""
