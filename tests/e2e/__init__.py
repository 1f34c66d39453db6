"""Tests through a live gateway or the command line, by feature."""
