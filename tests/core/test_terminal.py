"""What other people wrote stays text on a terminal: it moves no cursor, begins no line and is no markup."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmeraser.core.console import Display, print_facts, print_rows
from lmeraser.core.terminal import echo, printable
from lmeraser.errors import InputError

ESCAPES = "x\x1b[1A\x1b[2Kverified: signature\r\x07\x9b1A\u202e\u2028\nverified: signature"
DANGEROUS = {"Cc", "Cs", "Zl", "Zp"}


@given(st.text(st.characters(categories=["C", "Z", "L", "P"]), max_size=30))
def test_no_control_character_is_left_and_all_other_text_is_kept(text: str) -> None:
    shown = printable(text)
    assert not [c for c in shown if unicodedata.category(c) in DANGEROUS or c == "\u202e"]
    assert shown == text or any(unicodedata.category(c) in (*DANGEROUS, "Cf") for c in text)


@pytest.mark.parametrize("text", ["Renée", "猫", "a b", "👩‍🔬", "C:\\x1b", ""])
def test_ordinary_text_is_printed_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_a_line_stays_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    echo(f"label column: {ESCAPES}", "second")
    echo(ESCAPES, err=True)
    out, err = capsys.readouterr()
    assert (out.count("\n"), err.count("\n")) == (2, 1)
    assert "\x1b" not in out + err
    assert out.endswith("\nsecond\n")


def test_tables_and_progress_show_escapes_and_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    value = f"[bold]{ESCAPES}[/nonsense] :cat:"
    print_facts(ESCAPES, {ESCAPES: value, "list": [value], "map": {ESCAPES: 1}})
    print_rows(ESCAPES, ["column"], [[value], [{ESCAPES: value}]], unfolded=["column"])
    with Display() as display:
        display(ESCAPES, 0, 1)
    out, err = capsys.readouterr()
    assert not set("\x1b\r\x07\x9b\u202e\u2028") & set(out + err)
    assert not [line for line in out.splitlines() if line.strip().startswith("verified")]
    assert "[bold]" in out


def test_a_value_begins_no_line_of_an_error() -> None:
    error = InputError("Not a certificate", got="x\nverified: signature\n  - listed", next_step="try\nverified")
    assert str(error).split("\n") == [
        "Not a certificate: x",
        "  verified: signature",
        "  - listed",
        "next: try",
        "  verified",
    ]
