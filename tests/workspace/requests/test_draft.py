"""A draft has one form of its selector, which is what is stored and recognised."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmeraser.config.deployment import RequestsConfig
from lmeraser.core.digests import keyed_digest
from lmeraser.errors import InputError
from lmeraser.workspace.requests.draft import FARTHEST, OLDEST, RequestDraft, Selector

_names = st.lists(st.text(max_size=5), max_size=5)
NOW = datetime(2026, 3, 10, tzinfo=UTC)


@given(_names, _names)
def test_order_and_repetition_do_not_matter(ids: list[str], subjects: list[str]) -> None:
    selector = Selector.of([*ids, *reversed(ids)], reversed(subjects))
    assert selector == Selector.of(set(ids), set(subjects))
    assert selector.names == len(set(ids)) + len(set(subjects))
    assert selector.empty == (not ids and not subjects)


@given(_names, _names)
def test_digest_and_stored_form_are_those_of_version_0_1(ids: list[str], subjects: list[str]) -> None:
    selector = Selector.of(ids, subjects)
    names = [*(("record", name) for name in set(ids)), *(("subject", name) for name in set(subjects))]
    assert selector.digest(b"secret") == keyed_digest(b"secret", ["selector", *sorted(map(list, names))])
    stored = {"ids": sorted(set(ids)), "subjects": sorted(set(subjects))}
    assert selector.to_bytes() == json.dumps(stored, ensure_ascii=False).encode()
    assert Selector.parse(selector.to_bytes()) == selector


def test_a_record_and_a_subject_of_one_name_are_not_the_same() -> None:
    assert Selector.of(ids=["x"]).digest(b"secret") != Selector.of(subjects=["x"]).digest(b"secret")


def test_the_period_begins_when_the_person_asked_or_the_request_was_received() -> None:
    config = RequestsConfig()
    earlier = datetime(2026, 2, 1, tzinfo=UTC)
    selector = Selector.of(["x"])
    assert RequestDraft(selector).due(config, now=NOW) == config.due("other", NOW)
    assert RequestDraft(selector, received=earlier).due(config, now=NOW) == config.due("other", earlier)
    assert RequestDraft(selector, asked=earlier).due(config, now=NOW) == config.due("other", earlier)
    late = RequestDraft(selector, received=earlier, asked=NOW)
    assert late.due(config, now=NOW) == config.due("other", earlier), "it cannot begin after the request came"


@pytest.mark.parametrize("field", ["asked", "received"])
@pytest.mark.parametrize("year", [1, 1970, 2015, 2027, 9999])
def test_a_time_that_cannot_be_meant_is_refused(field: str, year: int) -> None:
    moment = datetime(year, 1, 1, tzinfo=timezone(timedelta(hours=14 if year == 1 else -12)))
    with pytest.raises(InputError, match="in the future or more than ten years ago"):
        replace(RequestDraft(Selector.of(["x"])), **{field: moment}).check_times(now=NOW)  # type: ignore[arg-type]


@given(st.timedeltas(-OLDEST, FARTHEST))
def test_a_time_within_the_bounds_is_kept_but_never_after_now(ago: timedelta) -> None:
    draft = RequestDraft(Selector.of(["x"]), asked=NOW + ago)
    draft.check_times(now=NOW)
    assert draft.asked_at(now=NOW) == min(NOW + ago, NOW)


@given(_names, _names, _names)
def test_a_selector_with_duplicates_is_another_one(ids: list[str], subjects: list[str], found: list[str]) -> None:
    plain, wide = (Selector.of(ids, subjects, duplicates=wanted) for wanted in (False, True))
    assert plain.digest(b"secret") != wide.digest(b"secret")
    accepted = replace(wide, known_duplicates=tuple(found))
    assert accepted.digest(b"secret") == wide.digest(b"secret"), "a repeated request is recognised"
    assert Selector.parse(accepted.to_bytes()) == accepted
