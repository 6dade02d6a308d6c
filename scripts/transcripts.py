"""Compare the transcripts in Markdown pages with what the commands print today.

    python scripts/transcripts.py README.md docs/start/tour.md            # fails where they differ
    python scripts/transcripts.py --write README.md                      # puts in what is printed

The commands of a page's ``console`` blocks are run one after the other in one new folder: lines that begin with
``$``, of which `lmeraser`, `python examples/...` and `cat` are known. What differs in every run (times, dates,
ids, digests) and digits of measured numbers are not compared. A line ``...`` stands for any number of lines. All
that is written into a page is of one run, so that its digests and ids belong together.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import glob
import io
import os
import re
import runpy
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

from lmeraser.cli.main import main as lmeraser

ROOT = Path(__file__).parents[1]
WIDTH = "100"  # columns of the terminal
_BLOCK = re.compile(r"(?<=```console\n).*?(?=^```)", re.DOTALL | re.MULTILINE)
_VARYING = (
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID"),
    (r"(sha256:)?\b[0-9a-f]{12,}\b", "DIGEST"),
    (r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d)?(\.\d+)?Z?)?", "TIME"),
    (r"\b\d+(\.\d+)? (ms|s|seconds?|min|minutes?)\b", "SECONDS"),
    (r"\b\d+\.\d+\b", "NUMBER"),
    (r"[ ─]+", " "),  # tables are as wide as what is in them
)


def differences(page: Path, write: bool = False) -> list[str]:
    """Run a page's transcripts; lines that describe how they differ from what is printed now.

    Args:
        page: Markdown.
        write: put what is printed into all of the page.
    """
    text = page.read_text()
    found = list[str]()
    with _new_folder():
        blocks = [(block, _printed(block)) for block in _BLOCK.findall(text)]
    for block, printed in blocks:
        now = _shortened(printed, block)
        if now is None:
            now = printed
            found += difflib.unified_diff(block.splitlines(), now.splitlines(), str(page), "printed", lineterm="")
        text = text.replace(block, now)
    if write:
        page.write_text(text)
    return found


def _printed(block: str) -> str:
    """A block with the output that its commands have now."""
    lines = list[str]()
    for line in block.splitlines():
        if line.startswith("$ "):
            lines += [line, *_run(re.split(r"\s+#", line[2:])[0])]
    return "\n".join([*lines, ""])


def _run(command: str) -> list[str]:
    """What a command prints to its standard output, without the white space around it."""
    name, *words = shlex.split(command)
    arguments = [path for word in words for path in (sorted(glob.glob(word)) or [word])]  # noqa: PTH207
    said = io.StringIO()
    errors = io.StringIO()
    with (
        patch.object(sys, "argv", [name, *arguments]),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(errors),
    ):
        try:
            _call(name, arguments)
        except SystemExit as end:
            if end.code:  # a transcript that fails shows why
                said.write(errors.getvalue())
    return [line.rstrip() for line in said.getvalue().splitlines() if line.strip()]


def _call(name: str, arguments: list[str]) -> None:
    if name == "lmeraser":
        lmeraser()
    elif name == "cat":
        print("".join(Path(path).read_text() for path in arguments))  # noqa: T201
    elif name == "python" and arguments[0].startswith("examples/"):
        del sys.argv[0]
        runpy.run_path(str(ROOT / arguments[0]), run_name="__main__")
    else:
        raise ValueError(f"a transcript may not run {name!r}")


def _shortened(printed: str, block: str) -> str | None:
    """What is printed now, without what a transcript leaves out; None if they differ in more than what varies."""
    lines = [line for line in block.splitlines() if line.strip()]
    parts = [r"(?:.*\n)*?()" if line == "..." else f"({re.escape(_masked(line))}\n)" for line in lines]
    masked = "".join(f"{_masked(line)}\n" for line in printed.splitlines())
    match = re.fullmatch("".join(parts), masked)
    if match is None:
        return None
    places = [masked.count("\n", 0, match.start(group)) for group in range(1, len(parts) + 1)]
    now = printed.splitlines()
    shown = [line if line == "..." else now[place] for line, place in zip(lines, places, strict=True)]
    return "\n".join([*shown, ""])


def _masked(line: str) -> str:
    for pattern, name in _VARYING:
        line = re.sub(pattern, name, line)
    return line.strip()


@contextlib.contextmanager
def _new_folder() -> Iterator[None]:
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, COLUMNS=WIDTH):
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def main() -> int:
    """Check the pages that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--write", action="store_true", help="write what is printed into the pages")
    options = parser.parse_args()
    found = [line for page in options.pages for line in differences(page, options.write)]
    print("\n".join(found))  # noqa: T201
    return 1 if found and not options.write else 0


if __name__ == "__main__":
    raise SystemExit(main())
