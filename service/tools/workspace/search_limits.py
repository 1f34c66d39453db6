"""Limits of a search, for the gateway and for the process that searches."""

MAX_PATHS = 1_000
MAX_MATCHES = 200
#: Time for a regular expression after the limit of the walk, on a busy machine, before the process is killed.
GRACE_SECONDS = 2.0
