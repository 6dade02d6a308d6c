"""Errors say what is wrong, the value got and the next step, and their tree is the one that is drawn."""

from __future__ import annotations

import doctest
import inspect
import re

import pytest

from lmeraser import errors
from lmeraser.errors import InputError, LmeraserError, SourceError, StoppedError, VerificationError, listing


def classes() -> dict[str, type[LmeraserError]]:
    return {
        name: value
        for name, value in inspect.getmembers(errors, inspect.isclass)
        if issubclass(value, LmeraserError)
    }


def test_the_drawn_tree_is_the_class_tree() -> None:
    drawn: dict[str, str] = {}
    parents = ["Exception"]
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"    ([│├└─ ]*)(\w+Error)\b", line):
            depth = len(match[1]) // 4
            parents = [*parents[: depth + 1], match[2]]
            drawn[match[2]] = parents[depth]
    assert drawn == {name: value.__mro__[1].__name__ for name, value in classes().items()}


def test_the_examples_in_the_docstrings_hold() -> None:
    outcome = doctest.testmod(errors)
    assert (outcome.attempted, outcome.failed) == (2, 0)


def test_diagnostics_are_what_is_wrong_then_the_value_then_the_next_step() -> None:
    error = InputError("Dial out of range", got="11 (it goes to 10)", next_step="turn it down")
    assert error.summary == "Dial out of range: 11 (it goes to 10)"
    assert error.diagnostics() == "Dial out of range: 11 (it goes to 10)\nnext: turn it down"
    assert str(error) == error.diagnostics()


def test_parts_that_are_missing_leave_no_trace() -> None:
    assert str(InputError("Dial out of range")) == "Dial out of range"
    assert InputError("Dial out of range").summary == "Dial out of range"
    assert str(InputError("Dial out of range", got="11")) == "Dial out of range: 11"
    without_value = InputError("Dial out of range", next_step="turn it down")
    assert str(without_value) == "Dial out of range\nnext: turn it down"


def test_a_message_never_holds_the_value() -> None:
    error = InputError("Record not found", got="'patient-7'", next_step="correct the id")
    assert "patient-7" not in error.message
    assert "patient-7" in error.summary


@pytest.mark.parametrize("kind", [kind for kind in classes().values() if kind is not SourceError])
def test_every_error_has_the_three_parts_and_an_exit_code(kind: type[LmeraserError]) -> None:
    error = kind("message", got="got", next_step="step")
    assert (error.message, error.got, error.next_step) == ("message", "got", "step")
    assert str(error) == "message: got\nnext: step"
    assert error.exit_code == {StoppedError: 130, VerificationError: 1}.get(kind, 2)


def test_a_source_error_holds_every_fault_but_shows_the_first_few_and_their_number() -> None:
    faults = [f"row {number}: bad" for number in range(25)]
    error = SourceError("Rows cannot be imported", faults=faults, next_step="correct them")
    assert error.faults == tuple(faults)
    assert str(error).startswith("Rows cannot be imported: 25\n  - row 0: bad\n")
    assert str(error).endswith("\nnext: correct them")
    assert "row 19: bad" in str(error)
    assert "row 20: bad" not in str(error)
    assert "... and 5 more" in str(error)


@pytest.mark.parametrize(("count", "lines"), [(0, 1), (1, 2), (20, 21), (21, 22), (1000, 22)])
def test_a_listing_never_floods_the_terminal(count: int, lines: int) -> None:
    text = listing(["item"] * count)
    assert text.splitlines()[0] == str(count)
    assert len(text.splitlines()) == lines
