"""Location of a workspace's artifacts: a folder of the workspace, or an object store that the settings name.

The location is fixed at the first training: elsewhere, artifacts would not be found, and neither purged.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from lmeraser.core.digests import keyed_digest
from lmeraser.errors import ConfigError
from lmeraser.storage.artifacts import BlobStore
from lmeraser.storage.blobs import Folder
from lmeraser.storage.database import Database
from lmeraser.workspace.layout import Layout

if TYPE_CHECKING:
    from lmeraser.storage.s3 import Bucket

_METADATA = "artifacts"  # the name under which the database knows the location; '' is the workspace's folder


class ArtifactLocation:
    """Where the artifacts of one workspace are.

    Args:
        layout: of the workspace.
        database: remembers the location.
        url: of an object store (the setting ``storage.artifacts``); None: the workspace's folder.
        secret: of the workspace.
    """

    def __init__(self, layout: Layout, database: Database, url: str | None, *, secret: bytes) -> None:
        self._layout = layout
        self._database = database
        self._url = url
        self._secret = secret

    @cached_property
    def bucket(self) -> Bucket | None:
        """The object store, if artifacts are in one."""
        if self._url is None:
            return None
        from lmeraser.storage.s3 import Bucket

        # Two workspaces that are given the same folder would sweep each other's artifacts.
        return Bucket(self._url, keyed_digest(self._secret, ["artifacts"]).hex[:16])

    def open(self) -> BlobStore:
        """Open the store.

        Raises:
            ConfigError: the settings name another location than the one where artifacts are.
        """
        self._check()
        return BlobStore(self.bucket or Folder(self._layout.artifacts), Folder(self._layout.memo))

    def fix(self) -> None:
        """Remember the location from now on. Raises `ConfigError` as `open` does."""
        known = self._check()
        location = self._url or ""
        if location != known:
            with self._database.transaction() as connection:
                self._database.set_metadata(connection, _METADATA, location)

    def _check(self) -> str | None:
        """The location that the database knows; it may only differ as long as there are no artifacts."""
        location = self._url or ""
        known = self._database.get_metadata(_METADATA)
        memo = self._layout.memo
        if known not in (None, location) and memo.exists() and any(memo.iterdir()):
            raise ConfigError(
                "storage.artifacts was changed after the first training",
                got=f"{location or 'none'}; the artifacts are in {known or 'the folder artifacts'}",
                next_step="set it back in lmeraser.toml, or create a new workspace",
            )
        return known
