"""Blobs in a bucket of an S3 server, through fsspec (extra ``s3``).

An object exists once the server has received all of it, so nothing needs to be renamed. Where the bucket keeps
versions, `Bucket.sweep` deletes every one of them. The library retries refusals for load and lost connections.
Credentials are configured in the usual ways (``AWS_ACCESS_KEY_ID``, ``AWS_PROFILE``, a role), and so is a server
other than Amazon's (``AWS_ENDPOINT_URL``). Knows nothing about what bytes and names mean.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

from lmeraser.errors import ConfigError, StorageError

_DELETE_BATCH = 1000  # objects per call; the protocol's limit
_LIST_AFTER = 32  # calls of `exists` that each ask the server, before all objects are listed at once


class Bucket:
    """The objects below one prefix of a bucket.

    Args:
        url: ``s3://BUCKET/FOLDER``; the folder may be missing.
        part: subfolder that holds the objects.

    Raises:
        ConfigError: s3fs is not installed.
    """

    def __init__(self, url: str, part: str) -> None:
        try:
            from s3fs import S3FileSystem
        except ImportError as error:
            raise ConfigError(
                "s3fs not installed; storage.artifacts in a bucket needs it",
                got=str(error),
                next_step="pip install 'lmeraser[s3]'",
            ) from None
        self._bucket, _, folder = url.removeprefix("s3://").partition("/")
        self._prefix = "/".join([*filter(None, folder.split("/")), part, ""])
        # One request per object: splitting pays off only for objects larger than artifacts are.
        self._files = S3FileSystem(use_listings_cache=False, max_concurrency=1)
        self._exists_calls = 0
        self._current_names: set[str] | None = None

    def location(self, name: str) -> str:
        """The URL of a blob."""
        return f"s3://{self._path(name)}"

    def exists(self, name: str) -> bool:
        """Whether there is such an object; after some calls, all objects are listed at once."""
        self._exists_calls += 1
        with self._translate_errors():
            if self._exists_calls > _LIST_AFTER and self._current_names is None:
                self._current_names = {name for name, _, kind in self._versions() if kind == "current"}
            if self._current_names is not None:
                return name in self._current_names
            return bool(self._files.exists(self._path(name)))

    def write(self, contents: Mapping[str, bytes]) -> None:
        """Store objects, or replace them; sent concurrently."""
        with self._translate_errors():
            self._files.pipe({self._path(name): data for name, data in contents.items()})
        if self._current_names is not None:
            self._current_names.update(contents)

    def read(self, names: Sequence[str]) -> list[bytes]:
        """The bytes of these objects, requested concurrently."""
        paths = [self._path(name) for name in names]
        with self._translate_errors(missing=True):
            if len(paths) < 2:  # given one path, the library would look for a folder
                return [self._files.cat_file(path) for path in paths]
            contents = self._files.cat(paths)
        return [contents[path] for path in paths]

    def remove(self, names: Iterable[str]) -> list[str]:
        """Delete every version of these objects; returns the locations of those that existed."""
        with self._translate_errors():
            found = [
                (name, version)
                for wanted in sorted(set(names))
                for name, version, _ in self._versions(wanted)
                if name == wanted
            ]
            for start in range(0, len(found), _DELETE_BATCH):
                self._delete(found[start : start + _DELETE_BATCH])
        if self._current_names is not None:
            self._current_names.difference_update(name for name, _ in found)
        return sorted({self.location(name) for name, _ in found})

    def sweep(self, keep: Set[str], *, dry_run: bool = False) -> list[str]:
        """Delete all objects except the current versions of these; returns their locations."""
        with self._translate_errors():
            unused = [
                (name, version)
                for name, version, kind in self._versions()
                if not (kind == "current" and name in keep)
            ]
            if not dry_run:
                for start in range(0, len(unused), _DELETE_BATCH):
                    self._delete(unused[start : start + _DELETE_BATCH])
        self._exists_calls = 0
        self._current_names = None
        return sorted({self.location(name) for name, _ in unused})

    def all_versions(self) -> Iterator[tuple[str, bytes]]:
        """Location and bytes of every version of every object."""
        with self._translate_errors():
            for name, version, kind in self._versions():
                if kind != "marker":
                    yield self.location(name), self._files.cat_file(self._path(name), version_id=version)

    def _path(self, name: str) -> str:
        return f"{self._bucket}/{self._prefix}{name}"

    def _versions(self, beginning: str = "") -> Iterator[tuple[str, str, str]]:
        """Name and version of every object, and its kind: current, older, or (deletion) marker.

        Args:
            beginning: only of objects whose names begin so.
        """
        page_start: dict[str, str] = {}
        while True:
            page: dict[str, Any] = self._files.call_s3(
                "list_object_versions", Bucket=self._bucket, Prefix=self._prefix + beginning, **page_start
            )
            for found in page.get("Versions", ()):
                kind = "current" if found["IsLatest"] else "older"
                yield found["Key"].removeprefix(self._prefix), found["VersionId"], kind
            for found in page.get("DeleteMarkers", ()):
                yield found["Key"].removeprefix(self._prefix), found["VersionId"], "marker"
            if not page.get("IsTruncated"):
                return
            page_start = {
                name: page[f"Next{name}"] for name in ("KeyMarker", "VersionIdMarker") if page.get(f"Next{name}")
            }

    def _delete(self, versions: Sequence[tuple[str, str]]) -> None:
        objects = [{"Key": self._prefix + name, "VersionId": version} for name, version in versions]
        response = self._files.call_s3(
            "delete_objects", Bucket=self._bucket, Delete={"Objects": objects, "Quiet": True}
        )
        for fault in response.get("Errors", ()):
            raise PermissionError(f"{fault['Key']}, version {fault.get('VersionId')}: {fault.get('Message')}")

    @contextlib.contextmanager
    def _translate_errors(self, *, missing: bool = False) -> Iterator[None]:
        """Turn the library's errors into lmeraser's.

        Args:
            missing: let the error of a missing object pass unchanged.
        """
        from botocore.exceptions import BotoCoreError

        try:
            yield
        except (OSError, BotoCoreError) as error:
            if missing and isinstance(error, FileNotFoundError):
                raise
            raise StorageError(
                "Cannot use the bucket of storage.artifacts",
                got=f"s3://{self._bucket}/{self._prefix}: {error or type(error).__name__}",
                next_step="check the bucket, AWS_ENDPOINT_URL and the permissions to list, read, write and delete "
                "objects and versions, then run the same command again; finished parts are kept",
            ) from error
