"""HTTP requests to public addresses only."""
