"""The PDF of a certificate can be read, and says what its text says."""

from __future__ import annotations

import io
import re
import sys
from functools import cache
from typing import Any

import pytest
from make_evidence import FOLDER, KEY
from pypdf import PdfReader

from lmeraser.errors import ConfigError
from lmeraser.evidence.certificate import verify
from lmeraser.evidence.certificate_pdf import to_pdf
from lmeraser.evidence.presentation import sections

FACTS = {number: verify((FOLDER / f"certificate-{number}.json").read_bytes(), KEY.public) for number in (1, 2)}


@cache
def rendered(number: int) -> bytes:
    return to_pdf(FACTS[number])


def read(facts: dict[str, Any], data: bytes) -> str:
    """The text of all pages without white space and footers: lines and pages are broken anywhere."""
    pages = PdfReader(io.BytesIO(data)).pages
    text = "".join("".join(page.extract_text().split()) for page in pages)
    footer = rf"Request{facts['request']['id']}·onlytheJSONfileissigned·page\d/{len(pages)}"
    without, count = re.subn(footer, "", text)
    assert count == len(pages)
    return without


@pytest.mark.parametrize("number", [pytest.param(1, marks=pytest.mark.long), 2])
def test_everything_that_the_text_says_is_in_the_pdf(number: int) -> None:
    text = read(FACTS[number], rendered(number))
    for section in sections(FACTS[number]):
        parts = [
            section.title,
            *section.paragraphs,
            *section.items,
            *(part for row in section.rows for part in row),
        ]
        for part in parts:
            assert "".join(part.split()) in text


def test_names_in_other_scripts_are_shown_or_escaped() -> None:
    shown = {
        **FACTS[2],
        "controller": "Ärzte жжж 会\x1b",
        "receipts": [{"system": "жжж", "digest": "x"}],
    }
    text = read(shown, to_pdf(shown))
    assert "Ärzteжжж" in text
    assert r"\u4f1a\x1b" in text
    assert "жжж" in text


def test_the_file_is_a_function_of_the_facts_and_has_their_date() -> None:
    data = to_pdf(FACTS[2])
    assert data == rendered(2)
    found = PdfReader(io.BytesIO(data)).metadata
    assert found is not None
    assert found.title == f"Certificate of deletion {FACTS[2]['request']['id']}"
    assert str(found.creation_date) == "2026-01-31 12:00:00+00:00"


def test_without_its_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fpdf", None)
    with pytest.raises(ConfigError, match="PDF library not installed"):
        to_pdf(FACTS[2])
