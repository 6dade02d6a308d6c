"""An envelope verifies only as what the key signed; everything else is refused, and never with another error."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import examples
from lmeraser.core.digests import Digest
from lmeraser.errors import InputError, VerificationError
from lmeraser.evidence.dsse import Envelope, PublicKey, SigningKey

TYPE = "application/vnd.lmeraser.test+json"
PAYLOAD = b'{"hello":"w\xc3\xb6rld"}'
KEY = SigningKey.new()
STRANGER = SigningKey.new()
ENVELOPE = KEY.sign(PAYLOAD, payload_type=TYPE)
DATA = ENVELOPE.to_bytes()
ORDER = 2**252 + 27742317777372353535851937790883648493  # of Ed25519's group


def verify(data: bytes, key: PublicKey = KEY.public, payload_type: str = TYPE) -> bytes:
    return key.verify(Envelope.parse(data), payload_type=payload_type)


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    """The envelope after one change to its JSON values."""
    values = json.loads(DATA)
    change(values)
    return json.dumps(values).encode()


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def by_hand(payload: bytes, payload_type: str) -> bytes:
    """DSSE's definition: PAE(type, body) = "DSSEv1" SP LEN(type) SP type SP LEN(body) SP body."""
    kind = payload_type.encode()
    lengths = [str(len(part)).encode("ascii") for part in (kind, payload)]
    return b" ".join([b"DSSEv1", lengths[0], kind, lengths[1], payload])


def theirs(key: SigningKey) -> ed25519.Ed25519PrivateKey:
    """The same key in the hands of another program."""
    loaded = load_pem_private_key(key.pem, password=None)
    assert isinstance(loaded, ed25519.Ed25519PrivateKey)
    return loaded


# --- what is signed ----------------------------------------------------------------------------------------


def test_what_was_signed_verifies() -> None:
    assert verify(DATA) == PAYLOAD
    assert Envelope.parse(DATA) == ENVELOPE


def test_the_test_knows_the_example_of_the_specification() -> None:
    encoded = by_hand(b"hello world", "http://example.com/HelloWorld")
    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


@given(st.binary(max_size=200), st.text(max_size=20))
def test_another_program_accepts_the_signature(payload: bytes, payload_type: str) -> None:
    values = json.loads(KEY.sign(payload, payload_type=payload_type).to_bytes())
    assert set(values) == {"payload", "payloadType", "signatures"}
    assert (base64.b64decode(values["payload"], validate=True), values["payloadType"]) == (payload, payload_type)
    (signature,) = values["signatures"]
    key = load_pem_public_key(KEY.public.pem)
    assert isinstance(key, ed25519.Ed25519PublicKey)
    key.verify(base64.b64decode(signature["sig"], validate=True), by_hand(payload, payload_type))


@given(st.binary(max_size=200), st.text(max_size=20))
def test_the_signature_of_another_program_is_accepted(payload: bytes, payload_type: str) -> None:
    signature = theirs(KEY).sign(by_hand(payload, payload_type))
    values = {
        "signatures": [{"sig": text(signature), "keyid": KEY.public.key_id}],
        "payloadType": payload_type,
        "payload": text(payload),
    }
    assert verify(json.dumps(values).encode(), payload_type=payload_type) == payload


def test_layout_is_not_signed() -> None:
    assert verify(changed(lambda values: None)) == PAYLOAD
    assert verify(b"\n\t " + DATA + b"\r\n") == PAYLOAD


# --- another signature -------------------------------------------------------------------------------------


def test_another_key_is_refused() -> None:
    with pytest.raises(VerificationError, match=f"by key {KEY.public.key_id.short}"):
        verify(DATA, STRANGER.public)


def test_a_stranger_who_takes_the_key_id_is_refused() -> None:
    signed = STRANGER.sign(PAYLOAD, payload_type=TYPE)
    forged = Envelope(signed.payload, signed.payload_type, KEY.public.key_id, signed.signature)
    with pytest.raises(VerificationError, match="does not cover"):
        verify(forged.to_bytes())


def test_another_payload_type_is_refused() -> None:
    with pytest.raises(VerificationError, match=r"of type .* instead of 'text/plain'"):
        verify(DATA, payload_type="text/plain")


def test_a_payload_type_that_was_not_signed_is_refused() -> None:
    with pytest.raises(VerificationError, match="does not cover"):
        verify(changed(lambda values: values.update(payloadType="text/plain")), payload_type="text/plain")


def test_bytes_cannot_be_moved_from_the_payload_to_its_type() -> None:
    signed = KEY.sign(b"b 1 c", payload_type="a")
    moved = Envelope(b"c", "a 5 b", signed.key_id, signed.signature)
    with pytest.raises(VerificationError, match="does not cover"):
        verify(moved.to_bytes(), payload_type="a 5 b")


def _raised(signature: bytes) -> bytes:
    """The other number that stands for the same scalar, which a lenient verifier takes."""
    return signature[:32] + (int.from_bytes(signature[32:], "little") + ORDER).to_bytes(32, "little")


