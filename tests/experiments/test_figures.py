"""Figures are drawn from their numbers, and the same numbers give the same files."""

from __future__ import annotations

import pytest

from lmeraser.experiments.figures import draw
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


def test_published_levels_are_named_as_such() -> None:
    assert "theirs (paper)" in draw(LINES)["svg"].decode()
