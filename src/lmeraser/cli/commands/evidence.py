"""Commands for evidence: ledger, certificates, residue scans."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lmeraser.cli.commands.base import (
    AsJson,
    open_eraser,
)
from lmeraser.core.terminal import echo, print_json
from lmeraser.errors import InputError

if TYPE_CHECKING:
    from lmeraser.unlearning.residue import ResidueReport


_EXIT_FOUND, _EXIT_CANNOT_TELL = 1, 3


def ledger(
    head: Annotated[
        Path | None, typer.Option(help="A head exported earlier, which the ledger must contain.")
    ] = None,
    export: Annotated[Path | None, typer.Option(help="Copy the verified ledger to this file.")] = None,
    export_head: Annotated[
        Path | None, typer.Option(help="Write the head of the ledger, signed, to this file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Verify the ledger and print it; exit with 1 if the chain is broken or it contradicts the records."""
    from lmeraser.core.atomic_files import write_atomic

    with open_eraser(quiet=True) as eraser:
        report = eraser.check_ledger(head=head)
        if export:
            eraser.workspace.ledger.export(export)
        if export_head:
            workspace = eraser.workspace
            signed = report.head.sign(workspace.signing_key, now=workspace.clock())
            write_atomic(export_head, signed.to_bytes())
    if as_json:
        print_json(report.to_json())
    else:
        from lmeraser.core.console import print_rows

        rows = [
            [e.position, e.time, e.kind, {k: v for k, v in e.body.items() if k != "removed"}]
            for e in report.entries
        ]
        print_rows("ledger", ["entry", "time", "kind", "body"], rows)
        echo(f"{len(report.entries)} entries in an unbroken chain; head {report.head.digest}")
        for line in report.differences:
            echo(f"CONTRADICTS the records: {line}")
    raise typer.Exit(0 if report.sound else 1)


