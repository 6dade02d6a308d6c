"""Equal things have equal digests, different things have different ones, and private ones need the secret."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from lmeraser.core.digests import Digest, canonical_json, keyed_digest
from lmeraser.errors import InputError

_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)


class Holder(BaseModel):
    digest: Digest


def reverse(value: Any) -> Any:
    """The same value with the keys of every dictionary in the opposite order."""
    if isinstance(value, dict):
        return {key: reverse(value[key]) for key in reversed(list(value))}
    return [reverse(item) for item in value] if isinstance(value, list) else value


def test_a_digest_is_sha_256_with_its_name() -> None:
    digest = Digest.of(b"abc")
    assert digest == "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest.hex == digest[7:]
    assert digest.short == "ba7816bf8f01"


@given(st.binary(max_size=64))
def test_a_digest_parses_back_to_itself(data: bytes) -> None:
    digest = Digest.of(data)
    assert Digest(str(digest)) == digest
    assert Holder.model_validate_json(Holder(digest=digest).model_dump_json()).digest == digest
    assert isinstance(Holder.model_validate({"digest": str(digest)}).digest, Digest)


MALFORMED = ["", "sha256:", "0" * 64, "sha256:" + "0" * 63, "sha256:" + "A" * 64, "sha256:" + "0" * 64 + "\n"]


@pytest.mark.parametrize("text", [*MALFORMED, "sha512:" + "0" * 64, " sha256:" + "0" * 64])
def test_a_malformed_digest_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="64 lower-case hexadecimal"):
        Digest(text)
    with pytest.raises(ValidationError):
        Holder.model_validate({"digest": text})


def test_canonical_json_is_that_of_rfc_8785() -> None:
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "€$\u000f\u000aA'\u0042\u0022\u005c\\\"/",
        "literals": [None, True, False],
    }
    assert (
        canonical_json(value)
        == (
            '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
            '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
        ).encode()
    )


_ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.text(st.characters(max_codepoint=0x9F)),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner),
)


@given(_ANY)
@example({'a\x7f\x1f"\\/\b': [2**53 - 1, -(2**53) + 1, True], "B": {"": None, "a": "<&>"}})
@example([2**53])
@example({1: 2})
@example({"\U0001f600": 1, "\ufb01": 2})
@example({1.5: "x"})
def test_canonical_json_is_that_of_the_library(value: Any) -> None:
    try:
        expected = rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        with pytest.raises(type(error)):
            canonical_json(value)
    else:
        assert canonical_json(value) == expected


@given(_values)
def test_the_order_of_keys_does_not_matter(value: Any) -> None:
    assert canonical_json(value) == canonical_json(reverse(value))
    assert json.loads(canonical_json(value)) == value


@given(_values, _values)
def test_digests_of_values_are_equal_exactly_when_the_values_are(first: Any, second: Any) -> None:
    same = json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)
    assert (Digest.of_json(first) == Digest.of_json(second)) == same


@given(st.binary(min_size=1, max_size=40), st.binary(min_size=1, max_size=40), _values)
def test_a_keyed_digest_needs_the_secret(secret: bytes, other: bytes, value: Any) -> None:
    digest = keyed_digest(secret, value)
    assert digest == keyed_digest(secret, value)
    assert digest.hex == hmac.new(secret, canonical_json(value), hashlib.sha256).hexdigest()
    assert digest != Digest.of_json(value)
    padded = [key.ljust(64, b"\0") for key in (secret, other)]  # HMAC itself pads short keys with zeros
    assert (digest == keyed_digest(other, value)) == (padded[0] == padded[1])


@pytest.mark.parametrize("size", [0, 1, 2**18 + 1])
def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path: Path, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    (tmp_path / "file").write_bytes(data[:size])
    assert Digest.of_file(tmp_path / "file") == Digest.of(data[:size])
    with pytest.raises(FileNotFoundError):
        Digest.of_file(tmp_path / "missing")
