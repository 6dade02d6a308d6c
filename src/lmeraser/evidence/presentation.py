"""A certificate for people: its facts as sections, from which the text and the PDF are made.

Both say what the signed JSON says, in plain words first: who issued it, under which law, when, what was erased,
what is promised, what is not covered, and how to verify it. Only the JSON is signed. The text of format 1 never
changes. Needs the facts alone; nothing is looked up.
"""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from lmeraser.core.terminal import printable
from lmeraser.core.time import from_text

TITLE = "CERTIFICATE OF DELETION"
LAWS = {
    "gdpr": "GDPR, Article 17 (right to erasure)",
    "ccpa": "CCPA, California Civil Code 1798.105 (right to delete)",
    "other": "another law than GDPR and CCPA, or none",
}
_LABEL_WIDTH = 19
_PLAIN_MODEL = (
    "The model that is in use since then is the one that would exist if these records had never been used: every "
    "number in it is the same, if it is computed in the same environment."
)
_PLAIN_RECORDS = "What was stored of these records is encrypted, and the keys to it are overwritten."
_HOW_TO_VERIFY = (
    "Only the JSON file of this certificate is signed; this text repeats it. Verify the file with: "
    "lmeraser-verify CERTIFICATE.json --key signing.pub --ledger LEDGER. Take the key from where its owner "
    "published it, and the ledger from the operator. Other tools read the file as an in-toto statement in a "
    "DSSE envelope."
)


@dataclass(frozen=True)
class Section:
    """A part of a certificate.

    Attributes:
        title: its heading; '' for the first.
        rows: pairs of a label and a value.
        paragraphs: sentences.
        items: of a list.
    """

    title: str = ""
    rows: tuple[tuple[str, str], ...] = ()
    paragraphs: tuple[str, ...] = ()
    items: tuple[str, ...] = ()


def render(facts: Mapping[str, Any]) -> str:
    """A certificate as text."""
    if facts["format"] == 1:
        return _render_1(facts)
    lines = [TITLE]
    for section in sections(facts):
        lines += ["", *([section.title] if section.title else [])]
        lines += [f"{label:<{_LABEL_WIDTH}}{value}" for label, value in section.rows]
        for paragraph in section.paragraphs:
            lines += _wrap(paragraph)
        lines += [line for item in section.items for line in _wrap(item, mark="- ")]
    return "\n".join(map(printable, lines)) + "\n"


def sections(facts: Mapping[str, Any]) -> Iterator[Section]:
    """The parts of a certificate of any format, in the order in which they are shown."""
    yield Section(rows=tuple(_request_rows(facts)))
    yield Section("What was erased", paragraphs=(erased(facts),))
    yield Section("What is promised", paragraphs=tuple(_promises(facts)))
    yield Section("Claim", paragraphs=(facts["claim"],))
    yield Section("What is not covered", items=tuple(facts["not_covered"]))
    if receipts := facts.get("receipts"):
        yield Section(
            "Receipts of other systems",
            paragraphs=("Attached by whoever filed the request; their content was not checked here.",),
            items=tuple(f"{receipt['system']}: {receipt['digest']}" for receipt in receipts),
        )
    if copies := facts.get("copies_outside"):
        yield Section(
            "Copies outside",
            paragraphs=("Exported models with influence of erased records, of this request and of others.",),
            items=tuple(map(copy_line, copies)),
        )
    yield Section("Facts", rows=tuple(_fact_rows(facts)))
    yield Section("How to verify", paragraphs=(_HOW_TO_VERIFY,))


def erased(facts: Mapping[str, Any]) -> str:
    """What was erased, in one sentence."""
    counts, day = facts["counts"], facts["request"]["completed"][:10]
    deleted, before = counts["records_deleted"] or 0, counts["names_already_deleted"] or 0
    if not deleted:
        why = "its names had been deleted before" if before else "it named nothing that was held"
        return f"This request deleted no record: {why}."
    records, them = ("1 record", "it") if deleted == 1 else (f"{deleted} records", "them")
    model = (
        f"the model was brought to what training without {them} gives"
        if facts["model"]["digest_after"]
        else "no model had been trained"
    )
    return f"By {day}, {records} and everything that was stored of {them} were deleted, and {model}."


