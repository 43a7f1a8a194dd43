"""Run by alembic, which `escultor.store.schema` calls with an open connection: no ini file needed."""

from alembic import context


def run() -> None:
    """Apply the migrations on the caller's connection, inside the caller's transaction."""
    connection = context.config.attributes["connection"]
    # Alembic takes SQLite's DDL for non-transactional; with an explicit BEGIN it is transactional.
    context.configure(connection=connection, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()


if __name__ == "env_py":  # the name under which alembic loads this file; a plain import does nothing
    run()
