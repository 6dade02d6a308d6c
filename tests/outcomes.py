"""A table and a figure as a study gives them."""

from __future__ import annotations

from lmeraser.experiments.results import Figure, Table

TABLE = Table(
    "numbers", "Some numbers", ["name", "value", "known"], [["a, b", 1.5, True], ['say "c"', None, False]]
)
FIGURE = Figure("curve", "A curve", "lines", "x", "y", {"one": [[0, 1.0], [1, 2.0]]}, published={"paper": 1.5})
