"""A large value is in a file that nobody can read, name or keep without its key."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from lmeraser.errors import CorruptError, StorageError
from lmeraser.storage.encrypted_files import EncryptedFiles
from lmeraser.storage.keystore import FIRST_SLOT, ErasedError, KeyStore, decrypt, encrypt, encrypt_in_parts

KEY = bytes(range(32))
OTHER = bytes(range(1, 33))
VALUE = b"tens of megabytes"


@pytest.fixture
def keys(tmp_path: Path) -> KeyStore:
    made = KeyStore(tmp_path / "records.keys")
    made.create(range(FIRST_SLOT, 5))
    made.put(3, KEY)
    return made


@pytest.fixture
def files(tmp_path: Path, keys: KeyStore) -> EncryptedFiles:
    made = EncryptedFiles(tmp_path / "records.files", keys)
    made.write(KEY, "sums", VALUE)
    return made


def only(files: EncryptedFiles) -> Path:
    (path,) = files.folder.iterdir()
    return path


def test_a_value_is_read_by_the_slot_of_its_key(files: EncryptedFiles) -> None:
    assert files.read(3, "sums") == VALUE
    assert (files.holds(KEY), files.holds(OTHER)) == (True, False)
    assert VALUE not in only(files).read_bytes()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (files.folder, only(files))] == [0o700, 0o600]


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 100_001, 2**21 + 1])
def test_large_values_are_encrypted_as_all_others(size: int) -> None:
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    encrypted = b"".join(encrypt_in_parts(KEY, "sums", memoryview(data)))
    assert len(encrypted) == len(encrypt(KEY, "sums", data))
    assert decrypt(KEY, "sums", encrypted, got="") == data
    assert b"".join(encrypt_in_parts(KEY, "sums", data)) != encrypted, "every nonce is new"
    with pytest.raises(CorruptError):
        decrypt(KEY, "codes", encrypted, got="")


def test_a_file_of_which_no_row_has_the_key_is_removed(files: EncryptedFiles) -> None:
    files.write(OTHER, "sums", b"of a transaction that did not happen")
    files.discard_others([3])
    assert (files.holds(KEY), files.holds(OTHER)) == (True, False)
    files.discard_others([])
    assert list(files.folder.iterdir()) == []


def test_without_its_key_or_its_file_a_value_counts_as_erased(files: EncryptedFiles, keys: KeyStore) -> None:
    with pytest.raises(ErasedError):
        files.read(2, "sums")
    only(files).unlink()
    with pytest.raises(ErasedError, match="is missing"):
        files.read(3, "sums")
    keys.erase([3])
    with pytest.raises(ErasedError):
        files.read(3, "sums")


def test_a_changed_file_or_another_kind_is_refused(files: EncryptedFiles) -> None:
    with pytest.raises(CorruptError, match="cannot be decrypted"):
        files.read(3, "codes")
    data = bytearray(only(files).read_bytes())
    data[-1] ^= 1
    only(files).write_bytes(data)
    with pytest.raises(CorruptError, match="cannot be decrypted"):
        files.read(3, "sums")


def test_a_link_is_not_removed_as_if_it_were_the_file(files: EncryptedFiles, tmp_path: Path) -> None:
    kept = only(files).rename(tmp_path / "elsewhere")
    (files.folder / "link").symlink_to(kept)
    with pytest.raises(StorageError, match="Symbolic link"):
        files.discard_others([])
