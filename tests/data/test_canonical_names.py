"""Every name has one canonical form, and what cannot be a name is refused by the written rule."""

from __future__ import annotations

import doctest
import math
import unicodedata
import uuid
from datetime import date
from decimal import Decimal
from pathlib import PurePosixPath

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import examples
from lmeraser.data import canonical_names
from lmeraser.data.canonical_names import (
    LONGEST,
    as_text,
    canonical_name,
    canonical_or_none,
    is_missing,
    near_key,
    show,
    spellings,
)
from lmeraser.data.tables import label_name

SPACES = " \t\n\u00a0\u2003\u202f\u3000"


def test_the_examples_in_the_docstrings_hold() -> None:
    assert doctest.testmod(canonical_names).failed == 0


@examples(fast=100, explore=5000)
@given(st.text(), st.text(SPACES, max_size=3), st.text(SPACES, max_size=3))
def test_the_canonical_form_is_one_for_all_spellings_and_its_own_canonical_form(
    text: str, before: str, behind: str
) -> None:
    form = canonical_or_none(text)
    ways = {unicodedata.normalize(how, before + text + behind) for how in ("NFC", "NFD")}
    assert {canonical_or_none(way) for way in ways} == {form}
    if form is not None:
        assert canonical_name(form) == form == form.strip(SPACES)
        assert unicodedata.is_normalized("NFC", form)
        assert {canonical_or_none(way) for way in spellings(text)} == {form}
        assert near_key(text) == near_key(form) == near_key(before + form)


@examples(fast=50, explore=1000)
@given(st.text(max_size=5), st.text(max_size=5))
def test_names_with_one_canonical_form_differ_in_normalisation_and_outer_white_space_alone(
    one: str, other: str
) -> None:
    same = canonical_or_none(one) is not None and canonical_or_none(one) == canonical_or_none(other)
    if same:
        assert unicodedata.normalize("NFD", one).strip() == unicodedata.normalize("NFD", other).strip()


@pytest.mark.parametrize(
    "name",
    [
        "Screenshot 2024-05-01 at 3.15.00\u202fPM.png",  # macOS
        "Sn\u00edmek obrazovky\u00a02024",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian, with a non-joiner
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",  # a family
        "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",  # a flag, of tag characters
        "\u200eIMG-1.jpg",  # a mark of direction, as messengers write it
        "\u0e19\u0e49\u0e33",
        "\uf8ff-logo",  # private use
        "#1001",
        "two  words",
        "x" * LONGEST,
        "e\u0301" * LONGEST,
    ],
)
def test_names_that_people_and_computers_give_are_names(name: str) -> None:
    assert canonical_name(name) == unicodedata.normalize("NFC", name)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "it is empty"),
        (" \u00a0\n", "it is empty"),
        ("x" * (LONGEST + 1), "longer than 1024"),
        ("a\x00b", "a control character (U+0000)"),
        ("two\nlines", "a control character (U+000A)"),
        ("\x1ba", "a control character (U+001B)"),
        ("a\x9fb", "a control character (U+009F)"),
        ("a\u2028b", "a line separator"),
        ("a\u2029b", "a paragraph separator"),
        ("a\udcff", "a lone surrogate (U+DCFF)"),
        ("a\ufffe", "a noncharacter"),
        ("a\U0010ffff", "a noncharacter"),
        ("\ufdd0", "a noncharacter"),
        *((f"a{chr(code)}gnp.exe", "a bidirectional control") for code in (0x202A, 0x202E, 0x2066, 0x2069)),
    ],
)
def test_what_hides_a_name_is_refused_with_the_reason(name: str, why: str) -> None:
    with pytest.raises(ValueError, match=r"^it ") as caught:
        canonical_name(name)
    assert why in str(caught.value)
    assert canonical_or_none(name) is None


def test_a_name_may_be_given_as_a_number_a_path_a_date_or_a_uuid() -> None:
    one = uuid.uuid4()
    same = [17, 17.0, np.int64(17), np.float32(17), np.uint8(17), Decimal("17.00")]
    assert {canonical_name(value) for value in same} == {"17"}
    assert as_text(-0.0) == "0"
    assert as_text(2**70) == str(2**70)
    assert as_text(PurePosixPath("cat/1.png")) == "cat/1.png"
    assert as_text(date(2026, 1, 31)) == "2026-01-31"
    assert as_text(one) == str(one)
    assert type(as_text(np.str_("a"))) is str


@pytest.mark.parametrize("value", [True, None, 1.5, float("nan"), float("inf"), b"a", ["a"], 1j, np.bool_(True)])
def test_what_is_no_name_is_refused_without_its_value(value: object) -> None:
    with pytest.raises(ValueError, match="no name"):
        canonical_name(value)


def test_a_float_that_does_not_tell_its_whole_number_is_refused() -> None:
    assert as_text(2.0**53) == str(2**53)
    with pytest.raises(ValueError, match="too large"):
        as_text(2.0**54)


def test_what_a_table_has_in_place_of_a_value_is_missing() -> None:
    assert all(map(is_missing, (None, "", float("nan"), np.float32("nan"), float("inf"), pd.NA, pd.NaT)))
    assert not any(map(is_missing, ("nan", " ", 0, 0.0, False)))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ren\u00e9e", "renee"),
        ("Anna Lind", "AnnaLind"),
        ("Anna  Lind", "anna\u00a0lind"),
        ("\uff21nna", "Anna"),  # full width
        ("a\u200bb", "ab"),  # an invisible space
        ("\u0410nna", "Anna"),  # a Cyrillic letter
        ("\u03bfscar", "oscar"),  # a Greek one
        ("Stra\u00dfe", "STRASSE"),
        ("10l", "1OI"),
        ("17.0", "17"),
    ],
)
def test_names_that_a_reader_takes_for_one_another_have_the_same_key(one: str, other: str) -> None:
    assert canonical_name(one) != canonical_name(other)
    assert near_key(one) == near_key(other)


def test_other_names_have_other_keys() -> None:
    different = ["r1", "r2", "r10", "r.1", "r-1", "Anna", "Hanna", "1.0.0", "v1.0"]
    assert len({near_key(name) for name in different}) == len(different)


def test_a_spelling_is_shown_with_escapes_and_another_name_is_not() -> None:
    assert show("a ", beside="a") == "'a '"
    assert show("Rene\u0301e", beside="Ren\u00e9e") == r"'Rene\u0301e'"
    assert show("\u0410\u043d\u043d\u0430", beside="Anna") == "'\u0410\u043d\u043d\u0430'"


def test_whole_numbers_of_every_type_are_one_class() -> None:
    assert {label_name(value) for value in (3, 3.0, np.int64(3), np.float32(3), Decimal("3.0"), " 3 ")} == {"3"}
    assert label_name(math.inf) is None
    assert label_name(2.5) is None
