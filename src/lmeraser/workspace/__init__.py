"""The folder of a workspace: layout, lock, generations, requests, backups."""

from lmeraser.core.moved_modules import names_of

__getattr__ = names_of("lmeraser.workspace.workspace", package=__name__)
