"""Outcomes of checks that a machine has made, so that later processes need not repeat them.

One small file for each check, in ``$LMERASER_CACHE``, else ``$XDG_CACHE_HOME/lmeraser``, else
``~/.cache/lmeraser``. The files hold digests and no private data, change no result, and may be deleted at any
time. Where the folder cannot be written, checks are repeated. Needs no torch.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lmeraser.core.atomic_files import write_atomic
from lmeraser.core.digests import Digest
from lmeraser.errors import StorageError


def cached_check(facts: dict[str, Any], check: Callable[[], bool]) -> bool:
    """The outcome of a check; made if it is not known yet.

    Args:
        facts: all that the outcome depends on, as JSON values.
        check: makes the check. What it raises is not cached.
    """
    stored = read_outcome(facts)
    if isinstance(stored, bool):
        return stored
    outcome = check()
    write_outcome(facts, outcome)
    return outcome


def read_outcome(facts: dict[str, Any]) -> Any:
    """The stored outcome, a JSON value, under these facts; None: nothing readable is stored."""
    try:
        stored = json.loads(_path(facts).read_bytes())
        return stored["outcome"] if stored["facts"] == facts else None
    except (OSError, ValueError, KeyError, TypeError):  # missing or damaged: as if nothing was checked
        return None


def write_outcome(facts: dict[str, Any], outcome: Any) -> None:
    """Store an outcome, a JSON value, under all that it depends on; where that is impossible, do nothing."""
    with contextlib.suppress(StorageError):
        content = json.dumps({"facts": facts, "outcome": outcome}, indent=1, sort_keys=True)
        write_atomic(_path(facts), content.encode())


def forget_outcome(facts: dict[str, Any]) -> None:
    """Remove a stored outcome, if there is one."""
    with contextlib.suppress(OSError):
        _path(facts).unlink(missing_ok=True)


def _path(facts: dict[str, Any]) -> Path:
    return _folder() / f"{Digest.of_json(facts).hex}.json"


def _folder() -> Path:
    if own := os.environ.get("LMERASER_CACHE"):
        return Path(own) / "checks"
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "lmeraser" / "checks"
