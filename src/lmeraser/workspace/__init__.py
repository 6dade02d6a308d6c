"""The folder of a workspace: layout, lock, generations, requests, backups."""
