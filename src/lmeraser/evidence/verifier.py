"""Verification for auditors: what `lmeraser verify` and the package ``lmeraser-verify`` do.

Needs the files that an operator hands out and nothing else: no workspace, no private data, no torch. Everything
that this module imports is copied into ``lmeraser-verify`` (`scripts/build_verifier.py`).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmeraser.core.atomic_files import read_file
from lmeraser.core.terminal import echo, print_json, printable
from lmeraser.errors import InputError, LmeraserError, VerificationError
from lmeraser.evidence import certificate as certificates
from lmeraser.evidence import in_toto, recall_statement, verification_result
from lmeraser.evidence.dsse import Envelope, PublicKey
from lmeraser.evidence.hash_chain import LedgerHead
from lmeraser.evidence.presentation import render


@dataclass(frozen=True)
class Verified:
    """A certificate, or the result of an audit, that was verified.

    Attributes:
        facts: what it says, as JSON values.
        text: what it says, for people.
        in_ledger: whether a ledger was given, and has it.
        contains_head: whether a head was given, and the ledger has that.
    """

    facts: Mapping[str, Any]
    text: str
    in_ledger: bool
    contains_head: bool

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {"verified": True, "in_ledger": self.in_ledger, **self.facts}

    def lines(self) -> list[str]:
        """The text, and what was verified, in lines that are safe to print."""
        verified = (
            "verified: signature"
            + (" and entry in the ledger" if self.in_ledger else "")
            + (", which contains the head" if self.contains_head else "")
        )
        return [*self.text.split("\n"), verified]


def verify_files(path: Path, key: Path, *, ledger: Path | None = None, head: Path | None = None) -> Verified:
    """Verify a certificate or the result of an audit.

    Args:
        path: of the certificate or result.
        key: PEM file of the public key of the workspace.
        ledger: a copy of the ledger, which has to contain the certificate.
        head: a head of the ledger that was kept, which the ledger has to contain.

    Raises:
        VerificationError: it does not verify.
        InputError: a file cannot be read, or the options do not fit together.
    """
    if head and not ledger:
        raise InputError("--head without a ledger that contains it", next_step="give --ledger, too")
    data, public_key = read_file(path), PublicKey.read(key)
    if Envelope.parse(data).payload_type == in_toto.PAYLOAD_TYPE:
        statement = in_toto.verify_statement(data, public_key)
        if statement.predicate_type == verification_result.PREDICATE_TYPE:
            if ledger:
                raise InputError(
                    "The result of an audit is in no ledger",
                    next_step="leave --ledger out, and compare the subject",
                )
            facts = {**statement.predicate, "subject": [subject.to_json() for subject in statement.subjects]}
            return Verified(facts, _result_text(statement), in_ledger=False, contains_head=False)
        if statement.predicate_type == recall_statement.PREDICATE_TYPE:
            return _verified_recalls(statement, public_key, ledger, head)
    facts = certificates.verify(data, public_key)
    if ledger:
        exported = LedgerHead.read(head, key=public_key) if head else None
        certificates.verify_in_ledger(data, facts, read_file(ledger), exported=exported)
    return Verified(facts, render(facts), in_ledger=bool(ledger), contains_head=bool(head))


def _verified_recalls(
    statement: in_toto.InTotoStatement, key: PublicKey, ledger: Path | None, head: Path | None
) -> Verified:
    """Verify a statement of copies; its signature was verified.

    Raises:
        VerificationError: it is not what the ledger records, or malformed.
    """
    exported = LedgerHead.read(head, key=key) if head else None
    try:
        text = recall_statement.render(statement)
        if ledger:
            recall_statement.verify_in_ledger(statement, read_file(ledger), exported=exported)
    except (KeyError, TypeError, ValueError) as error:
        raise VerificationError(
            "Malformed statement of copies", got=repr(error), next_step="ask the operator for another one"
        ) from error
    return Verified(statement.predicate, text, in_ledger=bool(ledger), contains_head=bool(head))


def _result_text(statement: in_toto.InTotoStatement) -> str:
    """The result of an audit for people."""
    predicate = statement.predicate
    lines = [
        "RESULT OF AN AUDIT",
        "",
        *(f"Audited            {subject.name} ({subject.digest})" for subject in statement.subjects),
        f"Time               {predicate.get('timeCreated')}",
        f"Verifier           {predicate.get('verifier')}",
        "",
        "Verified properties",
        *(f"  - {name}" for name in predicate.get("properties", ())),
    ]
    return "\n".join(map(printable, lines)) + "\n"


def report(
    paths: Sequence[Path], key: Path, *, ledger: Path | None, head: Path | None, as_json: bool, program: str
) -> int:
    """Verify certificates, or results of audits, and print what they say; arguments as of `verify_files`.

    Of several, each is verified, whatever the others are, and its file is named.

    Args:
        paths: at least one.
        key: as of `verify_files`, as are the next two.
        ledger: a copy of the ledger.
        head: a head of it.
        as_json: print JSON, a list if there are several.
        program: begins lines about errors.

    Returns:
        The exit status: 0 all verified, 1 one is not verified, 2 files that cannot be used.

    Raises:
        LmeraserError: the only one does not verify.
    """
    if len(paths) == 1:
        found = verify_files(paths[0], key, ledger=ledger, head=head)
        print_json(found.to_json()) if as_json else echo(*found.lines())
        return 0
    results: list[dict[str, Any]] = []
    statuses = []
    for path in paths:
        try:
            found = verify_files(path, key, ledger=ledger, head=head)
        except LmeraserError as error:
            statuses.append(error.exit_code)
            results.append({"file": str(path), "verified": False, "error": error.summary})
            echo(*f"{program}: {path}: {error.diagnostics()}".split("\n"), err=True)
            continue
        results.append({"file": str(path), **found.to_json()})
        if not as_json:
            echo(f"{path}:", *found.lines(), "")
    if as_json:
        print_json(results)
    else:
        echo(f"{len(paths) - len(statuses)} of {len(paths)} verified")
    return min(statuses, default=0)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command ``lmeraser-verify``.

    Args:
        arguments: of the command line; None: those of the process.

    Returns:
        The exit status: 0 verified, 1 not verified, 2 files that cannot be used.
    """
    parser = argparse.ArgumentParser(
        prog="lmeraser-verify", description="Verify a certificate of deletion, or the result of an audit."
    )
    parser.add_argument(
        "certificate",
        type=Path,
        nargs="+",
        help="JSON file of the certificate, or of the result of an audit; may be repeated.",
    )
    parser.add_argument("--key", type=Path, required=True, help="Public key of the workspace (signing.pub).")
    parser.add_argument("--ledger", type=Path, help="Ledger that must contain the certificate.")
    parser.add_argument("--head", type=Path, help="A head of the ledger that you kept, which it must contain.")
    parser.add_argument("--json", action="store_true", help="Print what it says as JSON.")
    options = parser.parse_args(arguments)
    files = {"key": options.key, "ledger": options.ledger, "head": options.head}
    try:
        return report(options.certificate, **files, as_json=options.json, program=parser.prog)
    except LmeraserError as error:
        echo(*f"{parser.prog}: {error.diagnostics()}".split("\n"), err=True)
        return error.exit_code
