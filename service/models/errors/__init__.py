"""Errors of providers and their meaning."""
