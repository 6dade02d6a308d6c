"""Signed envelopes: DSSE (Dead Simple Signing Envelope, version 1) with Ed25519.

The signature covers the payload's bytes and type, not the envelope's layout. Verify first, parse afterwards: the
bytes that were verified are the bytes that are returned. Knows nothing about what is signed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
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
        payload_type: what they are.
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
        """An envelope from its JSON.

        Raises:
            VerificationError: the bytes are no such envelope.
        """
        try:
            values = parse_json(data)
            if values.keys() != {"payload", "payloadType", "signatures"}:
                raise ValueError(f"fields {sorted(values)}")
            (signature,) = values["signatures"]
            if signature.keys() != {"keyid", "sig"} or not isinstance(values["payloadType"], str):
                raise ValueError("one signature with keyid and sig")
            key_id = Digest(signature["keyid"])
            return cls(_decode(values["payload"]), values["payloadType"], key_id, _decode(signature["sig"]))
        except (ValueError, TypeError, AttributeError, KeyError, InputError) as error:
            raise _refused(f"no envelope: {str(error).splitlines()[0]}") from error


class PublicKey:
    """An Ed25519 public key, kept as PEM."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key

    @classmethod
    def read(cls, path: Path) -> Self:
        """From a PEM file.

        Raises:
            InputError: the file holds no Ed25519 public key.
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        try:
            key = load_pem_public_key(path.read_bytes())
            if not isinstance(key, Ed25519PublicKey):
                raise ValueError(f"a key of another kind ({type(key).__name__})")
        except Exception as error:  # cryptography raises many kinds
            raise _no_key("public", path, error) from error
        return cls(key)

    @property
    def pem(self) -> bytes:
        """The key as PEM."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return self._key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @property
    def key_id(self) -> Digest:
        """Digest of the key's DER encoding."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return Digest.of(self._key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))

    def verify(self, envelope: Envelope, *, payload_type: str) -> bytes:
        """The payload, if this key signed it as ``payload_type``.

        Raises:
            VerificationError: it did not.
        """
        from cryptography.exceptions import InvalidSignature

        if envelope.payload_type != payload_type:
            raise _refused(f"a payload of type {envelope.payload_type!r} instead of {payload_type!r}")
        if envelope.key_id != self.key_id:
            raise _refused(f"a signature by key {envelope.key_id.short} instead of {self.key_id.short}")
        try:
            self._key.verify(envelope.signature, _signed_bytes(envelope.payload, payload_type))
        except InvalidSignature as error:
            raise _refused("a signature that does not cover these bytes") from error
        return envelope.payload

    def verify_body(self, body: bytes, signature: bytes) -> None:
        """Check what `SigningKey.sign_body` gave.

        Raises:
            VerificationError: it is no signature of this body by this key.
        """
        from cryptography.exceptions import InvalidSignature

        try:
            self._key.verify(signature, hashlib.sha256(body).digest())
        except InvalidSignature as error:
            raise _refused("a signature that does not cover this body") from error


class SigningKey:
    """An Ed25519 private key, kept as unencrypted PEM (PKCS #8)."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def new(cls) -> Self:
        """A fresh key."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def read(cls, path: Path) -> Self:
        """From a PEM file.

        Raises:
            InputError: the file holds no unencrypted Ed25519 private key.
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            key = load_pem_private_key(path.read_bytes(), password=None)
            if not isinstance(key, Ed25519PrivateKey):
                raise ValueError(f"a key of another kind ({type(key).__name__})")
        except Exception as error:  # cryptography raises many kinds
            raise _no_key("private", path, error) from error
        return cls(key)

    @property
    def pem(self) -> bytes:
        """The key as PEM; a secret."""
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def public(self) -> PublicKey:
        """The key that verifies."""
        return PublicKey(self._key.public_key())

    def sign(self, payload: bytes, *, payload_type: str) -> Envelope:
        """Sign a payload."""
        signature = self._key.sign(_signed_bytes(payload, payload_type))
        return Envelope(payload, payload_type, self.public.key_id, signature)

    def sign_body(self, body: bytes) -> bytes:
        """A bare signature of the SHA-256 digest of a message's body, 64 bytes.

        No such signature is one of an envelope: 32 bytes are signed here, and always more than 32 there.
        """
        return self._key.sign(hashlib.sha256(body).digest())


def _signed_bytes(payload: bytes, payload_type: str) -> bytes:
    """DSSE's pre-authentication encoding: lengths keep type and payload apart."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _decode(text: str) -> bytes:
    """Bytes of strict base64: what encoding them again gives."""
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"base64: {error}") from error
    if _encode(data) != text:
        raise ValueError("base64 with stray bits")
    return data


def _refused(got: str) -> VerificationError:
    return VerificationError(
        "A certificate is an envelope that the given key signed.",
        got=got,
        next_step="check that the file is complete and that the key is the one of its workspace",
    )


def _no_key(kind: str, path: Path, error: Exception) -> InputError:
    return InputError(
        f"A {kind} key is an Ed25519 key in a readable PEM file without password.",
        got=f"{path}: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
        next_step="make one with: openssl genpkey -algorithm ed25519",
    )
