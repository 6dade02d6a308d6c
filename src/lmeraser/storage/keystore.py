"""Crypto-shredding: a file of keys in fixed slots, encryption under these keys, and their erasure.

Databases, their logs and their backups keep copies of what was deleted: in free pages, in gaps of used ones, on
other disks. So everything that says something about a record is encrypted under a key of its own (AES-256-GCM),
and the key lies in one small file, in a slot of its own. Overwriting its 32 bytes makes every copy unreadable, at
once and wherever it is. A slot is used once; one that was never used looks like one whose key was erased: 32
zeros. Knows nothing about the database; it decides which slots get keys, which keys are erased and when.
"""

from __future__ import annotations

import mmap
import os
import secrets
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from lmeraser.core.atomic_files import flush_folder, storage_errors
from lmeraser.errors import CorruptError

KEY_BYTES = 32
FIRST_SLOT = 1
_HEADER = b"lmeraser keys, format 1".ljust(KEY_BYTES - 1) + b"\n"  # occupies slot 0
_ERASED = bytes(KEY_BYTES)
_NONCE_BYTES = 12
_PART_BYTES = 1 << 20
_MODE = 0o600


class ErasedError(CorruptError):
    """A key was erased: what was encrypted under it has been deleted since the reader found it."""


class KeyStore:
    """A file of keys.

    Args:
        path: of the file; created with the first key.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mapped: mmap.mmap | None = None
        self._unflushed = False
        self._lock = threading.Lock()

    # --- changing --------------------------------------------------------------------------------------

    def create(self, slots: Sequence[int]) -> None:
        """Write random keys into slots; they are on the disk after `flush`.

        Raises:
            StorageError: the disk refused.
        """
        self._write([(slot, secrets.token_bytes(KEY_BYTES)) for slot in slots])

    def put(self, slot: int, key: bytes) -> None:
        """Write a key, with which something was encrypted already, over the one in a slot; as `create`.

        Raises:
            StorageError: the disk refused.
        """
        self._write([(slot, key)])

    def clear(self, slots: range) -> None:
        """Append slots without keys, over whatever a transaction that did not happen has left there.

        Most of them may stay unused: they take no space on disks that have holes in files.

        Raises:
            StorageError: the disk refused.
        """
        left = self._count() - slots.start
        self._write([(slots.start, _ERASED * left)] if left > 0 else [], slots=slots.stop)

    def copy(self, slots: Mapping[int, int]) -> None:
        """Write the keys of slots into other slots as well; they are on the disk after `flush`.

        Args:
            slots: where each key goes, by the slot that it is in.

        Raises:
            StorageError: the disk refused.
        """
        self._write([(new, self.key(old)) for old, new in slots.items()])

    def erase(self, slots: Iterable[int]) -> None:
        """Overwrite keys; they are gone from the disk when this returns.

        Raises:
            StorageError: the disk refused. Some keys may be overwritten; erasing them again is harmless.
        """
        self._write([(slot, _ERASED) for slot in slots])
        self.flush()

    def flush(self) -> None:
        """Wait until all changes are on the disk."""
        with self._lock:
            if self._unflushed:
                with storage_errors(self.path), self.path.open("rb") as file:
                    os.fsync(file.fileno())
                self._unflushed = False

    def _count(self) -> int:
        """Number of slots, that of the header included."""
        with storage_errors(self.path):
            return self.path.stat().st_size // KEY_BYTES if self.path.exists() else 0

    def _write(self, parts: Sequence[tuple[int, bytes]], *, slots: int = 0) -> None:
        with self._lock, storage_errors(self.path):
            is_new = not self.path.exists()
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT, _MODE)
            try:
                for slot, data in [(0, _HEADER), *parts] if is_new else parts:
                    if os.pwrite(handle, data, slot * KEY_BYTES) != len(data):
                        raise OSError("only a part of the keys was written")
                if os.fstat(handle).st_size < slots * KEY_BYTES:
                    os.ftruncate(handle, slots * KEY_BYTES)
            finally:
                os.close(handle)
            if is_new:
                flush_folder(self.path.parent)
            self._unflushed = True

    # --- encryption ------------------------------------------------------------------------------------

    def encrypt(self, slot: int, what: str, data: bytes) -> bytes:
        """Encrypt under the key in a slot.

        Args:
            slot: of the key.
            what: kind of the data; authenticated, so it has to be the same for decryption.
            data: any bytes.

        Returns:
            The nonce, followed by the ciphertext with its tag.
        """
        return encrypt(self.key(slot), what, data)

    def decrypt(self, slot: int, what: str, encrypted: bytes) -> bytes:
        """Decrypt the return value of `encrypt`.

        Raises:
            ErasedError: the key is erased.
            CorruptError: bytes, slot or kind are not those of the encryption.
        """
        return decrypt(self.key(slot), what, encrypted, got=f"{self.path}: {what!r} in slot {slot}")

    def key(self, slot: int) -> bytes:
        """The key in a slot.

        Raises:
            ErasedError: the key is erased.
            CorruptError: the file is missing, too short, or not a file of keys.
        """
        end = (slot + 1) * KEY_BYTES
        if self._mapped is None or len(self._mapped) < end:
            self._mapped = self._map()
        key = self._mapped[end - KEY_BYTES : end]
        if len(key) < KEY_BYTES:
            raise self._mismatch(f"slot {slot} is missing; there are {len(self._mapped) // KEY_BYTES}")
        if key == _ERASED:
            raise self._mismatch(f"the key in slot {slot} is erased", error_type=ErasedError)
        return key

    def _map(self) -> mmap.mmap:
        try:
            with self.path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise self._mismatch(str(error)) from error
        if mapped[:KEY_BYTES] != _HEADER:
            raise self._mismatch("not a file of keys")
        return mapped

    def _mismatch(self, got: str, error_type: type[CorruptError] = CorruptError) -> CorruptError:
        return _mismatch(f"{self.path}: {got}", error_type)


def encrypt(key: bytes, what: str, data: bytes | memoryview) -> bytes:
    """Encrypt under a key; see `KeyStore.encrypt`."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, data, what.encode())


def encrypt_in_parts(key: bytes, what: str, data: bytes | memoryview) -> Iterator[bytes]:
    """As `encrypt`, for data that is so large that it should not be in memory twice."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    encryptor = Cipher(algorithms.AES(key), modes.GCM(nonce)).encryptor()
    encryptor.authenticate_additional_data(what.encode())
    yield nonce
    for start in range(0, len(data), _PART_BYTES):
        yield encryptor.update(data[start : start + _PART_BYTES])
    yield encryptor.finalize()
    yield encryptor.tag


def decrypt(key: bytes, what: str, encrypted: bytes, *, got: str) -> bytes:
    """Decrypt the return value of `encrypt`.

    Args:
        key: of the encryption.
        what: kind of the data.
        encrypted: nonce and ciphertext.
        got: what is decrypted, for the error.

    Raises:
        CorruptError: bytes, key or kind are not those of the encryption.
    """
    parts = memoryview(encrypted)  # which may be large: slices of it are no copies
    try:
        return AESGCM(key).decrypt(parts[:_NONCE_BYTES], parts[_NONCE_BYTES:], what.encode())
    except (InvalidTag, ValueError) as error:
        raise _mismatch(f"{got} cannot be decrypted", CorruptError) from error


def _mismatch(got: str, error_type: type[CorruptError]) -> CorruptError:
    return error_type(
        "Keys and database do not match",
        got=got,
        next_step="restore the file of keys and the database from the same backup",
    )
