"""Verification for auditors: what `lmeraser verify` and the package ``lmeraser-verify`` do.

Needs the files that an operator hands out and nothing else: no workspace, no private data, no torch. Everything
that this module imports is copied into ``lmeraser-verify`` (`scripts/build_verifier.py`).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from lmeraser.core.atomic_files import read_file
from lmeraser.core.digests import Digest, parse_json
from lmeraser.core.terminal import echo, print_json, printable
from lmeraser.errors import InputError, LmeraserError
from lmeraser.evidence import certificate as certificates
from lmeraser.evidence import in_toto, recall_statement, verification_result
from lmeraser.evidence.dsse import Envelope, PublicKey
from lmeraser.evidence.hash_chain import HEAD_TYPE, LedgerHead, check
from lmeraser.evidence.presentation import render

Kind = Literal["certificate", "audit result", "copies", "ledger head"]

_NO_LEDGER = "whether the ledger has it: give --ledger"
_NO_HEAD = "whether the ledger was rewritten since: give --head, a head of it that somebody else kept"
_WHOSE_KEY = "whose key this is, {key}: compare it with the one that was published"
_AUDIT = "the audit itself: that it found this is its signer's word"
_WORDING = (
    "claims that are worded otherwise than this version of lmeraser words them: read what they leave out or add"
)


@dataclass(frozen=True)
class Verified:
    """What was verified of a file.

    Attributes:
        kind: what it is.
        facts: what it says, as JSON values.
        text: what it says, for people.
        key: digest of the key that signed it.
        in_ledger: whether a ledger was given, and has it.
        contains_head: whether a head was given, and the ledger has that.
        standard_wording: whether a certificate's texts are those of this version; True for everything else.
    """

    kind: Kind
    facts: Mapping[str, Any]
    text: str
    key: Digest
    in_ledger: bool = False
    contains_head: bool = False
    standard_wording: bool = True

    @property
    def not_checked(self) -> list[str]:
        """What nobody may take for verified, one line each."""
        result = self.kind == "audit result"
        rewritten = self.in_ledger and not self.contains_head and self.kind != "ledger head"
        return [
            *([] if result or self.in_ledger else [_NO_LEDGER]),
            *([_NO_HEAD] if rewritten else []),
            *([_AUDIT] if result else []),
            *([] if self.standard_wording else [_WORDING]),
            _WHOSE_KEY.format(key=self.key),
        ]

    def to_json(self) -> dict[str, Any]:
        """As JSON values; no field of the file's can stand for one of these."""
        checked = {
            "verified": True,
            "kind": self.kind,
            "key": self.key,
            "in_ledger": self.in_ledger,
            "contains_head": self.contains_head,
            "standard_wording": self.standard_wording,
            "not_checked": self.not_checked,
        }
        return {**checked, **{name: value for name, value in self.facts.items() if name not in checked}}

    def lines(self) -> list[str]:
        """The text, what was verified and what was not, in lines that are safe to print."""
        verified = (
            "verified: signature"
            + (" and entry in the ledger" if self.in_ledger else "")
            + (", which contains the head" if self.contains_head else "")
        )
        return [*self.text.split("\n"), *(f"not checked: {each}" for each in self.not_checked), verified]


