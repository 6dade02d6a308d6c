"""Progress is told in order and never pulls ahead of its consumer."""

from __future__ import annotations

from collections.abc import Iterator

from lmeraser.core.progress import track


def test_every_item_is_passed_on_and_reported() -> None:
    told: list[tuple[str, int, int | None]] = []
    items = list(track("abc", "step", 3, lambda *report: told.append(report)))
    assert items == ["a", "b", "c"]
    assert told == [("step", done, 3) for done in range(4)]


def test_an_unknown_total_and_no_items_are_reported_too() -> None:
    told: list[tuple[str, int, int | None]] = []
    assert list(track([], "step", None, lambda *report: told.append(report))) == []
    assert told == [("step", 0, None)]


def test_an_item_is_pulled_only_when_it_is_asked_for() -> None:
    pulled = 0

    def items() -> Iterator[int]:
        nonlocal pulled
        while True:
            pulled += 1
            yield pulled

    stream = track(items(), "step", None, lambda step, done, total: None)
    assert [next(stream), next(stream)] == [1, 2]
    assert pulled == 2
