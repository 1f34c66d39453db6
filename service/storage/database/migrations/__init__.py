"""Schema migrations, one module per revision; Alembic runs them in order (`service.storage.database.migrate`)."""
