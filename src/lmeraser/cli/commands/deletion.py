"""Commands for deletion requests: plan, unlearn, and the request queue."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lmeraser.cli.commands.base import (
    Address,
    AsJson,
    AskedOn,
    Audit,
    ExecutorName,
    Ids,
    IdsFile,
    Processes,
    Received,
    RegulationName,
    RequestId,
    Subjects,
    WithDuplicates,
    collect_ids,
    compute_settings,
    open_eraser,
    print_json,
    print_report,
)
from lmeraser.core.terminal import echo


def plan(
    ids: Ids = None,
    subjects: Subjects = None,
    ids_file: IdsFile = None,
    with_duplicates: WithDuplicates = False,
    regulation: RegulationName = "other",
    received: Received = None,
    asked_on: AskedOn = None,
    near_duplicates: Annotated[
        bool, typer.Option("--near-duplicates", help="Also count records that look nearly the same.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what a deletion would do and cost, and when it would be due, without changing anything."""
    with open_eraser(quiet=as_json) as eraser:
        named = _named(ids, subjects, ids_file, regulation, received, asked_on, with_duplicates)
        report = eraser.plan(**named, near_duplicates=near_duplicates)
    if as_json:
        print_json(report.to_json())
        return
    from lmeraser.core.console import print_facts, print_rows

    rows = [[c.cluster, c.records_before, c.records_forgotten] for c in report.affected]
    print_rows("affected clusters", ["cluster", "records now", "of these forgotten"], rows)
    hidden = {"affected", "near_misses"}
    print_facts("plan", {name: value for name, value in report.to_json().items() if name not in hidden})
    echo(*(f"WARNING: {warning}" for warning in report.warnings))


def unlearn(
    ids: Ids = None,
    subjects: Subjects = None,
    ids_file: IdsFile = None,
    request: RequestId = None,
    regulation: RegulationName = "other",
    received: Received = None,
    asked_on: AskedOn = None,
    with_duplicates: WithDuplicates = False,
    audit: Audit = False,
    executor: ExecutorName = None,
    address: Address = None,
    processes: Processes = None,
    as_json: AsJson = False,
) -> None:
    """Delete records and derive the model that training without them would give.

    Without --id, --subject and --ids-file, carries out all pending requests in one derivation (with --request,
    only that one). Writes a signed certificate for each request.
    """
    with open_eraser(compute=compute_settings(executor, address, processes)) as eraser:
        named = _named(ids, subjects, ids_file, regulation, received, asked_on, with_duplicates)
        report = eraser.unlearn(**named, request=request, audit=audit)
    print_report("unlearned", report.to_json(), as_json=as_json)
    raise typer.Exit(1 if any(request.state == "failed" for request in report.requests) else 0)


def requests(context: typer.Context, as_json: AsJson = False) -> None:
    """List deletion requests with their age and the time left until the deadline."""
    if context.invoked_subcommand is not None:
        return
    with open_eraser(quiet=True) as eraser:
        now = eraser.workspace.clock()
        found = [request.to_json(now) for request in eraser.requests()]
    if as_json:
        print_json(found)
        return
    from lmeraser.core.console import format_duration, print_rows

    header = ["request", "law", "state", "asked", "age", "left"]
    rows = [
        [
            r["id"],
            r["regulation"],
            r["state"],
            str(r["asked"] or "-")[:10],
            format_duration(r["age_seconds"]),
            "completed late" if r["late"] and r["state"] == "completed" else format_duration(r["seconds_left"]),
        ]
        for r in found
    ]
    print_rows("deletion requests", header, rows, unfolded=["request", "state", "asked"])


def accept(
    ids: Ids = None,
    subjects: Subjects = None,
    ids_file: IdsFile = None,
    request: RequestId = None,
    regulation: RegulationName = "other",
    received: Received = None,
    asked_on: AskedOn = None,
    with_duplicates: WithDuplicates = False,
    audit: Audit = False,
    as_json: AsJson = False,
) -> None:
    """Accept a request for 'lmeraser unlearn' to carry out; its clusters are quarantined until then."""
    with open_eraser(quiet=True) as eraser:
        named = _named(ids, subjects, ids_file, regulation, received, asked_on, with_duplicates)
        accepted = eraser.request(**named, request=request, audit=audit)
        values = accepted.to_json(eraser.workspace.clock())
    print_report("accepted", values, as_json=as_json)


def cancel(request: Annotated[str, typer.Argument(help="UUID of the request.")], as_json: AsJson = False) -> None:
    """Cancel a request that is still pending."""
    with open_eraser(quiet=True) as eraser:
        values = eraser.cancel(request).to_json(eraser.workspace.clock())
    print_report("cancelled", values, as_json=as_json)


def _named(
    ids: list[str] | None,
    subjects: list[str] | None,
    ids_file: Path | None,
    regulation: str,
    received: str | None,
    asked_on: str | None,
    with_duplicates: bool,
) -> dict[str, Any]:
    """Arguments of `Eraser.plan`, `unlearn` and `request` for the options that their commands share."""
    from lmeraser.workspace.requests.state import parse_regulation

    return {
        "ids": collect_ids(ids, ids_file),
        "subjects": subjects,
        "regulation": parse_regulation(regulation),
        "received": received,
        "asked": asked_on,
        "with_duplicates": with_duplicates,
    }
