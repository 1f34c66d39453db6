"""Persistent state; the only package that uses SQLAlchemy."""
