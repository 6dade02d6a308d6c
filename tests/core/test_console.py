"""Tables fold their values in a terminal, and nowhere else."""

from __future__ import annotations

import pytest

from lmeraser.core.console import print_facts, print_rows

LONG = "sha256:" + "0123456789abcdef" * 12


def test_values_are_not_folded_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    print_rows("digests", ["name", "digest"], [["first", LONG], ["second", LONG + "0"]])
    print_facts("facts", {"digest": LONG, "words": "many words " * 20})
    out = capsys.readouterr().out
    assert out.count(LONG) == 3
    assert "many words " * 19 in out


def test_a_width_that_is_given_limits_tables(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    print_rows("digests", ["name", "digest"], [["first", LONG]])
    out = capsys.readouterr().out
    assert LONG not in out
    assert max(map(len, out.splitlines())) <= 60
    assert LONG in "".join(line[8:].strip() for line in out.splitlines())
