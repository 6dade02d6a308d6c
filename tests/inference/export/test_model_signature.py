"""Exports signed in the format of OpenSSF Model Signing, verified by its own command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

import lmeraser
from conftest import Run, needs
from inference.export.test_graph import vector_workspace
from lmeraser.errors import InputError
from lmeraser.inference.export.manifest import read_export
from lmeraser.inference.export.model_signature import check_key

pytestmark = needs("model_signing")


def write_key(path: Path, key: Any) -> Path:
    plain = serialization.NoEncryption()
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return path


def test_keys_that_cannot_sign_are_refused_before_anything_is_written(tmp_path: Path, run: Run) -> None:
    ed = write_key(tmp_path / "ed.pem", ed25519.Ed25519PrivateKey.generate())
    (tmp_path / "text.pem").write_text("no key")
    for key in (ed, tmp_path / "text.pem", tmp_path / "missing.pem"):
        with pytest.raises(InputError, match="Not a private key for OpenSSF Model Signing"):
            check_key(key)
    check_key(write_key(tmp_path / "ec.pem", ec.generate_private_key(ec.SECP384R1())))
    run("-w", tmp_path / "w", "init")
    refused = run("-w", tmp_path / "w", "export", tmp_path / "out", "--oms-key", ed)
    assert refused.code == 2
    assert "openssl ecparam" in refused.err
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_the_command_of_model_signing_verifies_an_export(tmp_path: Path) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    key = write_key(tmp_path / "key.pem", private)
    public = tmp_path / "public.pem"
    public.write_bytes(
        private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    out = tmp_path / "out"
    with vector_workspace(tmp_path / "w") as eraser:
        eraser.export(out, oms_key=key)
    read_export(out)
    lmeraser.load_predictor(out)

    def verify() -> int:
        command = [sys.executable, "-m", "model_signing", "verify", "key", str(out)]
        options = ["--signature", str(out / "model.sig"), "--public_key", str(public)]
        return subprocess.run([*command, *options], capture_output=True, check=False).returncode

    assert verify() == 0
    with (out / "README.md").open("a") as card:
        card.write("changed\n")
    assert verify() != 0
