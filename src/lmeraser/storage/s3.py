"""Blobs in a bucket of an S3 server, through fsspec (extra ``s3``).

An object is there when the server has taken all of it, so nothing is renamed. Where the bucket keeps versions,
`Bucket.sweep` deletes every one of them. The servers' refusals for load, and lost connections, are tried again by
the library. Who may come in is told in the usual ways (``AWS_ACCESS_KEY_ID``, ``AWS_PROFILE``, a role), and so is
another server than Amazon's (``AWS_ENDPOINT_URL``). Knows nothing about what the bytes or the names mean.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence, Set
from typing import Any

from lmeraser.errors import ConfigError, StorageError

_AT_ONCE = 1000  # objects that one call deletes; the protocol's limit
_FEW = 32  # blobs that are asked for one by one, before all are listed


class Bucket:
    """Objects of a bucket whose keys begin alike.

    Args:
        url: ``s3://BUCKET/FOLDER``; the folder may be missing.
        part: of the folder that is used.

    Raises:
        ConfigError: s3fs is not installed.
    """

    def __init__(self, url: str, part: str) -> None:
        try:
            from s3fs import S3FileSystem
        except ImportError as error:
            raise ConfigError(
                "A workspace with storage.artifacts in a bucket needs s3fs.",
                got=str(error),
                next_step="pip install 'lmeraser[s3]'",
            ) from None
        self._bucket, _, folder = url.removeprefix("s3://").partition("/")
        self._prefix = "/".join([*filter(None, folder.split("/")), part, ""])
        # One request for each object; several would only be faster for objects larger than artifacts are.
        self._files = S3FileSystem(use_listings_cache=False, max_concurrency=1)
        self._asked = 0
        self._listed: set[str] | None = None

    def where(self, name: str) -> str:
        """The URL of a blob."""
        return f"s3://{self._path(name)}"

    def has(self, name: str) -> bool:
        """Whether there is such an object; after some calls all that there are are listed at once."""
        self._asked += 1
        with self._translated():
            if self._asked > _FEW and self._listed is None:
                self._listed = {name for name, _, kind in self._versions() if kind == "current"}
            if self._listed is not None:
                return name in self._listed
            return bool(self._files.exists(self._path(name)))

    def write(self, name: str, data: bytes) -> None:
        """Put an object."""
        with self._translated():
            self._files.pipe_file(self._path(name), data)
        if self._listed is not None:
            self._listed.add(name)

    def read(self, names: Sequence[str]) -> list[bytes]:
        """The bytes of these objects, many at once."""
        paths = [self._path(name) for name in names]
        with self._translated(missing=True):
            if len(paths) < 2:  # the library looks for folders if it is given one path
                return [self._files.cat_file(path) for path in paths]
            found = self._files.cat(paths)
        return [found[path] for path in paths]

    def sweep(self, keep: Set[str], *, dry_run: bool = False) -> list[str]:
        """Delete all objects but the current versions of these."""
        with self._translated():
            doomed = [(name, v) for name, v, kind in self._versions() if not (kind == "current" and name in keep)]
            for start in range(0, 0 if dry_run else len(doomed), _AT_ONCE):
                self._delete(doomed[start : start + _AT_ONCE])
        self._asked, self._listed = 0, None
        return sorted({self.where(name) for name, _ in doomed})

    def opened(self) -> Iterator[tuple[str, bytes]]:
        """Place and bytes of every version of every object."""
        with self._translated():
            for name, version, kind in self._versions():
                if kind != "marker":
                    yield self.where(name), self._files.cat_file(self._path(name), version_id=version)

    def _path(self, name: str) -> str:
        return f"{self._bucket}/{self._prefix}{name}"

    def _versions(self) -> Iterator[tuple[str, str, str]]:
        """Name and version of every object, and whether it is current, older, or the marker of a deletion."""
        place: dict[str, str] = {}
        while True:
            page: dict[str, Any] = self._files.call_s3(
                "list_object_versions", Bucket=self._bucket, Prefix=self._prefix, **place
            )
            for found in page.get("Versions", ()):
                kind = "current" if found["IsLatest"] else "older"
                yield found["Key"].removeprefix(self._prefix), found["VersionId"], kind
            for found in page.get("DeleteMarkers", ()):
                yield found["Key"].removeprefix(self._prefix), found["VersionId"], "marker"
            if not page.get("IsTruncated"):
                return
            place = {
                name: page[f"Next{name}"] for name in ("KeyMarker", "VersionIdMarker") if page.get(f"Next{name}")
            }

    def _delete(self, doomed: Sequence[tuple[str, str]]) -> None:
        objects = [{"Key": self._prefix + name, "VersionId": version} for name, version in doomed]
        answer = self._files.call_s3(
            "delete_objects", Bucket=self._bucket, Delete={"Objects": objects, "Quiet": True}
        )
        for fault in answer.get("Errors", ()):
            raise PermissionError(f"{fault['Key']}, version {fault.get('VersionId')}: {fault.get('Message')}")

    @contextlib.contextmanager
    def _translated(self, *, missing: bool = False) -> Iterator[None]:
        """Turn the library's errors into ours, except, where that is asked for, that of a missing object."""
        from botocore.exceptions import BotoCoreError

        try:
            yield
        except (OSError, BotoCoreError) as error:
            if missing and isinstance(error, FileNotFoundError):
                raise
            raise StorageError(
                "The bucket of storage.artifacts can be listed, read, written and deleted from, versions too.",
                got=f"s3://{self._bucket}/{self._prefix}: {error or type(error).__name__}",
                next_step="check the bucket, the rights and AWS_ENDPOINT_URL, then run the same command again; "
                "finished parts are kept",
            ) from error
