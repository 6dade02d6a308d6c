"""Commands for deletion requests: plan, unlearn, and the request queue."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
    global_options,
    open_eraser,
    print_report,
)
from lmeraser.core.terminal import echo, print_json

if TYPE_CHECKING:
    from lmeraser.unlearning.unlearn import UnlearnReport


_MOST_LINES = 20  # requests of a report


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
    from lmeraser.cli.words import command, in_words, suggest
    from lmeraser.core.console import print_facts, print_rows

    if report.clusters_to_tune:
        rows = [[c.cluster, c.records_before, c.records_forgotten] for c in report.affected]
        print_rows("affected clusters", ["cluster", "records now", "of these to delete"], rows)
    hidden = {"affected", "near_misses"}
    shown = {name: value for name, value in report.to_json().items() if name not in hidden}
    print_facts("plan", in_words({**shown, "urgency": shown["urgency"] if shown["urgency"] != "later" else None}))
    if not report.clusters_to_tune:
        echo(
            "nothing is tuned again: the records are subtracted from sums" if report.records else "nothing changes"
        )
    echo(*(f"WARNING: {warning}" for warning in report.warnings))
    suggest(command("unlearn", *_selection(ids, subjects, ids_file, with_duplicates)))


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
    if as_json:
        print_json(report.to_json())
    else:
        _print_unlearned(report)
    raise typer.Exit(1 if any(request.state == "failed" for request in report.requests) else 0)


def _print_unlearned(report: UnlearnReport) -> None:
    """What was deleted, from which model, and the certificate of each request."""
    from lmeraser.cli.words import in_words, suggest
    from lmeraser.core.console import print_facts
    from lmeraser.core.time import from_text

    values = report.to_json()
    in_tables = {"requests", "certificates", "late"}
    print_facts("unlearned", in_words({name: value for name, value in values.items() if name not in in_tables}))
    paths = {Path(path).stem: path for path in report.certificates}
    for one in report.requests[:_MOST_LINES]:
        late = ", late" if one.late(from_text(one.changed)) else ""
        where = f"; certificate: {paths[one.id]}" if one.id in paths else ""
        echo(f"request {one.id}: {one.state}{late}{where}")
    if len(report.requests) > _MOST_LINES:
        echo(f"and {len(report.requests) - _MOST_LINES} more; 'lmeraser requests' lists them")
    if report.certificates:
        key = global_options.workspace / "signing.pub"
        suggest(shlex.join(["lmeraser", "verify", report.certificates[0], "--key", str(key)]))


def _selection(
    ids: list[str] | None, subjects: list[str] | None, ids_file: Path | None, with_duplicates: bool
) -> list[str]:
    """The options that name these records."""
    named = [word for each in ids or [] for word in ("--id", each)]
    named += [word for each in subjects or [] for word in ("--subject", each)]
    named += ["--ids-file", str(ids_file)] if ids_file is not None else []
    return [*named, *(["--with-duplicates"] if with_duplicates else [])]


def requests(
    context: typer.Context,
    view: Annotated[
        Literal["open", "week", "late", "done", "all"], typer.Option(help="Which requests; week: due within one.")
    ] = "all",
    regulation: Annotated[
        Literal["gdpr", "ccpa", "other"] | None, typer.Option(help="Only requests under this law.")
    ] = None,
    order: Annotated[
        Literal["due", "received", "changed"],
        typer.Option(help="The earliest due first, or the latest received or changed."),
    ] = "due",
    words: Annotated[
        str | None, typer.Option("--search", help="The beginning of an id, or a part of a reference.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List deletion requests with the day of asking and the time left until the deadline."""
    if context.invoked_subcommand is not None:
        return
    from lmeraser.workspace.requests.listing import search, timeliness

    with open_eraser(quiet=True) as eraser:
        now = eraser.workspace.clock()
        references = eraser.workspace.requests.references()
        _, found = eraser.workspace.requests.listed(now, view, regulation=regulation or "", order=order)
    if words is not None:
        found = search(found, references, words)
    if as_json:
        print_json([{**request.to_json(now), "reference": references.get(request.id)} for request in found])
        return
    from lmeraser.cli.words import command, suggest
    from lmeraser.core.console import print_rows

    laws = any(request.regulation != "other" for request in found)
    named = any(references.get(request.id) for request in found)
    last = ["in time", "reference"] if named else ["asked", "in time"]
    header = ["request", *(["law"] if laws else []), "state", *last]
    rows = []
    for each in found:
        in_time = timeliness(each, now)
        cells = [in_time, references.get(each.id, "")] if named else [(each.asked or "")[:10], in_time]
        rows.append([each.id, *([each.regulation] if laws else []), each.state, *cells])
    print_rows("deletion requests", header, rows, unfolded=["request", "state", "asked", "in time"])
    if any(request.open for request in found):
        suggest(command("unlearn"))


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
    reference: Annotated[
        str | None,
        typer.Option(help="Your own name for it; kept encrypted until it is closed (requests.reference_days)."),
    ] = None,
    now: Annotated[bool, typer.Option("--now", help="Let the service skip the grace period.")] = False,
    as_json: AsJson = False,
) -> None:
    """Accept a request for 'lmeraser unlearn' or the service to carry out; it is quarantined until then.

    The service leaves it alone for its grace period (service.grace_period), in which 'lmeraser requests cancel'
    takes it back; 'lmeraser unlearn' carries it out at once.
    """
    with open_eraser(quiet=True) as eraser:
        named = _named(ids, subjects, ids_file, regulation, received, asked_on, with_duplicates)
        accepted = eraser.request(**named, request=request, audit=audit, reference=reference, now=now)
        values = accepted.to_json(eraser.workspace.clock())
    from lmeraser.cli.words import command

    print_report("accepted", values, as_json=as_json, next_steps=[command("unlearn", "--request", accepted.id)])


def cancel(
    request: Annotated[str, typer.Argument(help="UUID of the request.")],
    reason: Annotated[
        str | None, typer.Option(help="Why, for the ledger: withdrawn, unverified, mistake or other.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Take a request back that is still pending; nothing of it was deleted."""
    with open_eraser(quiet=True) as eraser:
        values = eraser.cancel(request, reason=reason).to_json(eraser.workspace.clock())
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
