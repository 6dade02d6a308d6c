"""What is sealed can be read with its key, and by nobody once the key is erased."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from lmeraser.errors import CorruptError, StorageError
from lmeraser.storage.keystore import FIRST_SLOT, KEY_BYTES, ErasedError, KeyStore


@pytest.fixture
def keys(tmp_path: Path) -> KeyStore:
    made = KeyStore(tmp_path / "records.keys")
    made.create(range(FIRST_SLOT, 9))
    made.flush()
    return made


# --- sealing -----------------------------------------------------------------------------------------------


@given(data=st.binary(max_size=5000))
def test_what_is_sealed_can_be_read_again(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    made = KeyStore(tmp_path_factory.mktemp("k") / "records.keys")
    made.create(range(1, 3))
    sealed = made.encrypt(2, "card", data)
    assert made.decrypt(2, "card", sealed) == data
    assert KeyStore(made.path).decrypt(2, "card", sealed) == data, "another process reads it"


def test_sealing_is_aes_256_in_galois_counter_mode(keys: KeyStore) -> None:
    sealed = keys.encrypt(3, "images", b"some picture")
    raw = keys.path.read_bytes()[3 * KEY_BYTES : 4 * KEY_BYTES]
    assert AESGCM(raw).decrypt(sealed[:12], sealed[12:], b"images") == b"some picture"


def test_the_same_bytes_are_never_sealed_alike(keys: KeyStore) -> None:
    assert len({keys.encrypt(slot, "card", b"the same") for slot in (1, 2, 1, 2)}) == 4
    assert len({keys.key(slot) for slot in range(1, 9)}) == 8


@pytest.mark.parametrize(
    ("slot", "what", "spoil"),
    [
        (2, "card", lambda sealed: sealed),
        (1, "images", lambda sealed: sealed),
        (1, "card", lambda sealed: sealed[:-1]),
        (1, "card", lambda sealed: sealed[:20]),
        (1, "card", lambda sealed: b""),
        (1, "card", lambda sealed: bytes([sealed[0] ^ 1]) + sealed[1:]),
        (1, "card", lambda sealed: sealed[:-1] + bytes([sealed[-1] ^ 1])),
    ],
)
def test_what_was_moved_or_changed_is_not_read(keys: KeyStore, slot: int, what: str, spoil: Any) -> None:
    with pytest.raises(CorruptError, match="cannot be decrypted"):
        keys.decrypt(slot, what, spoil(keys.encrypt(1, "card", b"a card of somebody")))


# --- erasing -----------------------------------------------------------------------------------------------


def test_an_erased_key_is_in_no_byte_of_the_file_and_the_others_stay(keys: KeyStore) -> None:
    other = KeyStore(keys.path)
    before = {slot: other.key(slot) for slot in range(1, 9)}
    size = keys.path.stat().st_size
    keys.erase([3, 5, 3])
    data = keys.path.read_bytes()
    assert [slot for slot, key in before.items() if key not in data] == [3, 5]
    assert len(data) == size, "overwritten where it was"
    for reader in (keys, other, KeyStore(keys.path)):
        assert [reader.key(slot) for slot in (1, 2, 4, 6, 7, 8)] == [before[slot] for slot in (1, 2, 4, 6, 7, 8)]
        for slot in (3, 5):
            with pytest.raises(ErasedError, match="erased"):
                reader.key(slot)


def test_a_reader_sees_keys_that_were_made_after_it_read_first(keys: KeyStore) -> None:
    reader = KeyStore(keys.path)
    assert reader.key(1) == keys.key(1)
    keys.create(range(9, 2000))
    assert reader.key(1999) == keys.key(1999)


def test_keys_are_flushed_to_the_disk_and_private(keys: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stat.S_IMODE(keys.path.stat().st_mode) == 0o600
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    keys.flush()
    assert flushed == [], "nothing was written since"
    keys.erase([1])
    assert len(flushed) == 1


# --- failures ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [None, b"", b"x" * 400, bytes(400)])
def test_a_missing_or_foreign_file_is_said_to_be_corrupt(keys: KeyStore, data: bytes | None) -> None:
    keys.path.unlink()
    if data is not None:
        keys.path.write_bytes(data)
    with pytest.raises(CorruptError, match=r"records\.keys"):
        KeyStore(keys.path).key(1)


def test_a_file_that_is_too_short_is_said_to_be_corrupt(keys: KeyStore) -> None:
    os.truncate(keys.path, 5 * KEY_BYTES)
    reader = KeyStore(keys.path)
    assert len(reader.key(4)) == KEY_BYTES
    with pytest.raises(CorruptError, match="slot 5 is missing; there are 5"):
        reader.key(5)


def test_keys_that_were_never_made_are_not_erased_ones(keys: KeyStore) -> None:
    with pytest.raises(CorruptError) as error:
        keys.key(9)
    assert not isinstance(error.value, ErasedError)


def test_a_folder_that_is_gone_is_a_storage_error(keys: KeyStore) -> None:
    shutil.rmtree(keys.path.parent)
    with pytest.raises(StorageError):
        keys.create(range(9, 10))
