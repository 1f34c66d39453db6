"""The server: listening, connections, heads of requests, the access log, stopping."""
