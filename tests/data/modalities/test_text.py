"""Payloads of texts: what is normalised, what stays, what is refused and with which words."""

from __future__ import annotations

import time
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmeraser.data.modalities.text import LARGEST_TEXT, TextFormat, check_text, text_of, text_payload
from lmeraser.errors import InputError

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1).filter(
    lambda text: bool(text.strip("\ufeff").strip())
)


@given(TEXTS)
def test_a_payload_is_the_normalised_text_and_is_its_own_payload(text: str) -> None:
    payload = text_payload(text)

    lines = text.lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    assert text_of(payload) == unicodedata.normalize("NFC", lines)
    check_text(payload)
    assert text_payload(text_of(payload)) == payload


@pytest.mark.parametrize(
    "text",
    [
        "  two spaces at each end  ",
        "שלום, עולם",
        "مرحبا \u200f(1)\u202b",
        "👩‍👩‍👧 👍🏽 🏳️‍🌈",
        "\ufb01 ligature, \u2126 stays composed as NFC says",
        "one\n\n\ttwo\u2028three",
    ],
)
def test_nothing_else_is_changed(text: str) -> None:
    assert text_payload(text) == unicodedata.normalize("NFC", text).encode()


def test_the_ways_to_write_one_text_have_one_payload() -> None:
    assert text_payload("Ren\u00e9e") == text_payload("Rene\u0301e") == "Ren\u00e9e".encode()
    assert text_payload("a\r\nb\rc\nd") == b"a\nb\nc\nd"


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("", "the text is empty"),
        (" \t\r\n\u3000\u00a0", "the text is empty"),
        (None, "no text"),
        (float("nan"), "no text"),
        (17, "a value of type int instead of a text"),
        (b"bytes", "a value of type bytes instead of a text"),
        ("ab\r\nc\0d", "the text has a NUL character at line 2, character 2"),
        ("a\ud800b", "the text has half of a surrogate pair at line 1, character 2"),
        ("\udfff\ud83d", "the text has half of a surrogate pair at line 1, character 1"),
        ("a" * (10 << 20), "a text of 10485760 characters (the limit is 1048576 bytes)"),
        ("é" * (LARGEST_TEXT // 2 + 1), "a text of 1048578 bytes (the limit is 1048576 bytes)"),
    ],
)
def test_what_is_refused(value: object, fault: str) -> None:
    with pytest.raises(ValueError) as error:
        text_payload(value)

    assert str(error.value) == fault


def test_the_largest_text_is_taken() -> None:
    assert len(text_payload("é" * (LARGEST_TEXT // 2))) == LARGEST_TEXT


def test_combining_marks_without_end_are_refused_at_once_and_many_are_not() -> None:
    started = time.process_time()

    with pytest.raises(ValueError, match="more than 256 combining marks in a row at line 2, character 258"):
        text_payload("x\na" + "\u0300\u0323" * 200_000)

    assert time.process_time() - started < 10  # normalising it takes minutes
    text_payload("Z" + "\u0300\u0323" * 100 + "a" + "\u0323\u0300" * 100)
    text_payload("日本語" * 1000)


@pytest.mark.parametrize(
    ("payload", "fault"),
    [
        (b"abc\xff", "not UTF-8 at byte 3"),
        ("Rene\u0301e".encode(), "not in NFC, or with other newlines"),
        (b"a\r\nb", "not in NFC, or with other newlines"),
        (b"", "the text is empty"),
        (b"a" * (LARGEST_TEXT + 1), "the limit is 1048576 bytes"),
    ],
)
def test_bytes_that_are_no_payload(payload: bytes, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        check_text(payload)


def test_a_files_name_is_not_classified_in_the_place_of_its_content(tmp_path: Path) -> None:
    file = tmp_path / "letter.txt"
    file.write_text("My card was charged twice.")
    with pytest.raises(InputError, match="name of a file") as caught:
        TextFormat().queries(["a text", str(file)], Counter())
    assert "$(cat FILE)" in caught.value.next_step
    texts = ["letter.txt", "no file.", "a" * 5000 + ".txt", str(tmp_path)]
    assert [query for _, query in TextFormat().queries(texts, Counter())] == texts
