"""What has become of the copies of a model, as a signed statement that can be made on any day.

A certificate tells of copies as of its issue, mostly before their holders have confirmed; this statement tells
what the ledger records since. It is an in-toto statement about the ledger's last entry, so a copy of the ledger
shows whether it is complete.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from lmeraser.core.digests import Digest
from lmeraser.core.terminal import printable
from lmeraser.core.time import to_text
from lmeraser.errors import InputError, VerificationError
from lmeraser.evidence import hash_chain
from lmeraser.evidence.certificate import CopyFacts
from lmeraser.evidence.copies import copies_outside, recalled_copies
from lmeraser.evidence.hash_chain import Entry, LedgerHead
from lmeraser.evidence.in_toto import InTotoStatement, Subject, malformed, parse_predicate
from lmeraser.evidence.presentation import copy_line

PREDICATE_TYPE = "urn:lmeraser:predicate:copies:1"


class CopiesStated(BaseModel):
    """The predicate.

    Attributes:
        timeCreated: when it was made, RFC 3339.
        entries: of the ledger, up to its subject.
        copies: that hold or held the influence of erased records.
        copies_without_erased_records: how many others there are.
    """

    model_config = ConfigDict(extra="forbid", strict=True, defer_build=True)

    timeCreated: str  # noqa: N815 - as in other predicates of in-toto
    entries: int = Field(ge=1)
    copies: list[CopyFacts]
    copies_without_erased_records: int = Field(ge=0)


def check_form(statement: InTotoStatement) -> None:
    """Check that a statement has the predicate of statements of copies, and the subject that it tells of.

    Raises:
        VerificationError: it does not.
    """
    what = "statement of copies"
    stated = parse_predicate(statement, CopiesStated, what)
    if [subject.name for subject in statement.subjects] != [f"ledger entry {stated.entries - 1}"]:
        raise malformed(what, "the subject is not the entry that it tells of")


def recall_statement(entries: list[Entry], *, now: datetime) -> InTotoStatement:
    """The statement of a ledger.

    Args:
        entries: all of them, checked; at least one.
        now: the time.

    Raises:
        InputError: the ledger is empty.
    """
    if not entries:
        raise InputError("The ledger is empty", got="no entry to make a statement about", next_step="export first")
    last = entries[-1]
    copies = copies_outside(entries)
    predicate = {
        "timeCreated": to_text(now),
        "entries": len(entries),
        "copies": recalled_copies(copies),
        "copies_without_erased_records": sum(not copy.outdated for copy in copies),
    }
    return InTotoStatement((Subject(f"ledger entry {last.position}", last.digest),), PREDICATE_TYPE, predicate)


def verify_in_ledger(statement: InTotoStatement, ledger: bytes, *, exported: LedgerHead | None = None) -> None:
    """Verify that a ledger records what a statement says of copies, up to the statement's entry.

    Args:
        statement: whose signature was verified.
        ledger: bytes of a copy of the ledger.
        exported: a head of the ledger that was kept, which it has to contain.

    Raises:
        VerificationError: it does not.
    """
    predicate = statement.predicate
    (subject,) = statement.subjects
    hash_chain.check(ledger, head=exported)
    entries = hash_chain.check(ledger, head=LedgerHead(predicate["entries"], subject.digest))
    copies = copies_outside(entries[: predicate["entries"]])
    clear = sum(not copy.outdated for copy in copies)
    if (recalled_copies(copies), clear) != (predicate["copies"], predicate["copies_without_erased_records"]):
        raise VerificationError(
            "The statement contradicts the ledger",
            got="its entries tell otherwise of copies outside",
            next_step="ask the operator for the current statement and ledger",
        )


def render(statement: InTotoStatement) -> str:
    """The statement for people."""
    return "\n".join(map(printable, _lines(statement.predicate, statement.subjects[0].digest))) + "\n"


def _lines(predicate: Mapping[str, Any], last: Digest) -> Iterator[str]:
    yield "COPIES OF THE MODEL OUTSIDE"
    yield ""
    yield f"Time               {predicate['timeCreated']}"
    yield f"Ledger             {predicate['entries']} entries, the last one {last}"
    yield f"Without            {predicate['copies_without_erased_records']} copies hold no erased record"
    yield ""
    yield "Recalled copies"
    yield from (f"  - {copy_line(copy)}" for copy in predicate["copies"])
    if not predicate["copies"]:
        yield "  none"
