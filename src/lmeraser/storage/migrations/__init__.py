"""Steps from older tables to those of this version; run by `lmeraser.storage.migrate` through Alembic."""
