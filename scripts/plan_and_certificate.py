"""Draw the README's picture: what `plan` says before a deletion, and what the certificate says after it.

    python scripts/plan_and_certificate.py --out docs/pictures/plan-and-certificate.svg

The facts are those of a deletion that is carried out for the picture, on `examples/digits.py`.
"""

from __future__ import annotations

import argparse
import runpy
import tempfile
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from lmeraser import Eraser
from lmeraser.evidence import certificate
from lmeraser.evidence.dsse import PublicKey

PERSON = "writer-07"
DIGITS = Path(__file__).parents[1] / "examples" / "digits.py"
_CARD = 430  # width, px
_LINE = 25
_STYLE = """
  text { font: 14px system-ui, sans-serif; fill: #1f2328 } .title { font-size: 17px; font-weight: 600 }
  .name { fill: #59636e } .card { fill: #f6f8fa; stroke: #d1d9e0 } .seal { fill: #1a7f37; font-weight: 600 }
  .mono { font-family: ui-monospace, monospace; font-size: 13px } .arrow { stroke: #59636e; fill: none }
  @media (prefers-color-scheme: dark) { text { fill: #f0f6fc } .name { fill: #9198a1 } .seal { fill: #3fb950 }
    .card { fill: #151b23; stroke: #3d444d } .arrow { stroke: #9198a1 } }
"""


def facts(folder: Path) -> tuple[Any, dict[str, Any]]:
    """A plan, and the statement of the certificate of the deletion that was planned."""
    runpy.run_path(str(DIGITS))["write"](folder / "digits", 300)
    with Eraser.create(folder / "workspace") as eraser:
        eraser.add(folder / "digits", subject_level=2)
        eraser.train()
        plan = eraser.plan(subjects=[PERSON], regulation="gdpr")
        report = eraser.unlearn(subjects=[PERSON], regulation="gdpr", audit=True)
        key = PublicKey.read(folder / "workspace" / "signing.pub")
        return plan, certificate.verify(Path(report.certificates[0]).read_bytes(), key)


def card(left: int, title: str, rows: Sequence[tuple[str, str]], seal: str) -> str:
    """A box with a title, names and values, and a last line."""
    height = _LINE * (len(rows) + 2) + 40
    parts = [f'<rect class="card" x="{left}" y="1" width="{_CARD}" height="{height}" rx="8"/>']
    parts.append(f'<text class="title" x="{left + 18}" y="32">{escape(title)}</text>')
    for number, (name, value) in enumerate(rows):
        y = 64 + _LINE * number
        parts.append(f'<text class="name" x="{left + 18}" y="{y}">{escape(name)}</text>')
        parts.append(f'<text x="{left + 160}" y="{y}">{escape(value)}</text>')
    parts.append(f'<text class="seal" x="{left + 18}" y="{height - 18}">{escape(seal)}</text>')
    return "\n".join(parts)


def picture(plan: Any, stated: dict[str, Any]) -> str:
    """Both cards with an arrow between them, as SVG."""
    model, counts, audit = stated["model"], stated["counts"], stated["audit"]
    planned = [
        ("Deletes", f"{plan.records} records of {PERSON}"),
        ("Tunes again", f"{plan.clusters_to_tune} clusters, {plan.records_to_tune} records"),
        ("Duplicates left", f"{plan.duplicates} with the same picture"),
        ("Answer due", f"{plan.due[:10]} (GDPR)"),
    ]
    certified = [
        ("Deleted", f"{counts['records_deleted']} records; {counts['records_retained']} are left"),
        ("Model before", f"{model['digest_before'][:23]}…"),
        ("Model after", f"{model['digest_after'][:23]}…"),
        ("Audit", f"derived again from nothing: {'identical' if audit['identical'] else 'DIFFERENT'}"),
    ]
    gap = 70
    width = 2 * _CARD + gap + 2
    height = _LINE * (len(planned) + 2) + 42
    middle = height // 2
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">
<title>What a plan says before a deletion, and what the certificate says after it</title>
<style>{_STYLE}</style>
{card(1, "Plan: what would happen", planned, "Nothing is changed yet")}
<path class="arrow" d="M{_CARD + 12} {middle}h{gap - 30}m-7 -6 7 6 -7 6"/>
<text class="name" x="{_CARD + 11}" y="{middle - 12}">unlearn</text>
{card(_CARD + gap, "Certificate: what was done", certified, "Signed with Ed25519, noted in the ledger")}
</svg>
"""


def main() -> None:
    """Carry out the deletion, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/plan-and-certificate.svg"))
    out: Path = parser.parse_args().out
    with tempfile.TemporaryDirectory() as folder:
        out.write_text(picture(*facts(Path(folder))))


if __name__ == "__main__":
    main()
