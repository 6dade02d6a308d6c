"""The text of a certificate says in plain words what its facts say, and no more."""

from __future__ import annotations

from typing import Any

import pytest
from make_evidence import FOLDER, KEY

from lmeraser.evidence.certificate import verify
from lmeraser.evidence.presentation import TITLE, erased, render, sections

FACTS = verify((FOLDER / "certificate-2.json").read_bytes(), KEY.public)
ONE = verify((FOLDER / "certificate-1.json").read_bytes(), KEY.public)
SHOWN = ["", "What was erased", "What is promised", "Claim", "What is not covered", "Facts", "How to verify"]


def changed(**parts: Any) -> dict[str, Any]:
    return {
        **FACTS,
        **{name: {**FACTS[name], **part} if isinstance(part, dict) else part for name, part in parts.items()},
    }


@pytest.mark.parametrize("facts", [FACTS, ONE])
def test_every_certificate_has_the_same_sections(facts: dict[str, Any]) -> None:
    assert [section.title for section in sections(facts)] == SHOWN


def test_one_sentence_says_what_was_erased() -> None:
    assert erased(FACTS) == (
        "By 2026-01-31, 10 records and everything that was stored of them were deleted, and the model was brought "
        "to what training without them gives."
    )
    one = erased(changed(counts={"records_deleted": 1}))
    assert "1 record and everything that was stored of it were deleted" in one
    assert "no model had been trained" in erased(changed(model={"digest_after": None}))
    nothing = changed(counts={"records_deleted": 0, "names_already_deleted": 2})
    assert erased(nothing) == "This request deleted no record: its names had been deleted before."
    assert "nothing that was held" in erased(changed(counts={"records_deleted": 0, "names_already_deleted": 0}))


@pytest.mark.parametrize(
    ("duplicates", "told", "not_told"),
    [
        (2, "still held: 2", "not known"),
        (0, "Claim\n  CLAIM", "still held"),
        (None, "not known", "still held"),
    ],
)
def test_what_is_promised_excepts_what_others_hold(duplicates: int | None, told: str, not_told: str) -> None:
    text = render(changed(counts={"duplicates_held": duplicates}, claim="CLAIM"))
    assert told in text
    assert not_told not in text


def test_without_a_model_nothing_is_promised_of_one() -> None:
    text = render(changed(model={"digest_after": None, "digest_before": None}, claim="CLAIM"))
    assert "The model that is in use" not in text
    assert "is encrypted, and the keys" in text


@pytest.mark.parametrize(
    ("request_facts", "told"),
    [
        ({}, "(3 days after the request; in time)"),
        ({"asked": "2026-01-31T00:00:00Z"}, "(on the day of the request; in time)"),
        ({"asked": None}, "(on the day of the request; in time)"),
        ({"asked": "2026-01-30T00:00:00Z"}, "(1 day after the request; in time)"),
        ({"due": "2026-01-31T00:00:00Z"}, "(3 days after the request; LATE: less than a day after it was due)"),
        ({"due": "2026-01-20T00:00:00Z"}, "(3 days after the request; LATE: 11 days after it was due)"),
    ],
)
def test_it_says_how_long_it_took(request_facts: dict[str, Any], told: str) -> None:
    assert told in render(changed(request=request_facts))


@pytest.mark.parametrize(("name", "law"), [("gdpr", "Article 17"), ("ccpa", "1798.105"), ("other", "another law")])
def test_it_names_law_and_article(name: str, law: str) -> None:
    assert law in render(changed(request={"regulation": name}))


def test_controller_and_receipts_are_shown_where_there_are_any() -> None:
    assert "Issued by" not in render(FACTS)
    assert "Receipts" not in render(FACTS)
    receipts = [{"system": "warehouse", "digest": "sha256:" + "1" * 64}]
    text = render(changed(controller="Example Ltd, 1 High Street", receipts=receipts))
    assert "Issued by          Example Ltd, 1 High Street" in text
    assert f"- warehouse: sha256:{'1' * 64}" in text
    assert "not checked here" in text


def test_control_characters_are_escapes() -> None:
    text = render(changed(controller="a\x1b[2Kverified\nb"))
    assert "\x1b" not in text
    assert r"a\x1b[2Kverified\nb" in text
    assert text.startswith(f"{TITLE}\n")
