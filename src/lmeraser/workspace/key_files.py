"""Keys that a workspace keeps in files: the secret of keyed digests, and the pair that signs certificates."""

from __future__ import annotations

import secrets
from pathlib import Path

from lmeraser.core.atomic_files import write_atomic
from lmeraser.core.digests import keyed_digest
from lmeraser.errors import CorruptError
from lmeraser.evidence.dsse import PublicKey, SigningKey
from lmeraser.workspace.layout import Layout

_SECRET_BYTES = 32


def paths(layout: Layout) -> tuple[Path, ...]:
    """The files that `write` writes."""
    return layout.secret_key, layout.signing_key, layout.public_key


def write(layout: Layout, signing_key: SigningKey) -> None:
    """Write a new secret and this pair of keys."""
    write_atomic(layout.secret_key, secrets.token_hex(_SECRET_BYTES).encode())
    write_atomic(layout.signing_key, signing_key.pem)
    write_atomic(layout.public_key, signing_key.public.pem)


def read_secret(layout: Layout) -> bytes:
    """Read the secret.

    Raises:
        CorruptError: the file is missing or damaged.
    """
    try:
        secret = bytes.fromhex(layout.secret_key.read_text(encoding="ascii"))
        if len(secret) != _SECRET_BYTES:
            raise ValueError(f"it holds {len(secret)} bytes instead of {_SECRET_BYTES}")
    except (OSError, ValueError) as error:
        raise CorruptError(
            f"{layout.secret_key.name} is missing or damaged",
            got=str(error),
            next_step="restore the file from a backup",
        ) from error
    return secret


def read_signing_key(layout: Layout) -> SigningKey:
    """Read the key that signs certificates.

    Raises:
        CorruptError: it does not belong to the public key beside it.
    """
    key = SigningKey.read(layout.signing_key)
    if key.public.key_id != PublicKey.read(layout.public_key).key_id:
        raise CorruptError(
            f"{layout.signing_key.name} and {layout.public_key.name} do not belong together",
            got=f"the private key belongs to {key.public.key_id.short}",
            next_step="restore both files from a backup",
        )
    return key


def check_value(secret: bytes) -> str:
    """A value that tells whether another secret is the same one, without revealing it."""
    return keyed_digest(secret, ["workspace"])
