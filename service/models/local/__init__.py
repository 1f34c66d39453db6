"""Model servers that run on this machine."""