@pytest.mark.parametrize(
    "signature",
    [
        bytes(64),
        b"",
        ENVELOPE.signature[:-1],
        ENVELOPE.signature + b"\0",
        ENVELOPE.signature * 2,
        ENVELOPE.signature[32:] + ENVELOPE.signature[:32],
        _raised(ENVELOPE.signature),
        theirs(KEY).sign(PAYLOAD),
        KEY.sign(PAYLOAD + b" ", payload_type=TYPE).signature,
    ],
    ids=["zeros", "none", "short", "long", "twice", "swapped", "malleable", "bare", "of-another-payload"],
)
def test_another_signature_is_refused(signature: bytes) -> None:
    with pytest.raises(VerificationError, match="does not cover"):
        verify(changed(lambda values: values["signatures"][0].update(sig=text(signature))))


@pytest.mark.parametrize("payload", [b"", PAYLOAD + b"\n", PAYLOAD[:-1], PAYLOAD.replace(b"h", b"H")])
def test_another_payload_is_refused(payload: bytes) -> None:
    with pytest.raises(VerificationError, match="does not cover"):
        verify(changed(lambda values: values.update(payload=text(payload))))


def test_the_key_id_of_another_key_is_refused() -> None:
    other = STRANGER.public.key_id
    with pytest.raises(VerificationError, match=f"by key {other.short}"):
        verify(changed(lambda values: values["signatures"][0].update(keyid=other)))


# --- another form ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.pop("payload"),
        lambda values: values.pop("payloadType"),
        lambda values: values.pop("signatures"),
        lambda values: values.clear(),
        lambda values: values.update(note="more"),
        lambda values: values.update(Payload=values.pop("payload")),
        lambda values: values["signatures"][0].pop("sig"),
        lambda values: values["signatures"][0].pop("keyid"),
        lambda values: values["signatures"][0].update(note="more"),
        lambda values: values.update(signatures=[]),
        lambda values: values["signatures"].append(values["signatures"][0]),
        lambda values: values.update(signatures={"keyid": "", "sig": ""}),
        lambda values: values.update(signatures=values["signatures"][0]),
        lambda values: values.update(signatures="x"),
        lambda values: values.update(signatures=None),
        lambda values: values.update(signatures=[None]),
        lambda values: values.update(payload=None),
        lambda values: values.update(payload=[values["payload"]]),
        lambda values: values.update(payloadType=1),
        lambda values: values.update(payloadType=[TYPE]),
        lambda values: values["signatures"][0].update(keyid=None),
        lambda values: values["signatures"][0].update(keyid=7),
        lambda values: values["signatures"][0].update(keyid=""),
        lambda values: values["signatures"][0].update(keyid=values["signatures"][0]["keyid"].upper()),
        lambda values: values["signatures"][0].update(sig={}),
    ],
)
def test_missing_extra_and_mistyped_fields_are_refused(change: Callable[[dict[str, Any]], object]) -> None:
    with pytest.raises(VerificationError, match="Malformed DSSE envelope"):
        verify(changed(change))


def test_two_signatures_are_refused_even_if_both_are_good() -> None:
    second = json.loads(STRANGER.sign(PAYLOAD, payload_type=TYPE).to_bytes())["signatures"]
    with pytest.raises(VerificationError, match="Malformed DSSE envelope"):
        verify(changed(lambda values: values["signatures"].extend(second)))


def test_stray_bits_at_the_end_of_base64_are_refused() -> None:
    data = KEY.sign(b"A", payload_type=TYPE).to_bytes()
    assert data.count(b'"QQ=="') == 1
    assert base64.b64decode("QR==", validate=True) == b"A", "a lenient reader sees no difference"
    with pytest.raises(VerificationError, match="stray bits"):
        verify(data.replace(b'"QQ=="', b'"QR=="'))


@pytest.mark.parametrize(
    "other",
    ["QQ", "QQ=", "QQ===", "QQ==QQ==", "=QQ=", " QQ==", "QQ==\n", "Q\nQ==", "QQ__", "QÖ==", "\ud800", "QQ==\0"],
)
@pytest.mark.parametrize("field", ["payload", "sig"])
def test_base64_in_any_other_form_is_refused(field: str, other: str) -> None:
    with pytest.raises(VerificationError, match="Malformed DSSE envelope"):
        verify(changed(lambda v: (v if field == "payload" else v["signatures"][0]).update({field: other})))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 50,
        b"\xff\xfe\xfd",
        PAYLOAD,
        DATA[:-3],
        DATA + b"{}",
        DATA * 2,
        b"null",
        b"[]",
        b'"payload"',
        b"1e999",
        b"NaN",
        b"9" * 5000,
        b"[" * 100_000,
        b'{"payload":' * 100_000,
        DATA.replace(b'"payload": ', b'"payload": ' + b"[" * 100_000),
    ],
    ids=range(16),
)
def test_what_is_no_json_of_an_envelope_is_refused(data: bytes) -> None:
    with pytest.raises(VerificationError, match="Malformed DSSE envelope"):
        verify(data)


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
@settings(examples(fast=200, explore=1000))
def test_a_changed_byte_is_refused_or_harmless(position: int, flip: int) -> None:
    forged = bytearray(DATA)
    forged[position] ^= flip
    try:
        assert verify(bytes(forged)) == PAYLOAD
    except VerificationError:
        return
    assert DATA[position] in b" \n", "only layout may change"


