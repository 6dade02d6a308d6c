"""Check for slowdowns: compare benchmark results of this machine with the committed ones.

    python benchmarks/check.py --out bench

Only ratios and shares are compared, since both of their terms are measured in one run; each may fall to 80 % of
the committed value. Exits with 1 if one fell further, and with 0 if no results of such a machine are committed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measuring import device, parser_of

COMMITTED = Path(__file__).parent / "results"
LEAST = 0.8


def ratios(found: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Every comparison in a machine's file, the larger the better."""
    for benchmark, result in found.items():
        for row, cell in result["rows"].items():
            if isinstance(cell, dict) and "ratio" in cell:
                yield f"{benchmark}: {row}", float(cell["ratio"])
            elif "share" in row:
                yield f"{benchmark}: {row}", float(cell)


def main() -> int:
    parser = parser_of(__doc__)
    options = parser.parse_args()
    name = f"{device()}.json"
    if not (COMMITTED / name).exists():
        print(f"no committed results for {device()}: nothing to compare with")
        return 0
    before = dict(ratios(json.loads((COMMITTED / name).read_text())))
    now = dict(ratios(json.loads((options.out / name).read_text())))
    slower = [row for row in before.keys() & now.keys() if now[row] < LEAST * before[row]]
    for row in sorted(before.keys() & now.keys()):
        print(f"{'SLOWER' if row in slower else 'ok':8}{row:70} {before[row]:8.2f} -> {now[row]:8.2f}")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
