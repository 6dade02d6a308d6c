"""Outcomes of checks that a machine has made of a backbone, so that later loads need not repeat them.

One small file for each check, in ``$LMERASER_CACHE``, else ``$XDG_CACHE_HOME/lmeraser``, else
``~/.cache/lmeraser``. The files hold digests and no private data, change no result, and may be deleted at any
time. Where the folder cannot be written, checks are repeated.
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
    path = _folder() / f"{Digest.of_json(facts).hex}.json"
    try:
        stored = json.loads(path.read_bytes())
        if stored["facts"] == facts and isinstance(stored["outcome"], bool):
            return bool(stored["outcome"])
    except (OSError, ValueError, KeyError, TypeError):  # missing or damaged: as if nothing was checked
        pass
    outcome = check()
    with contextlib.suppress(StorageError):
        write_atomic(path, json.dumps({"facts": facts, "outcome": outcome}, indent=1, sort_keys=True).encode())
    return outcome


def _folder() -> Path:
    if own := os.environ.get("LMERASER_CACHE"):
        return Path(own) / "checks"
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "lmeraser" / "checks"
