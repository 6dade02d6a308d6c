"""Signed envelopes: DSSE (Dead Simple Signing Envelope, version 1) with Ed25519.

The signature covers the payload's bytes and type, not the layout of the envelope. Verify first, parse afterwards:
`PublicKey.verify` returns exactly the bytes that it verified. Knows nothing about what is signed.

Specification: https://github.com/secure-systems-lab/dsse/blob/v1.0.2/protocol.md
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from lmeraser.core.digests import Digest, parse_json
from lmeraser.errors import InputError, VerificationError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


@dataclass(frozen=True)
class Envelope:
    """A payload with one signature.

    Attributes:
        payload: the signed bytes.
        payload_type: their media type.
        key_id: digest of the public key.
        signature: 64 bytes.
    """

    payload: bytes
    payload_type: str
    key_id: Digest
    signature: bytes

    def to_bytes(self) -> bytes:
        """The envelope as JSON."""
        signature = {"keyid": self.key_id, "sig": _encode(self.signature)}
        values = {"payload": _encode(self.payload), "payloadType": self.payload_type, "signatures": [signature]}
        return json.dumps(values, indent=1).encode() + b"\n"

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse an envelope with exactly one signature.

        Raises:
            VerificationError: the bytes are not such an envelope.
        """
        try:
            values = parse_json(data)
            if values.keys() != {"payload", "payloadType", "signatures"}:
                raise ValueError(f"fields {sorted(values)}")
            (signature,) = values["signatures"]
            if signature.keys() != {"keyid", "sig"} or not isinstance(values["payloadType"], str):
                raise ValueError("a signature has the fields keyid and sig, and payloadType is a string")
            key_id = Digest(signature["keyid"])
            return cls(_decode(values["payload"]), values["payloadType"], key_id, _decode(signature["sig"]))
        except (ValueError, TypeError, AttributeError, KeyError, InputError) as error:
            raise VerificationError(
                "Malformed DSSE envelope",
                got=str(error).splitlines()[0],
                next_step="give the JSON file of a certificate or statement, and check that it is complete",
            ) from error


class PublicKey:
    """An Ed25519 public key, kept as PEM."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the key from a PEM file.

        Raises:
            InputError: the file does not hold an Ed25519 public key.
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        try:
            key = load_pem_public_key(path.read_bytes())
            if not isinstance(key, Ed25519PublicKey):
                raise ValueError(f"not an Ed25519 key but {type(key).__name__}")
        except Exception as error:  # cryptography raises exceptions of many types
            raise _unusable_key("public", path, error) from error
        return cls(key)

    @property
    def pem(self) -> bytes:
        """The key as PEM."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return self._key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @cached_property
    def key_id(self) -> Digest:
        """Digest of the key's DER encoding."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return Digest.of(self._key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))

    def verify(self, envelope: Envelope, *, payload_type: str) -> bytes:
        """The payload, if this key signed it as ``payload_type``.

        Raises:
            VerificationError: it did not sign this payload as this type.
        """
        from cryptography.exceptions import InvalidSignature

        if envelope.payload_type != payload_type:
            raise _invalid_signature(f"payload of type {envelope.payload_type!r} instead of {payload_type!r}")
        if envelope.key_id != self.key_id:
            raise _invalid_signature(f"signed by key {envelope.key_id.short} instead of {self.key_id.short}")
        try:
            self._key.verify(envelope.signature, _signed_bytes(envelope.payload, payload_type))
        except InvalidSignature as error:
            raise _invalid_signature("the signature does not cover these bytes") from error
        return envelope.payload

    def verify_body(self, body: bytes, signature: bytes) -> None:
        """Verify a bare signature made by `SigningKey.sign_body`.

        Raises:
            VerificationError: it is not a signature of this body by this key.
        """
        from cryptography.exceptions import InvalidSignature

        try:
            self._key.verify(signature, hashlib.sha256(body).digest())
        except InvalidSignature as error:
            raise _invalid_signature("the signature does not cover this body") from error


class SigningKey:
    """An Ed25519 private key, kept as unencrypted PEM (PKCS #8)."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def new(cls) -> Self:
        """Generate a key."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the key from a PEM file.

        Raises:
            InputError: the file does not hold an unencrypted Ed25519 private key.
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            key = load_pem_private_key(path.read_bytes(), password=None)
            if not isinstance(key, Ed25519PrivateKey):
                raise ValueError(f"not an Ed25519 key but {type(key).__name__}")
        except Exception as error:  # cryptography raises exceptions of many types
            raise _unusable_key("private", path, error) from error
        return cls(key)

    @property
    def pem(self) -> bytes:
        """The key as PEM; a secret."""
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @cached_property
    def public(self) -> PublicKey:
        """The public key that belongs to this key."""
        return PublicKey(self._key.public_key())

    def sign(self, payload: bytes, *, payload_type: str) -> Envelope:
        """Sign a payload."""
        signature = self._key.sign(_signed_bytes(payload, payload_type))
        return Envelope(payload, payload_type, self.public.key_id, signature)

    def sign_body(self, body: bytes) -> bytes:
        """A bare signature of the SHA-256 digest of a message's body, 64 bytes.

        It cannot be mistaken for the signature of an envelope: 32 bytes are signed here, always more than 32
        there.
        """
        return self._key.sign(hashlib.sha256(body).digest())


def _signed_bytes(payload: bytes, payload_type: str) -> bytes:
    """DSSE's pre-authentication encoding: lengths keep type and payload apart."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _decode(text: str) -> bytes:
    """Decode strict base64, which is the same when it is encoded again.

    Raises:
        ValueError: it is not.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"invalid base64: {error}") from error
    if _encode(data) != text:
        raise ValueError("invalid base64: stray bits")
    return data


def _invalid_signature(got: str) -> VerificationError:
    return VerificationError(
        "Signature verification failed",
        got=got,
        next_step="check that the file is complete and that the key belongs to the workspace it came from",
    )


def _unusable_key(kind: str, path: Path, error: Exception) -> InputError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return InputError(
        f"Cannot read the {kind} key",
        got=f"{path}: {reason}",
        next_step="give signing.pub of the workspace that it is from"
        if kind == "public"
        else "give an Ed25519 key in PEM without password, as made by: openssl genpkey -algorithm ed25519",
    )
