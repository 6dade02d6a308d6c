"""Large encrypted values in files of their own, so that no transaction of the database has to write them.

A file is written, and on the disk, before the transaction that stores its key in the slot of a row. It is named by
its key, so the row says nothing but the slot: without the key nobody can tell which row a file belonged to. A file
whose key is in no row belonged to an earlier version, or to a transaction that did not happen; the one writer
removes it. What is in it cannot be read any more once its key is erased, or if it was never stored.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from pathlib import Path

from lmeraser.core.atomic_files import files_without_links, storage_errors, write_parts_atomic
from lmeraser.storage.keystore import ErasedError, KeyStore, decrypt, encrypt_in_parts

_NAME_DIGITS = 32


class EncryptedFiles:
    """The large values of one database.

    Args:
        folder: where they are; created with the first.
        keys: the keys of the rows that they belong to.
    """

    def __init__(self, folder: Path, keys: KeyStore) -> None:
        self.folder = folder
        self._keys = keys

    def write(self, key: bytes, what: str, data: bytes | memoryview) -> None:
        """Write a value under a key that no slot has yet.

        Args:
            key: new and random.
            what: kind of the data, as for `KeyStore.encrypt`.
            data: any bytes.

        Raises:
            StorageError: the disk refused.
        """
        write_parts_atomic(self._path(key), encrypt_in_parts(key, what, data))

    def holds(self, key: bytes) -> bool:
        """Whether the value under a key is here."""
        return self._path(key).is_file()

    def read(self, slot: int, what: str) -> bytes:
        """Read the value whose key is in a slot.

        Raises:
            ErasedError: the key is erased, or the file was removed since the row was read.
            CorruptError: it is not what was encrypted.
        """
        key = self._keys.key(slot)
        path = self._path(key)
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise ErasedError(
                "Keys and database do not match",
                got=f"{path} is missing",
                next_step="restore it from the backup of the database",
            ) from error
        return decrypt(key, what, data, got=str(path))

    def discard_others(self, slots: Iterable[int]) -> None:
        """Remove all files but those whose keys are in these slots.

        Raises:
            StorageError: the operating system refused, or there is a symbolic link.
        """
        if not self.folder.exists():
            return
        kept = {str(self._path(self._keys.key(slot))) for slot in slots}
        with storage_errors(self.folder):
            for name in list(files_without_links(self.folder)):
                if name not in kept:
                    Path(name).unlink(missing_ok=True)

    def _path(self, key: bytes) -> Path:
        return self.folder / hmac.digest(key, b"name of a file", "sha256").hex()[:_NAME_DIGITS]
