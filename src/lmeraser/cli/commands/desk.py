"""Commands of a privacy desk: extend and start requests."""

from __future__ import annotations

from typing import Annotated

import typer

from lmeraser.cli.commands.base import AsJson, open_eraser, print_report

RequestArgument = Annotated[str, typer.Argument(help="UUID of the request.")]


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
