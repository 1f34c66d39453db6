"""All that survives a restart; the only package that uses SQLAlchemy."""
