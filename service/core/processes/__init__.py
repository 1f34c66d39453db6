"""Child processes that end with the gateway."""
