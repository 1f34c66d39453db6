"""HTTP transport to providers."""
