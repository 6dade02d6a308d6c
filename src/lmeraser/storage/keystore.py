"""Keys that can be forgotten: one file of fixed slots, and sealing under the keys in them.

Databases, their logs and backups keep copies of what was deleted: in free pages, in gaps of used ones, on other
disks. So whatever tells something about a record is sealed under a key of its own (AES-256-GCM), and the key
lies in one small file, in a slot that is never moved. Overwriting its 32 bytes makes every copy unreadable, at
once and wherever it is. A slot is used once. Knows nothing about what is sealed or who forgets it.
"""

from __future__ import annotations

import mmap
import os
import secrets
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from lmeraser.core.atomic_files import flush_folder, storage_errors
from lmeraser.errors import CorruptError

KEY_BYTES = 32
FIRST_SLOT = 1
_HEADER = b"lmeraser keys, format 1".ljust(KEY_BYTES - 1) + b"\n"  # in the place of slot 0
_ERASED = bytes(KEY_BYTES)
_NONCE_BYTES = 12
_MODE = 0o600


class ErasedError(CorruptError):
    """A key was erased; for what is still read, that means that it was deleted meanwhile."""


class KeyStore:
    """A file of keys.

    Args:
        path: of the file; made with the first key.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mapped: mmap.mmap | None = None
        self._unflushed = False
        self._changing = threading.Lock()

    # --- changing --------------------------------------------------------------------------------------

    def make(self, slots: range) -> None:
        """Put random keys into slots; they are on the disk after `flush`.

        Raises:
            StorageError: the disk refused.
        """
        self._write([(slots.start, secrets.token_bytes(KEY_BYTES * len(slots)))])

    def erase(self, slots: Iterable[int]) -> None:
        """Overwrite keys, on the disk when this returns.

        Raises:
            StorageError: the disk refused; some may be overwritten, and erasing again is harmless.
        """
        self._write([(slot, _ERASED) for slot in slots])
        self.flush()

    def flush(self) -> None:
        """Wait until everything is on the disk."""
        with self._changing:
            if self._unflushed:
                with storage_errors(self.path), self.path.open("rb") as file:
                    os.fsync(file.fileno())
                self._unflushed = False

    def _write(self, parts: Sequence[tuple[int, bytes]]) -> None:
        with self._changing, storage_errors(self.path):
            fresh = not self.path.exists()
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT, _MODE)
            try:
                for slot, data in [(0, _HEADER), *parts] if fresh else parts:
                    if os.pwrite(handle, data, slot * KEY_BYTES) != len(data):
                        raise OSError("a part of the keys was written")
            finally:
                os.close(handle)
            if fresh:
                flush_folder(self.path.parent)
            self._unflushed = True

    # --- sealing ---------------------------------------------------------------------------------------

    def encrypt(self, slot: int, what: str, data: bytes) -> bytes:
        """Encrypt under the key in a slot.

        Args:
            slot: of the key.
            what: kind of the data; has to be the same when it is unsealed.
            data: any bytes.
        """
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + AESGCM(self.key(slot)).encrypt(nonce, data, what.encode())

    def decrypt(self, slot: int, what: str, sealed: bytes) -> bytes:
        """What was sealed.

        Raises:
            ErasedError: the key is gone.
            CorruptError: the bytes or the key are not those of the sealing.
        """
        try:
            return AESGCM(self.key(slot)).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], what.encode())
        except (InvalidTag, ValueError) as error:
            raise self._unfit(f"{what} {slot} can't be read with its key") from error

    def key(self, slot: int) -> bytes:
        """The key in a slot.

        Raises:
            ErasedError: it is gone.
            CorruptError: the file is missing, too short, or no file of keys.
        """
        end = (slot + 1) * KEY_BYTES
        if self._mapped is None or len(self._mapped) < end:
            self._mapped = self._map()
        key = self._mapped[end - KEY_BYTES : end]
        if len(key) < KEY_BYTES:
            raise self._unfit(f"{len(self._mapped) // KEY_BYTES} slots, and slot {slot} is needed")
        if key == _ERASED:
            raise self._unfit(f"the key in slot {slot} is erased", kind=ErasedError)
        return key

    def _map(self) -> mmap.mmap:
        try:
            with self.path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise self._unfit(str(error)) from error
        if mapped[:KEY_BYTES] != _HEADER:
            raise self._unfit("a file with another beginning")
        return mapped

    def _unfit(self, got: str, kind: type[CorruptError] = CorruptError) -> CorruptError:
        return kind(
            f"{self.path.name} holds the keys of everything in the database.",
            got=f"{self.path}: {got}",
            next_step="restore it and the database from where the workspace came from, both of the same time",
        )
