"""Make the certificate and ledger in this folder, which every later version verifies; the same bytes each time.

    python tests/golden/make_evidence.py

Run it once for every format of certificates, and never change what it made for an older one.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lmeraser.core.digests import Digest
from lmeraser.core.time import to_text
from lmeraser.evidence.certificate import FORMAT, issue
from lmeraser.evidence.dsse import SigningKey
from lmeraser.evidence.entries import (
    Event,
    GenerationPublished,
    RecordsAdded,
    RecordsDeleted,
    RequestAccepted,
    RequestCompleted,
    WorkspaceCreated,
)
from lmeraser.evidence.hash_chain import Entry, LedgerHead
from lmeraser.evidence.presentation import render
from lmeraser.models.manifest import Cluster, Model, StageResult
from lmeraser.unlearning.audit import AuditReport
from lmeraser.unlearning.certify import statement
from lmeraser.workspace.requests.state import ModelSnapshot, Request

FOLDER = Path(__file__).parent
KEY = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
SOFTWARE = "lmeraser, golden"  # not the version that happens to make it
REQUEST = "00000000-0000-4000-8000-000000000001"


def named(name: str) -> Digest:
    """A digest that stands for something."""
    return Digest.of(name.encode())


def model(generation: int, partition: str, artifacts: list[str]) -> Model:
    """A model with these artifacts, of ten records each."""

    def result(name: str) -> StageResult:
        return StageResult(key=named(f"key of {name}"), artifact=named(name), fingerprint=named("environment"))

    made = Model(
        generation=generation,
        settings={"seed": 0},
        classes=("cat", "dog"),
        backbone=named("backbone"),
        backbone_name="backbone",
        partition=result(partition),
        clusters=tuple(
            Cluster(number=n, path=str(n), records=10, constituent=result(name))
            for n, name in enumerate(artifacts)
        ),
        revision=generation + 1,
        nonce="00" * 32,
    )
    vars(made)["public_digest"] = named(f"manifest of generation {generation}")  # later versions add fields
    return made


OLD = model(0, "old partition", ["kept", "old tensors", "older tensors"])
NEW = model(1, "new partition", ["kept", "new tensors"])


def request() -> Request:
    """One that is in progress: its records went out of the old model."""
    artifacts = tuple(result.artifact for result in OLD.stages.values())
    return Request(
        id=REQUEST,
        regulation="gdpr",
        state="in_progress",
        received=to_text(NOW),
        due="2026-02-28T12:00:00Z",
        changed=to_text(NOW),
        names=3,
        audit=True,
        records=10,
        already_deleted=1,
        asked="2026-01-28T00:00:00Z",
        duplicates=2,
        near_duplicates=0,
        before=ModelSnapshot(
            OLD.model_digest, OLD.generation, OLD.partition.key, artifacts, (1, 2), OLD.public_digest
        ),
    )


def extended(entries: list[Entry], event: Event) -> list[Entry]:
    """A chain and one more entry."""
    previous = entries[-1].digest if entries else None
    return [*entries, Entry(len(entries), previous, to_text(NOW), event.kind, event.body())]


def published(model: Model) -> GenerationPublished:
    """The event that a ledger records for a generation."""
    return GenerationPublished(generation=model.generation, manifest=model.public_digest, records=model.records)


def make() -> dict[str, bytes]:
    """Every golden file by its name."""
    accepted = RequestAccepted(
        request=REQUEST, regulation="gdpr", received=to_text(NOW), due=request().due, names=3
    )
    removed = tuple(sorted(named(f"commitment {number}") for number in range(10)))
    entries = extended([], WorkspaceCreated(format=1, key=KEY.public.key_id))
    entries = extended(entries, RecordsAdded(records=30, deleted_before=0, commitments=named("c")))
    entries = extended(entries, published(OLD))
    entries = extended(entries, accepted)
    entries = extended(entries, RecordsDeleted(requests=(REQUEST,), removed={"1": removed}))
    entries = extended(entries, published(NEW))
    facts = statement(
        request(),
        NEW,
        environment={"machine": "golden", "threads": 1},
        audit=AuditReport(True, (), True, NEW.model_digest, 20, 2, 2).to_json(),
        head=LedgerHead(len(entries), entries[-1].digest),
        rewritten=True,
        now=NOW,
    )
    facts["software"] = SOFTWARE
    envelope = issue(facts, KEY)
    completed = RequestCompleted(request=REQUEST, certificate=Digest.of(envelope.payload))
    return {
        f"certificate-{FORMAT}.json": envelope.to_bytes(),
        f"certificate-{FORMAT}.txt": render(facts).encode(),
        f"ledger-{FORMAT}": b"".join(entry.line() for entry in extended(entries, completed)),
        "signing.pub": KEY.public.pem,
    }


def main() -> None:
    """Write them."""
    FOLDER.mkdir(exist_ok=True)
    for name, data in make().items():
        (FOLDER / name).write_bytes(data)


if __name__ == "__main__":
    main()
