"""The keys of a workspace are its own, and a damaged one is not replaced by another."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import tiny_config
from lmeraser.errors import CorruptError
from lmeraser.evidence.dsse import SigningKey
from lmeraser.workspace.workspace import Workspace


def test_every_workspace_has_its_own_secret(tmp_path: Path) -> None:
    secrets = {Workspace.create(tmp_path / name, tiny_config()).secret for name in "abc"}
    assert len(secrets) == 3


@pytest.mark.parametrize("data", [b"", b"ab", b"not hex", b"\xff" * 64, b"0" * 62])
def test_a_damaged_secret_is_corrupt(root: Path, data: bytes) -> None:
    """With another secret, deleted records could be added again and every memo would be lost."""
    (root / "secret.key").write_bytes(data)
    with pytest.raises(CorruptError, match=r"secret\.key"):
        _ = Workspace(root).secret


def test_a_missing_secret_is_not_made_anew(root: Path) -> None:
    (root / "secret.key").unlink()
    with pytest.raises(CorruptError, match=r"secret\.key"):
        _ = Workspace(root).secret
    assert not (root / "secret.key").exists()


def test_a_signing_key_of_another_workspace_is_corrupt(root: Path) -> None:
    (root / "signing.key").write_bytes(SigningKey.new().pem)
    with pytest.raises(CorruptError, match=r"signing\.key and signing\.pub do not belong together"):
        _ = Workspace(root).signing_key
