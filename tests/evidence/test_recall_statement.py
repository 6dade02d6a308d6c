"""A statement of copies verifies with the key and the ledger, and with nothing that says otherwise."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from conftest import Run, Template
from evidence.test_copies import History
from faults import name, opened
from lmeraser.errors import InputError, VerificationError
from lmeraser.evidence.dsse import SigningKey
from lmeraser.evidence.in_toto import InTotoStatement, verify_statement
from lmeraser.evidence.recall_statement import recall_statement, render, verify_in_ledger
from lmeraser.evidence.verifier import verify_files
from serving import fake_workspace

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
KEY = SigningKey.new()


def history() -> History:
    made = History(0)
    made.add(3)
    made.publish()
    made.export()
    made.delete([0])
    made.publish()
    made.export()
    return made


def test_a_statement_says_what_the_ledger_records_up_to_its_entry() -> None:
    made = history()
    signed = recall_statement(made.entries, now=NOW).sign(KEY).to_bytes()
    statement = verify_statement(signed, KEY.public)
    (copy,) = statement.predicate["copies"]
    assert (copy["records_erased"], copy["confirmed"]) == (1, None)
    assert statement.predicate["copies_without_erased_records"] == 1
    assert "deletion not confirmed yet" in render(statement)
    made.confirm("copy 0")
    ledger = b"".join(entry.line() for entry in made.entries)
    verify_in_ledger(statement, ledger)
    later = recall_statement(made.entries, now=NOW)
    assert "deletion confirmed on 2026-01-01" in render(later)
    verify_in_ledger(later, ledger)


@pytest.mark.parametrize(
    "changed",
    [{"copies": []}, {"copies_without_erased_records": 0}, {"entries": 3}],
    ids=lambda change: next(iter(change)),
)
def test_a_statement_that_says_otherwise_is_refused(changed: dict[str, Any]) -> None:
    made = history()
    true = recall_statement(made.entries, now=NOW)
    lie = InTotoStatement(true.subjects, true.predicate_type, {**true.predicate, **changed})
    with pytest.raises(VerificationError):
        verify_in_ledger(lie, b"".join(entry.line() for entry in made.entries))


def test_a_malformed_statement_is_no_traceback(tmp_path: Path) -> None:
    made = recall_statement(history().entries, now=NOW)
    for predicate in (
        {},
        {**made.predicate, "copies": [1]},
        {**made.predicate, "entries": "x"},
        {**made.predicate, "entries": -1},
        {**made.predicate, "entries": True},
        {**made.predicate, "in_ledger": True},
    ):
        lie = InTotoStatement(made.subjects, made.predicate_type, predicate)
        (tmp_path / "lie.json").write_bytes(lie.sign(KEY).to_bytes())
        (tmp_path / "key.pem").write_bytes(KEY.public.pem)
        (tmp_path / "ledger").write_bytes(b"".join(entry.line() for entry in history().entries))
        with pytest.raises(VerificationError):
            verify_files(tmp_path / "lie.json", tmp_path / "key.pem", ledger=tmp_path / "ledger")


def test_an_empty_ledger_has_no_statement() -> None:
    with pytest.raises(InputError, match="empty"):
        recall_statement([], now=NOW)


def test_the_commands_write_and_verify_it(template: Template, tmp_path: Path, run: Run) -> None:
    root = fake_workspace(template, tmp_path)
    with opened(root) as eraser:
        made = eraser.export(tmp_path / "out")
        eraser.unlearn(ids=[name(4)])
        eraser.confirm_export(made.export)
    path = tmp_path / "copies.json"
    assert run("-w", root, "exports", "--statement", path).code == 0
    (ledger,) = [each for each in root.glob("ledger*") if each.is_file()]
    done = run("verify", path, "--key", root / "signing.pub", "--ledger", ledger)
    assert done.code == 0, done.err
    assert made.export in done.out
    assert "deletion confirmed on 2026-01-31" in done.out
