"""Figures are drawn from their numbers, and the same numbers give the same files."""

from __future__ import annotations

import pytest

from lmeraser.experiments.figures import _bars, draw
from lmeraser.experiments.results import Figure

LINES = Figure("l", "Lines", "lines", "x", "y", {"ours": [[0, 1.0], [1, 2.0]]}, published={"theirs": 1.5})
BARS = Figure("b", "Bars", "bars", y="y", series={"data": {"ours": 3.0, "theirs": 0.0}}, log=True)


@pytest.mark.parametrize("figure", [LINES, BARS], ids=lambda figure: figure.kind)
def test_png_and_svg_with_title_and_names(figure: Figure) -> None:
    drawn = draw(figure)
    assert drawn["png"].startswith(b"\x89PNG")
    text = drawn["svg"].decode()
    assert all(word in text for word in (figure.title, "ours", "theirs"))


def test_the_same_numbers_give_the_same_bytes() -> None:
    assert draw(LINES) == draw(LINES)


@pytest.mark.parametrize("log", [True, False])
def test_no_bar_reaches_the_edge(log: bool) -> None:
    from matplotlib.figure import Figure as Canvas

    axis = Canvas().subplots()
    _bars(axis, Figure("b", "Bars", "bars", series={"one": {"a": 499.0}, "two": {"a": 3.0, "b": 0.0}}, log=log))
    low, high = axis.get_ylim()
    assert low == 0
    assert high > 1.05 * 499


def test_a_dark_page_has_its_own_picture() -> None:
    assert draw(LINES, dark=True) == draw(LINES, dark=True) != draw(LINES)


def test_published_levels_are_named_as_such() -> None:
    assert "theirs (paper)" in draw(LINES)["svg"].decode()