def _promises(facts: Mapping[str, Any]) -> Iterator[str]:
    """What the claim means, in plain words, and no more than it."""
    if facts["model"]["digest_after"]:
        yield _PLAIN_MODEL
    yield _PLAIN_RECORDS
    held = facts["counts"].get("duplicates_held")
    if held:
        yield f"Other records with the same content were not named, and are still held: {held}."
    elif held is None:
        yield "Whether other records have the same content is not known."


def _request_rows(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    request = facts["request"]
    if facts.get("controller"):
        yield "Issued by", facts["controller"]
    yield "Request", request["id"]
    yield "Law", LAWS.get(request["regulation"], request["regulation"])
    if request.get("asked"):
        yield "Asked", request["asked"]
    yield "Received", request["received"]
    yield "Due", request["due"]
    yield "Completed", f"{request['completed']}{_days(request)}"


def copy_line(copy: Mapping[str, Any]) -> str:
    """A copy of the model outside, as certificates list it, in one line."""
    erased, rectified = copy["records_erased"], copy["records_rectified"]
    parts = [*([f"{erased} erased"] if erased else []), *([f"{rectified} relabelled"] if rectified else [])]
    told = f"holder told on {copy['told'][:10]}" if copy["told"] else "holder not told yet"
    end = f"deletion confirmed on {copy['confirmed'][:10]}" if copy["confirmed"] else "deletion not confirmed yet"
    return (
        f"{copy['id']}, generation {copy['generation']}, made on {copy['exported'][:10]}: {' and '.join(parts)} "
        f"since; recalled on {copy['recalled'][:10]}, {told}, {end}"
    )


def _days(request: Mapping[str, Any]) -> str:
    """How long a request took, and whether that was in time."""
    asked, due, completed = (
        from_text(request[name]) for name in ("asked" if request.get("asked") else "received", "due", "completed")
    )
    took = max((completed - asked).days, 0)
    after = (
        "on the day of the request" if took == 0 else f"{took} {'day' if took == 1 else 'days'} after the request"
    )
    return f" ({after}; {'in time' if completed <= due else _late(completed - due)})"


def _late(late: timedelta) -> str:
    return f"LATE: {late.days} days after it was due" if late.days else "LATE: less than a day after it was due"


def _fact_rows(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    counts, model, purged = facts["counts"], facts["model"], facts["purged"]
    clusters, global_head = tuned_again(model)
    artifacts = purged["artifacts"] if isinstance(purged["artifacts"], int) else len(purged["artifacts"])
    before = f"{counts['names_already_deleted']} of the names had been deleted before"
    yield "Records deleted", f"{counts['records_deleted']} ({before})"
    yield "Records retained", "-" if counts["records_retained"] is None else str(counts["records_retained"])
    if "duplicates_held" in counts:
        yield "Duplicates", _duplicates_line(counts)
    yield "Model before", model["digest_before"] or "none"
    yield "Model after", model["digest_after"] or "none"
    yield "Generation", "-" if model["generation"] is None else str(model["generation"])
    yield "Tuned again", f"{clusters} of {model['clusters']} clusters"
    if global_head:
        yield "Global head", "solved again"
    yield "Partition", "derived again" if model["partition_derived_again"] else "not touched"
    yield "Settings", model["settings"] or "-"
    yield "Backbone", model["backbone"] or "-"
    yield "Environments", ", ".join(model["fingerprints"]) or "-"
    yield "Audit", _audit_line(facts["audit"])
    yield "Purged", f"{artifacts} artifacts; database {purged['database']}"
    yield "Ledger", f"{facts['ledger']['entries']} entries, the last one {facts['ledger']['digest']}"
    yield "Software", facts["software"]


def tuned_again(model: Mapping[str, Any]) -> tuple[int, bool]:
    """How many clusters were tuned again, and whether the global head was derived again, in any format."""
    if "artifacts_tuned_again" not in model:
        return model["clusters_tuned_again"], model["global_head_derived_again"]
    names = model["artifacts_tuned_again"].keys()
    return len(names - {"partition", "global head"}), "global head" in names


def _render_1(facts: Mapping[str, Any]) -> str:
    """The text of format 1, which never changes."""
    request, counts, model, audit = facts["request"], facts["counts"], facts["model"], facts["audit"]
    digests = [model["digest_before"] or "none", model["digest_after"] or "none"]
    clusters, global_head = tuned_again(model)
    purged = facts["purged"]["artifacts"]
    lines = [
        "CERTIFICATE OF DELETION",
        "",
        f"Request            {request['id']} ({request['regulation']})",
        *([f"Asked              {request['asked']}"] if request.get("asked") else []),
        f"Received           {request['received']}, due {request['due']}",
        f"Completed          {request['completed']}{_lateness(request)}",
        f"Records deleted    {counts['records_deleted']}"
        f" ({counts['names_already_deleted']} of the names had been deleted before)",
        f"Records retained   {'-' if counts['records_retained'] is None else counts['records_retained']}",
        *([f"Duplicates         {_duplicates_line(counts)}"] if "duplicates_held" in counts else []),
        "",
        f"Model before       {digests[0]}",
        f"Model after        {digests[1]}",
        f"Generation         {'-' if model['generation'] is None else model['generation']}",
        f"Tuned again        {clusters} of {model['clusters']} clusters",
        *(["Global head        solved again"] if global_head else []),
        f"Partition          {'derived again' if model['partition_derived_again'] else 'not touched'}",
        f"Settings           {model['settings'] or '-'}",
        f"Backbone           {model['backbone'] or '-'}",
        f"Environments       {', '.join(model['fingerprints']) or '-'}",
        f"Audit              {_audit_line(audit)}",
        f"Purged             {purged if isinstance(purged, int) else len(purged)} artifacts; database "
        + facts["purged"]["database"],
        f"Ledger             {facts['ledger']['entries']} entries, the last one {facts['ledger']['digest']}",
        f"Software           {facts['software']}",
        "",
        "Claim",
        *_wrap(facts["claim"]),
        "",
        "Not covered",
        *(line for item in facts["not_covered"] for line in _wrap(item, mark="- ")),
    ]
    return "\n".join(map(printable, lines)) + "\n"


def _lateness(request: Mapping[str, Any]) -> str:
    """What to say of a request that was completed after it was due; '' for all others, and those of 0.1."""
    if "asked" not in request:
        return ""
    late = from_text(request["completed"]) - from_text(request["due"])
    return f" ({_late(late)})" if late > timedelta(0) else ""


def _duplicates_line(counts: Mapping[str, Any]) -> str:
    held, near = counts["duplicates_held"], counts["near_duplicates_held"]
    same, alike = ("not counted" if count is None else f"{count} held" for count in (held, near))
    return f"other records with the same content: {same}; near duplicates: {alike}"


def _audit_line(audit: Mapping[str, Any] | None) -> str:
    if audit is None:
        return "not run with this request; 'lmeraser audit' runs it at any time"
    what = f"{audit['clusters_checked']} of {audit['clusters']} clusters derived again from nothing"
    ran_on = f"; run by: {audit['ran_on']}" if "ran_on" in audit else ""
    return f"{'identical' if audit['identical'] else 'NOT identical'}: {what}{ran_on}"


@functools.lru_cache(maxsize=64)  # most sentences are the same in every certificate
def _wrap(text: str, mark: str = "") -> tuple[str, ...]:
    return tuple(textwrap.wrap(text, 100, initial_indent="  " + mark, subsequent_indent="  " + " " * len(mark)))
