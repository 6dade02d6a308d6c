"""Verbs from the shell, each in a new process, in pairs with the import of numpy, scipy.linalg and sqlalchemy.

    python benchmarks/shell.py --out bench
    python benchmarks/shell.py --out bench --records 1000 --pairs 9

The workspace has the preset ``instant`` and handwritten digits. A deletion includes its certificate, ledger and
purge. What is compared with is what any program needs that solves a system and reads a database. Both run with
compiled modules, as an installed package has them, whatever the environment says about writing any. The last rows
are of one process: requests that wait and are carried out together, beside the same requests one by one.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from lmeraser import Columns, Eraser
from lmeraser.cli.demo import handwritten_digits
from lmeraser.config.schema import parse
from measuring import Comparison, compare, comparison, keep, parser_of, seconds

BASELINE = [sys.executable, "-c", "import numpy, scipy.linalg, sqlalchemy"]


def run(compiled: Path, *arguments: str) -> None:
    """One process that has to succeed.

    Args:
        compiled: folder of compiled modules; filled by the first process.
        arguments: the command.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(compiled)
    subprocess.run(arguments, check=True, capture_output=True, env=environment)


def verbs(workspace: Path, names: Iterator[str], folder: Path) -> dict[str, Callable[[], None]]:
    """What is measured, by its row; each call deletes or names another record."""
    picture = folder / "one.png"
    picture.write_bytes(handwritten_digits()[1].cast_column("image", _bytes())[0]["image"]["bytes"])
    command = partial(run, folder / "compiled", sys.executable, "-m", "lmeraser")
    on = partial(command, "-w", str(workspace))

    def verify() -> None:
        certificate = sorted((workspace / "certificates").glob("*.json"))[0]
        key, ledger = str(workspace / "signing.pub"), str(workspace / "ledger")
        command("verify", str(certificate), "--key", key, "--ledger", ledger)

    return {
        "unlearn --id": lambda: on("unlearn", "--id", next(names)),
        "plan --id": lambda: on("plan", "--id", next(names)),
        "predict": lambda: on("predict", str(picture)),  # before requests wait, whose records would be left out
        "requests accept --id": lambda: on("requests", "accept", "--id", next(names)),
        "requests": lambda: on("requests"),
        "status": lambda: on("status"),
        "ledger": lambda: on("ledger"),
        "residue --id": lambda: on("residue", "--id", "digit-0000-of-nobody"),
        "verify": verify,
        "config": lambda: on("config"),
        "--help": lambda: command("--help"),
        "predict, requests waiting": lambda: on("predict", str(picture)),
    }


def _bytes() -> Any:
    from datasets import Image

    return Image(decode=False)


def together(workspace: Path, names: Iterator[str], count: int, pairs: int) -> Comparison:
    """Seconds for ``count`` requests that are carried out in one derivation, and for as many one by one."""
    at_once, one_by_one = [], []
    with Eraser(workspace) as eraser:
        eraser.unlearn(ids=[next(names)])
        for _ in range(pairs):
            for name in itertools.islice(names, count):
                eraser.request(ids=[name])
            at_once.append(seconds(eraser.unlearn))
            few = list(itertools.islice(names, 5))
            one_by_one.append(
                sum(seconds(lambda name=name: eraser.unlearn(ids=[name])) for name in few) * count / len(few)  # type: ignore[misc]
            )
    return comparison(at_once, one_by_one)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--records", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--together", type=int, default=300, help="requests that wait")
    options = parser.parse_args()
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        workspace = folder / "w"
        with Eraser.create(workspace, parse({"backbone": {"image_size": 32}}, base="instant")) as eraser:
            eraser.add(handwritten_digits()[0].select(range(options.records)), columns=Columns(id="id"))
            eraser.train()
            names = iter(eraser.record_ids())
        for row, verb in verbs(workspace, names, folder).items():
            rows[row] = compare(verb, {row: partial(run, folder / "compiled", *BASELINE)}, options.pairs)[row]
        run(folder / "compiled", sys.executable, "-m", "lmeraser", "-w", str(workspace), "unlearn")
        at_once = together(workspace, names, options.together, pairs=2)
        rows[f"{options.together} requests together, against one by one"] = at_once
        rows["requests a second, together"] = options.together / at_once.seconds
    keep(options, "shell", rows)


if __name__ == "__main__":
    main()
