"""Checking a workspace's ledger: its chain, and what it says of records, requests and copies of the model."""

from __future__ import annotations

from lmeraser.evidence.copies import copy_differences
from lmeraser.evidence.hash_chain import Entry, LedgerHead
from lmeraser.evidence.reconcile import LedgerReport, differences, request_differences
from lmeraser.workspace.requests.state import Request
from lmeraser.workspace.workspace import Workspace


def check_ledger(workspace: Workspace, *, head: LedgerHead | None = None) -> LedgerReport:
    """Check the chain, and compare it with what the workspace holds.

    Args:
        workspace: to check; nothing is changed.
        head: exported earlier; the ledger has to contain it.

    Raises:
        VerificationError: the chain is broken; the error says where.
        StorageError: the file cannot be read.
    """
    requests, entries, copies = _of_one_moment(workspace, head)
    served = workspace.generations.current()
    digest = served.public_digest if served else None
    found = differences(entries, workspace.records.commitments.by_entry(), digest)
    found += request_differences(entries, {request.id: request.on_record() for request in requests})
    found += copy_differences(entries, copies)
    return LedgerReport(tuple(entries), workspace.ledger.head, tuple(found))


def _of_one_moment(workspace: Workspace, head: LedgerHead | None) -> tuple[list[Request], list[Entry], set[str]]:
    """All requests, all entries of the ledger, checked, and the ids of all exported copies."""
    copies = workspace.exports.ids()
    while True:
        requests, entries = workspace.requests.with_ledger(head=head)
        before, copies = copies, workspace.exports.ids()
        if before == copies:  # every new copy is a new entry
            return requests, entries, copies
