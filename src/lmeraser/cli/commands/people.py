"""Commands about people: find them and records, list both, extend and start requests."""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from lmeraser.cli.commands.base import AsJson, open_eraser, print_report
from lmeraser.core.spreadsheets import cell
from lmeraser.core.terminal import echo, print_json

RequestArgument = Annotated[str, typer.Argument(help="UUID of the request.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print the list as CSV.")]
Search = Annotated[str, typer.Option(help="Only names that contain this, whatever its case, accents and spaces.")]


def subjects(
    name: Annotated[str | None, typer.Argument(help="A person: show what is held. Default: list all.")] = None,
    search: Search = "",
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """List the people of whom records are held, or show what is held of one, with names that look alike."""
    with open_eraser(quiet=True) as eraser:
        if name is not None:
            _show("subject", name, eraser.find(subject=name).to_json(), as_csv=as_csv, as_json=as_json)
            return
        found = [asdict(line) for line in eraser.list_subjects(search=search)]
    _print_list("people", found, as_csv=as_csv, as_json=as_json)


def records(
    record_id: Annotated[str | None, typer.Argument(help="A record: show it. Default: list all.")] = None,
    subject: Annotated[str | None, typer.Option(help="Only records about this person.")] = None,
    label: Annotated[str | None, typer.Option(help="Only records of this class.")] = None,
    search: Search = "",
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """List the records that are held, or show one, with other records of the same payload."""
    with open_eraser(quiet=True) as eraser:
        if record_id is not None:
            _show("record", record_id, eraser.find(id=record_id).to_json(), as_csv=as_csv, as_json=as_json)
            return
        lines = eraser.list_records(subject=subject, label=label, search=search)
    _print_list("records", [asdict(line) for line in lines], as_csv=as_csv, as_json=as_json)


def extend(
    request: RequestArgument,
    reason: Annotated[str, typer.Option(help="Why, for the ledger: complexity, number or (not GDPR) other.")],
    as_json: AsJson = False,
) -> None:
    """Extend the time for the answer, once, as the law allows: by two months (GDPR) or 45 days (CCPA).

    The person has to be told of the extension, and why, before the answer was due at first.
    """
    with open_eraser(quiet=True) as eraser:
        values = eraser.extend(request, reason=reason).to_json(eraser.workspace.clock())
    print_report("extended", values, as_json=as_json)


def start(request: RequestArgument, as_json: AsJson = False) -> None:
    """End the grace period of a pending request: the service carries it out next."""
    with open_eraser(quiet=True) as eraser:
        values = eraser.start(request).to_json(eraser.workspace.clock())
    print_report("started", values, as_json=as_json)


def _show(what: str, name: str, found: Mapping[str, Any], *, as_csv: bool, as_json: bool) -> None:
    """What is held under a name; exit status 1 if it is nothing."""
    if as_json:
        print_json(found)
    elif as_csv:
        _print_list("records", found["records"], as_csv=True, as_json=False)
    else:
        from lmeraser.core.console import print_facts, print_rows

        rows = [
            [line["id"], line["label"], line["added"][:10], ", ".join(line["requests"])]
            for line in found["records"]
        ]
        if rows:
            print_rows(
                "records", ["record", "label", "added", "open requests"], rows, unfolded=["record", "added"]
            )
        facts = {
            "held as": ", ".join(map(repr, found["names"])) or "nothing is held under this name",
            "deleted here before": "yes" if found["deleted_before"] else "no",
            "records": len(found["records"]),
            "by label": _counts(found["labels"]),
            "by day of import": _counts(found["days"]),
            "other records with the same payload": ", ".join(found["duplicates"]) or "none",
        }
        print_facts(f"{what} {name!r}", facts)
        echo(*(f"looks alike, but is another name: {miss['held']!r}" for miss in found["near_misses"]))
    raise typer.Exit(0 if found["records"] else 1)


def _counts(counts: Mapping[str, int] | None) -> str:
    return ", ".join(f"{name}: {count}" for name, count in (counts or {}).items()) or "none"


def _print_list(title: str, found: Sequence[Mapping[str, Any]], *, as_csv: bool, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    header = list(found[0]) if found else []
    if as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerows([header, *([_cell(value) for value in line.values()] for line in found)] if found else [])
        return
    from lmeraser.core.console import print_rows

    rows = [[_counts(value) if isinstance(value, Mapping) else value for value in line.values()] for line in found]
    print_rows(f"{title}: {len(rows)}", header, rows, unfolded=header[:1])


def _cell(value: Any) -> str:
    """A value in one cell; counts with their names."""
    return cell((_counts(value) if value else "") if isinstance(value, Mapping) else value)