def verify(
    certificates: Annotated[
        list[Path], typer.Argument(help="JSON files of certificates, statements, results of audits or heads.")
    ],
    key: Annotated[Path, typer.Option(help="Public key of the workspace (signing.pub).")],
    ledger: Annotated[Path | None, typer.Option(help="Ledger that must contain the certificate.")] = None,
    head: Annotated[
        Path | None, typer.Option(help="A head of the ledger that you kept, which the ledger must contain.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Verify certificates and other evidence without workspace or private data, and say what was not checked.

    Exits with 1 if one does not verify, and with 2 if a file cannot be used.
    """
    from lmeraser.evidence.verifier import report

    if status := report(certificates, key, ledger=ledger, head=head, as_json=as_json, program="lmeraser"):
        raise typer.Exit(status)


def timestamp(
    file: Annotated[Path, typer.Argument(help="A certificate (JSON), a head of the ledger or a statement.")],
    url: Annotated[
        str | None,
        typer.Option(help="Time stamping authority (RFC 3161) to ask. Default: verify its answer."),
    ] = None,
    answer: Annotated[Path | None, typer.Option(help="File of its answer. Default: FILE.tsr.")] = None,
    authority: Annotated[
        Path | None, typer.Option(help="Its certificates (PEM), to verify who signed the time stamp.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Have an authority outside confirm when a file existed (RFC 3161), or verify that; it gets the digest alone.

    Exits with 1 if the time stamp does not verify, and with 3 if it was to be verified without --authority: anyone
    can make such a time stamp.
    """
    from lmeraser.core.atomic_files import SHARED, read_file, write_atomic
    from lmeraser.evidence import timestamps

    data = read_file(file)
    roots = read_file(authority) if authority is not None else None
    place = answer if answer is not None else file.with_name(file.name + ".tsr")
    if url is None:
        received = read_file(place)
    elif place.exists():
        raise InputError(
            "There is a time stamp already",
            got=str(place),
            next_step="verify it by leaving out --url, or give --answer another name",
        )
    else:
        received = timestamps.request_timestamp(data, url)
    found = timestamps.verify_timestamp(data, received, roots)
    if url is not None:
        write_atomic(place, received, mode=SHARED)
    if as_json:
        print_json({**found.to_json(), "verified": found.authority is not None, "answer": str(place)})
    elif found.authority is not None:
        echo(f"{file} existed at {found.to_json()['time']}: signed by {found.authority}")
    else:
        echo(f"{place} says that {file} existed at {found.to_json()['time']}; nobody's signature was verified")
        echo("verify the signature with --authority and the authority's root certificate")
    raise typer.Exit(_EXIT_CANNOT_TELL if url is None and found.authority is None else 0)


def certificate(
    request: Annotated[str, typer.Argument(help="UUID of the request.")],
    form: Annotated[
        Literal["text", "json", "pdf"],
        typer.Option("--format", help="json: signed, for auditors; text and pdf: the same facts, for people."),
    ] = "text",
    out: Annotated[Path | None, typer.Option(help="Write it to this file. Default: print it.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="As --format json; with --out, print what was written, as JSON.")
    ] = False,
) -> None:
    """Print the certificate of a completed request, or write it to a file."""
    from lmeraser.core.atomic_files import write_atomic

    if as_json and out is None and form != "pdf":
        form = "json"
    if form == "pdf" and out is None:
        raise InputError("A PDF cannot be printed", next_step="give --out FILE.pdf")
    with open_eraser(quiet=True) as eraser:
        data = eraser.certificate(request, form)
    if out is None:
        echo(*data.decode().rstrip("\n").split("\n"))
    else:
        write_atomic(out, data)
        if as_json:
            print_json({"file": str(out), "format": form})


def attach(
    request: Annotated[str, typer.Argument(help="UUID of the request.")],
    system: Annotated[str, typer.Argument(help="Name of the other system, for people: 'vector store'.")],
    file: Annotated[Path | None, typer.Option(help="The receipt; only its digest is kept.")] = None,
    digest: Annotated[str | None, typer.Option(help="Digest of the receipt instead: sha256:...")] = None,
    as_json: AsJson = False,
) -> None:
    """Attach another system's receipt of a deletion to a pending request; its certificate lists it."""
    with open_eraser(quiet=True) as eraser:
        receipts = eraser.attach_receipt(request, system, file=file, digest=digest)
    if as_json:
        print_json([receipt.to_json() for receipt in receipts])
    else:
        echo(*(f"{receipt.digest} {receipt.system}" for receipt in receipts))


def residue(
    probe: Annotated[
        list[Path] | None,
        typer.Option(help="File to search for, such as a deleted image that you still have; may be repeated."),
    ] = None,
    ids: Annotated[
        list[str] | None, typer.Option("--id", help="Text to search for, such as a record id; may be repeated.")
    ] = None,
    features: Annotated[bool, typer.Option(help="Search for the features of probes as well.")] = True,
    as_json: AsJson = False,
) -> None:
    """Search every byte of the workspace for remains of files or ids.

    Exits with 1 if any are found, and with 3 if none are but an id is too short to tell.
    """
    with open_eraser(quiet=as_json) as eraser:
        report = eraser.residue(probe or [], ids=ids or [], features=features)
    if as_json:
        print_json(report.to_json())
    else:
        _print_residue(report, len(ids or []))
    raise typer.Exit(
        _EXIT_FOUND if report.finds or report.mismatched else 0 if report.clean else _EXIT_CANNOT_TELL
    )


def _print_residue(report: ResidueReport, texts: int) -> None:
    """Print the report of a scan for so many texts."""
    from dataclasses import asdict

    for find in report.finds:
        echo("FOUND {probe} in {file} at {offset}".format(**asdict(find)))
    echo(
        f"{report.windows} windows and {texts} names searched in {report.bytes_searched} bytes of "
        f"{report.files} files: {f'{len(report.finds)} finds' if report.finds else 'nothing found'}"
        + (f"; {report.shared} more are shared with retained records" if report.shared else "")
    )
    if report.held:
        echo(f"duplicates: {report.held} records that are held now have one of these files as their image")
    if report.near_duplicates:
        echo(f"near duplicates: {report.near_duplicates} more look nearly the same (a hint)")
    if report.mismatched:
        echo(f"EXCHANGED payloads: {report.mismatched} are missing or not those added with their records")
    for name in report.not_searched:
        echo(f"not searched: {name} holds nothing that is its own")
    for name in report.not_read:
        echo(f"NOT SEARCHED {name}: it is no file, or a link that leads nowhere")
    for each in report.chance:
        expected = f"{each.probe}: {each.expected:.2g} finds expected by chance"
        if each.occurrences is None:
            echo(expected)
        else:
            count = f"{each.occurrences} occurrences"
            echo(f"TOO SHORT TO TELL {expected}, {count}; only whole values count as found")