@given(st.binary(max_size=100), st.binary(max_size=100))
@settings(examples(fast=10, explore=50))
def test_a_signature_fits_no_other_payload(payload: bytes, other: bytes) -> None:
    signed = KEY.sign(payload, payload_type=TYPE)
    forged = Envelope(other, TYPE, signed.key_id, signed.signature)
    if payload == other:
        assert verify(forged.to_bytes()) == payload
    else:
        with pytest.raises(VerificationError, match="does not cover"):
            verify(forged.to_bytes())


# --- keys --------------------------------------------------------------------------------------------------


def test_a_private_key_comes_back_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "signing.pem"
    path.write_bytes(KEY.pem)
    again = SigningKey.read(path)
    assert again.pem == KEY.pem
    assert again.public.pem == KEY.public.pem
    assert again.sign(PAYLOAD, payload_type=TYPE) == ENVELOPE, "Ed25519 signs without chance"


def test_a_public_key_comes_back_from_its_file_and_verifies(tmp_path: Path) -> None:
    path = tmp_path / "signing.pub"
    path.write_bytes(KEY.public.pem)
    again = PublicKey.read(path)
    assert (again.pem, again.key_id) == (KEY.public.pem, KEY.public.key_id)
    assert verify(DATA, again) == PAYLOAD


def test_keys_are_fresh_and_named_by_their_der_encoding() -> None:
    assert KEY.pem != STRANGER.pem
    der = theirs(KEY).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert KEY.public.key_id == Digest.of(der)
    assert KEY.public.key_id != STRANGER.public.key_id


def test_a_private_key_of_another_program_is_read(tmp_path: Path) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    path = tmp_path / "own.pem"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    signed = SigningKey.read(path).sign(PAYLOAD, payload_type=TYPE)
    key.public_key().verify(signed.signature, by_hand(PAYLOAD, TYPE))


RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
X25519 = x25519.X25519PrivateKey.generate()
PKCS8 = PrivateFormat.PKCS8
SPKI = PublicFormat.SubjectPublicKeyInfo
BROKEN = {
    "garbage": b"\xff\0 no key",
    "empty": b"",
    "frame": b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    "public-frame": b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
}


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(RSA.private_bytes(Encoding.PEM, PKCS8, NoEncryption()), id="rsa"),
        pytest.param(X25519.private_bytes(Encoding.PEM, PKCS8, NoEncryption()), id="x25519"),
        pytest.param(
            theirs(KEY).private_bytes(Encoding.PEM, PKCS8, BestAvailableEncryption(b"word")), id="encrypted"
        ),
        pytest.param(theirs(KEY).private_bytes(Encoding.DER, PKCS8, NoEncryption()), id="der"),
        pytest.param(KEY.public.pem, id="public"),
        pytest.param(KEY.pem[: len(KEY.pem) // 2], id="half"),
        *(pytest.param(data, id=name) for name, data in BROKEN.items()),
    ],
)
def test_a_file_without_a_private_key_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"Cannot read the private key: .*key\.pem: ."):
        SigningKey.read(path)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(RSA.public_key().public_bytes(Encoding.PEM, SPKI), id="rsa"),
        pytest.param(X25519.public_key().public_bytes(Encoding.PEM, SPKI), id="x25519"),
        pytest.param(theirs(KEY).public_key().public_bytes(Encoding.DER, SPKI), id="der"),
        pytest.param(KEY.pem, id="private"),
        pytest.param(KEY.public.pem[: len(KEY.public.pem) // 2], id="half"),
        *(pytest.param(data, id=name) for name, data in BROKEN.items()),
    ],
)
def test_a_file_without_a_public_key_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "key.pub"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"Cannot read the public key: .*key\.pub: ."):
        PublicKey.read(path)


@pytest.mark.parametrize("read", [SigningKey.read, PublicKey.read])
def test_a_key_file_that_cannot_be_read_is_refused(read: Callable[[Path], object], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="missing"):
        read(tmp_path / "missing.pem")
    with pytest.raises(InputError, match="directory"):
        read(tmp_path)


def test_the_refusal_of_a_private_key_does_not_quote_it(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    body = KEY.pem.splitlines()[1].decode()
    path.write_bytes(KEY.pem.replace(b"PRIVATE KEY", b"PRIVATE KEYS"))
    with pytest.raises(InputError) as caught:
        SigningKey.read(path)
    assert body not in str(caught.value)


@pytest.mark.parametrize("name", ["payload", "payloadType", "signatures"])
def test_a_field_that_stands_twice_is_refused(name: str) -> None:
    data = changed(lambda values: None)
    twice = data.replace(f'"{name}"'.encode(), f'"{name}": "ZXZpbA==", "{name}"'.encode(), 1)
    assert json.loads(twice) == json.loads(data)
    with pytest.raises(VerificationError, match="repeated name among"):
        verify(twice)