def verify_files(path: Path, key: Path, *, ledger: Path | None = None, head: Path | None = None) -> Verified:
    """Verify a certificate, the result of an audit, a statement of copies or a head of the ledger.

    Args:
        path: of the file.
        key: PEM file of the public key of the workspace.
        ledger: a copy of the ledger, which has to contain it.
        head: a head of the ledger that was kept, which the ledger has to contain.

    Raises:
        VerificationError: it does not verify.
        InputError: a file cannot be read, or the options do not fit together.
    """
    if head and not ledger:
        raise InputError("--head without a ledger that contains it", next_step="give --ledger, too")
    data, public_key = read_file(path), PublicKey.read(key)
    entries = read_file(ledger) if ledger else None
    kept = LedgerHead.read(head, key=public_key) if head else None
    payload_type = Envelope.parse(data).payload_type
    statement = in_toto.verify_statement(data, public_key) if payload_type == in_toto.PAYLOAD_TYPE else None
    if payload_type == HEAD_TYPE:
        found = _verified_head(data, public_key, entries, kept)
    elif statement is not None and statement.predicate_type == verification_result.PREDICATE_TYPE:
        found = _verified_result(statement, public_key, entries)
    elif statement is not None and statement.predicate_type == recall_statement.PREDICATE_TYPE:
        found = _verified_copies(statement, public_key, entries, kept)
    else:
        found = _verified_certificate(data, public_key, entries, kept)
    return replace(found, in_ledger=ledger is not None, contains_head=head is not None)


def _verified_certificate(data: bytes, key: PublicKey, ledger: bytes | None, kept: LedgerHead | None) -> Verified:
    facts = certificates.verify(data, key)
    if ledger is not None:
        certificates.verify_in_ledger(data, facts, ledger, exported=kept)
    standard = certificates.has_standard_wording(facts)
    return Verified("certificate", facts, render(facts), key.key_id, standard_wording=standard)


def _verified_copies(
    statement: in_toto.InTotoStatement, key: PublicKey, ledger: bytes | None, kept: LedgerHead | None
) -> Verified:
    recall_statement.check_form(statement)
    if ledger is not None:
        recall_statement.verify_in_ledger(statement, ledger, exported=kept)
    return Verified("copies", statement.predicate, recall_statement.render(statement), key.key_id)


def _verified_head(data: bytes, key: PublicKey, ledger: bytes | None, kept: LedgerHead | None) -> Verified:
    try:
        facts = parse_json(key.verify(Envelope.parse(data), payload_type=HEAD_TYPE))
        head = LedgerHead.of_json(facts)
    except ValueError as error:
        raise in_toto.malformed("head of a ledger", str(error)) from error
    if ledger is not None:
        for expected in [head] if kept is None else [kept, head]:
            check(ledger, head=expected)
    lines = [
        "HEAD OF A LEDGER",
        "",
        f"Time               {facts.get('time')}",
        f"Ledger             {head.entries} entries, the last one {head.digest}",
    ]
    return Verified("ledger head", facts, "\n".join(map(printable, lines)) + "\n", key.key_id)


def _verified_result(statement: in_toto.InTotoStatement, key: PublicKey, ledger: bytes | None) -> Verified:
    if ledger is not None:
        raise InputError(
            "The result of an audit is in no ledger", next_step="leave --ledger out, and compare the subject"
        )
    result = in_toto.parse_predicate(statement, verification_result.AuditResult, "result of an audit")
    lines = [
        "RESULT OF AN AUDIT",
        "",
        *(f"Audited            {subject.name} ({subject.digest})" for subject in statement.subjects),
        f"Time               {result.timeCreated}",
        f"Verifier           {result.verifier.id}",
        "",
        "Properties that the audit asserts",
        *(f"  - {name}" for name in result.properties),
    ]
    facts = {**statement.predicate, "subject": [subject.to_json() for subject in statement.subjects]}
    return Verified("audit result", facts, "\n".join(map(printable, lines)) + "\n", key.key_id)


def report(
    paths: Sequence[Path], key: Path, *, ledger: Path | None, head: Path | None, as_json: bool, program: str
) -> int:
    """Verify files and print what they say, what was verified and what was not; arguments as of `verify_files`.

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
        try:
            found = verify_files(paths[0], key, ledger=ledger, head=head)
        except LmeraserError as error:
            if as_json:
                print_json({"verified": False, "error": error.summary})
            raise
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
        prog="lmeraser-verify",
        description="Verify certificates, statements of copies, results of audits and heads of the ledger.",
    )
    parser.add_argument(
        "certificate",
        type=Path,
        nargs="+",
        help="JSON file of a certificate, statement, result or head; may be repeated.",
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
