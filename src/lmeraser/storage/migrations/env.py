"""Alembic's environment: runs the missing steps in the transaction of the given connection."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], render_as_batch=True)
context.run_migrations()
