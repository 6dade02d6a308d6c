"""Reports in words for people: what `--json` names by fields, and the command that usually comes next.

A table shows nothing that is empty. Field names are those of the JSON reports; one that has no words of its own is
shown with spaces for underscores.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lmeraser.cli.commands.base import global_options
from lmeraser.core.console import format_duration, format_value, is_empty
from lmeraser.core.terminal import echo

Report = Mapping[str, Any]

_MOST_NAMES = 12  # of classes, in one cell
_WORDS = {
    "affected": "clusters that lose or gain records",
    "age_seconds": "age",
    "already_deleted": "names that were deleted before",
    "asked": "asked on",
    "batches": "share tuned again by a batch of requests",
    "changed": "last change",
    "clusters_to_tune": "clusters to tune again",
    "due": "answer due",
    "duplicates": "other records with the same payload",
    "duplicates_selected": "selected because of the same payload",
    "estimated_seconds": "estimated seconds of tuning",
    "expected_share": "share of records tuned again by one request",
    "fingerprint": "environment",
    "global_head": "weight of the global head",
    "hits_simulated": "simulated requests that shape the partition",
    "id": "request",
    "late": "completed late",
    "manifest_digest": "digest of the manifest",
    "max": "most records tuned again by one request",
    "model_digest": "digest of the model",
    "model_digest_before": "digest of the model before",
    "near_duplicates": "records that look nearly the same",
    "next_due": "next answer due",
    "ordinary_share": "the same, of a request that does not shape the partition",
    "p50": "records tuned again by one request, median",
    "p95": "the same, 95th percentile",
    "parent": "generation before",
    "purged": "files removed",
    "records_deleted": "records deleted",
    "records_to_tune": "records in them",
    "regulation": "law",
    "sample_hit": "shapes the partition",
    "sample_hit_probability": "probability that a request shapes the partition",
    "sample_hit_share": "share tuned again by a request that shapes the partition",
    "seconds_left": "time left",
    "seconds_to_start": "begins in",
    "starts": "begins",
    "share_to_tune": "their share of all",
    "simulated_share": "the expected share, by the simulated requests",
    "stage_counts": "computed",
    "up_to_date": "model is up to date",
}
_STAGES = {  # of the training function, in the order in which they run
    "counted": "records embedded for the global head",
    "embedded": "records embedded",
    "solved": "global head solved",
    "fitted": "partition fitted",
    "assigned": "records assigned to clusters",
    "tuned": "clusters tuned",
    "tuned_records": "records in these",
}
_DEPRECATED = {"ran", "rewriting_due"}  # names of 0.1, which JSON still has
_ONLY_IF_ANY = {  # zero and False are what one expects
    *("already_deleted", "compaction_due", "days_late", "duplicates", "duplicates_selected", "late"),
    *("near_duplicates", "purged", "sample_hit", "subjects"),
    # zero where nothing is tuned
    *("clusters_to_tune", "estimated_seconds", "expected_share", "hits_simulated", "max", "ordinary_share"),
    *("p50", "p95", "records_to_tune", "sample_hit_probability", "sample_hit_share", "share_to_tune"),
    "simulated_share",
}
_DURATIONS = {"age_seconds", "seconds_left", "seconds_to_start"}


def in_words(report: Report) -> dict[str, object]:
    """The facts of a report by their words, without what is empty or says nothing.

    Args:
        report: as in JSON.
    """
    found: dict[str, object] = {}
    for name, value in report.items():
        shown = _shown(name, value, report)
        if not is_empty(shown):
            word = _WORDS.get(name, name.replace("_", " "))
            found["new generation" if word == "last change" and isinstance(value, bool) else word] = shown
    return found


def _shown(name: str, value: Any, report: Report) -> object:
    """What a table shows of a field; None if it says nothing."""
    if name in _DEPRECATED or (name in _ONLY_IF_ANY and not value):
        return None
    if name == "fingerprints":  # `fingerprint` shows a single one
        return value if len(value) > 1 else None
    if name == "tuning_seconds":
        return value if report.get("stage_counts", {}).get("tuned") else None
    if name == "stage_counts":
        return ", ".join(_stages(value))
    if name == "batches":
        return ", ".join(f"{count}: {format_value(share)}" for count, share in value.items() if share)
    if name in _DURATIONS and value is not None:
        return format_duration(value)
    if name == "classes" and len(value) > _MOST_NAMES:
        return [*value[: _MOST_NAMES - 2], f"and {len(value) - _MOST_NAMES + 2} more"]
    return value


def _stages(counts: Mapping[str, int]) -> Iterable[str]:
    for name in [*_STAGES, *(name for name in counts if name not in _STAGES)]:
        if counts.get(name):
            yield f"{_STAGES.get(name, name)}: {counts[name]}"


def command(*words: object) -> str:
    """A command of this workspace, to be copied.

    Args:
        words: verb, options and arguments.
    """
    workspace = global_options.workspace
    where = [] if workspace == Path() else ["-w", str(workspace)]
    return shlex.join(["lmeraser", *where, *map(str, words)])


def suggest(*commands: str) -> None:
    """Print the commands that usually come next, each with what it is for after it."""
    for line in commands:
        echo(f"next: {line}")


def after_status(report: Report) -> list[str]:
    """What a workspace in this state waits for."""
    if not report["records"] and report["generation"] is None:
        return [command("add", "SOURCE")]
    if report["open_requests"]:
        return [command("unlearn")]
    if not report["up_to_date"]:
        return [command("train")]
    return [command("purge")] if report["compaction_due"] else []
