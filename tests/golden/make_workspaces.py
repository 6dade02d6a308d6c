"""Make `workspaces-0.1.tar.xz`: workspaces that every later version has to open, and to forget from as it did.

Run it with the version whose workspaces are to be kept, never again for an older one (it makes random keys,
so its bytes differ each time):

    git worktree add ../released COMMIT
    PYTHONPATH=../released/src python tests/golden/make_workspaces.py 0.1

The archive has the backbone (a tiny transformer with random weights and public classes), a folder a workspace
and `facts.json`: digests, ledger heads and requests as that version reported them, before an unlearning and after,
with the fingerprint of the environment in which the bits are promised. `test_golden_workspaces.py` compares.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
BACKBONE = {"name": "backbone", "image_size": 32, "micro_batch": 4}
TUNING = {"epochs": 2, "batch_size": 8}
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "instant": ("instant", {"backbone": BACKBONE}),
    "prompts": (
        "prompts",
        {"backbone": BACKBONE, "partition": {"sample_size": 8, "clusters": 3}, "tuning": TUNING},
    ),
    "class_tree": (
        "prompts",
        {
            "backbone": BACKBONE,
            "partition": {"method": "class_tree", "max_records": 8},
            "tuning": TUNING,
            "global_head": {"weight": 0.5},
        },
    ),
    "requests": (
        "prompts",
        {"backbone": BACKBONE, "partition": {"sample_size": 8, "clusters": 3}, "tuning": TUNING},
    ),
}
RECORDS = 24
FORGOTTEN = "digit-0003"
STATES = ("completed", "failed", "in_progress", "cancelled", "pending")
REQUESTS = {state: f"00000000-0000-4000-8000-{n:012d}" for n, state in enumerate(STATES, 1)}


class Stopped(BaseException):
    """Stands for the end of a process in the middle of a deletion."""


def backbone(folder: Path) -> None:
    """A tiny vision transformer with twelve classes, as transformers saves it."""
    import torch
    import transformers as hf

    torch.manual_seed(0)
    settings = hf.ViTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=12,
    )
    hf.ViTForImageClassification(settings).save_pretrained(folder)
    statistics = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(statistics))


def opened(name: str, progress: Callable[..., None] = lambda *_: None) -> Any:
    from lmeraser import Eraser

    return Eraser(name, clock=lambda: NOW, progress=progress)


def made(name: str) -> None:
    """A trained workspace of 24 digits by three writers."""
    from conftest import DIGIT_COLUMNS, digits
    from lmeraser import Eraser

    preset, settings = SETTINGS[name]
    with Eraser.create(name, settings, preset=preset, clock=lambda: NOW) as eraser:  # type: ignore[arg-type]
        eraser.add(digits(range(RECORDS)), columns=DIGIT_COLUMNS)
        eraser.train()


def requested(name: str) -> None:
    """One request in every state, in the order in which they can be made."""

    def accept(state: str, record: str) -> None:
        with opened(name) as eraser:
            eraser.request(ids=[record], request=REQUESTS[state], regulation="gdpr")

    accept("completed", "digit-0004")
    with opened(name) as eraser:
        eraser.unlearn(request=REQUESTS["completed"])
    accept("failed", "digit-0005")
    audits = importlib.import_module("lmeraser.audit")
    real = audits.audit
    audits.audit = lambda *_, **__: type("Differs", (), {"to_json": lambda _: {"identical": False}})()  # type: ignore[attr-defined]
    with opened(name) as eraser:
        eraser.unlearn(request=REQUESTS["failed"], audit=True)
    audits.audit = real  # type: ignore[attr-defined]
    accept("cancelled", "digit-0006")
    with opened(name) as eraser:
        eraser.cancel(REQUESTS["cancelled"])
    accept("in_progress", "digit-0007")

    def stop(what: str, *_: object) -> None:
        if "tun" in what:
            raise Stopped

    try:
        with opened(name, stop) as eraser:
            eraser.unlearn(request=REQUESTS["in_progress"])
    except Stopped:
        pass
    with opened(name) as eraser:
        eraser.request(ids=["digit-0008"], subjects=["w1"], request=REQUESTS["pending"], regulation="ccpa")


def facts(name: str) -> dict[str, Any]:
    """What this version says of a workspace, and of a copy of it after an unlearning."""

    def told(folder: str) -> dict[str, Any]:
        with opened(folder) as eraser:
            status, ledger = eraser.status(), eraser.check_ledger()
            return {
                "model_digest": eraser.model_digest,
                "head": ledger.head.to_json(),
                "sound": ledger.sound,
                "records": status.records,
                "generation": status.generation,
                "requests": {request.id: request.state for request in eraser.requests()},
            }

    found = told(name)
    shutil.copytree(name, f"{name}-after")
    with opened(f"{name}-after") as eraser:
        report = eraser.unlearn() if name == "requests" else eraser.unlearn(ids=[FORGOTTEN])
        assert report.certificates
        assert eraser.audit().identical
        fingerprint = eraser.executor().fingerprint
    after = told(f"{name}-after")
    shutil.rmtree(f"{name}-after")
    del after["head"]  # requests get random ids
    return {"before": found, "after": after, "fingerprint": fingerprint}


def main(version: str) -> None:
    sys.path.insert(0, str(FOLDER.parent))
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        backbone(Path("backbone"))
        for name in SETTINGS:
            made(name)
        requested("requests")
        every = {name: facts(name) for name in SETTINGS}
        Path("facts.json").write_text(json.dumps(every, indent=1, sort_keys=True))
        with tarfile.open(FOLDER / f"workspaces-{version}.tar.xz", "w:xz", preset=9) as archive:
            for path in ["facts.json", "backbone", *SETTINGS]:
                archive.add(path)


if __name__ == "__main__":
    main(sys.argv[1])
