"""Take the screenshots of the dashboard for the docs: a small service in a real browser, in light and dark.

python scripts/screenshots.py --out docs/pictures          # needs Chromium and the extras 'service' and 'dev'
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as PillowImage
from playwright.sync_api import Page, expect, sync_playwright
from sklearn.datasets import load_digits

from lmeraser import Columns, Eraser

SETTINGS = {
    "backbone": {"image_size": 32, "micro_batch": 8},
    "partition": {"sample_size": 150, "clusters": 14},
    "tuning": {"epochs": 1, "batch_size": 16},
    "service": {"batch_seconds": 4.0, "grace_period": 0.0},
}
RECORDS = 300
PEOPLE = 40
COLOURS = 48  # in a picture; its text stays sharp, and the file small
SIZE: Mapping[str, int] = {"width": 1000, "height": 900}


def digits() -> Dataset:
    """Handwritten digits, by forty people who never were."""
    found = load_digits()
    rows = list[dict[str, Any]]()
    for number in range(RECORDS):
        buffer = io.BytesIO()
        pixels = (found.images[number] * 255 / 16).round().astype("uint8")
        PillowImage.fromarray(pixels).save(buffer, "PNG")
        image = {"bytes": buffer.getvalue(), "path": None}
        rows.append({"id": f"digit-{number:04d}", "writer": f"patient {number % PEOPLE}", "image": image})
        rows[-1]["label"] = int(found.target[number])
    names = {"id": Value("string"), "writer": Value("string"), "image": Image()}
    return Dataset.from_list(
        rows, features=Features({**names, "label": ClassLabel(names=[str(digit) for digit in range(10)])})
    )


def prepare(root: Path) -> str:
    """A workspace with a past; returns a key for its service."""
    with Eraser.create(root, SETTINGS, preset="prompts") as eraser:
        eraser.add(digits(), columns=Columns(id="id", subject="writer"))
        eraser.train()
        eraser.unlearn(ids=["digit-0007"], regulation="gdpr")
        eraser.unlearn(subjects=["patient 11"], regulation="gdpr")
        taken_back = eraser.request(ids=["digit-0100"], regulation="ccpa")
        eraser.cancel(taken_back.id)
        _, key = eraser.workspace.api_keys.create("privacy desk", ["admin"], now=eraser.workspace.clock())
    return key


def late(root: Path) -> None:
    """Accept a request that should have been answered long ago, and one that is in time."""
    with Eraser(root) as eraser:
        now = eraser.workspace.clock()
        eraser.request(
            subjects=["patient 3"],
            regulation="gdpr",
            received=now - timedelta(days=33),
            reference="ticket 4711",
        )
        eraser.request(ids=["digit-0050"], regulation="gdpr", received=now - timedelta(days=27))
        eraser.request(
            ids=["digit-0042"], regulation="ccpa", received=now - timedelta(days=2), reference="letter 12"
        )


@contextmanager
def serving(root: Path) -> Iterator[str]:
    """The service's address, while it runs."""
    command = [sys.executable, "-m", "lmeraser", "-w", str(root), "serve", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    match = re.search(r"http://\S+", process.stdout.readline())
    assert match
    try:
        yield match[0]
    finally:
        process.terminate()
        process.wait()


def picture(page: Page, path: Path) -> None:
    """Save what a page shows as a small PNG."""
    shown = PillowImage.open(io.BytesIO(page.screenshot()))
    shown.convert("RGB").quantize(COLOURS, dither=PillowImage.Dither.NONE).save(path, optimize=True)


def walk(page: Page, url: str, key: str, out: Path, scheme: str) -> None:
    """Go through the pages, and take pictures."""

    def take(name: str) -> None:
        picture(page, out / f"{name}-{scheme}.png")

    page.goto(url)
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/ui/requests")
    take("requests")
    page.set_viewport_size({"width": 390, "height": SIZE["height"]})
    take("requests-narrow")
    page.set_viewport_size({"width": SIZE["width"], "height": SIZE["height"]})
    page.goto(f"{url}/ui/model")
    take("model")
    page.goto(f"{url}/ui/ledger")
    page.get_by_role("button", name="Check now").click()
    expect(page.get_by_role("status")).to_contain_text("in agreement with the records")
    take("ledger")
    page.goto(f"{url}/ui/file")
    page.get_by_label("People").fill("patient 5")
    page.get_by_role("button", name="Show the plan").click()
    take("plan")
    page.goto(f"{url}/ui/people")
    page.get_by_label("Name of a person").fill("patient 5")
    page.get_by_role("button", name="Find").click()
    take("people")
    page.goto(f"{url}/ui/requests?view=done&order=changed")
    page.locator("tr", has_text="completed").first.get_by_role("link").click()
    expect(page.get_by_text("Valid: signed with the key of this workspace")).to_be_visible()
    take("request")


def main() -> None:
    """Make a workspace, serve it, and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    chromium = os.environ.get("LMERASER_CHROMIUM") or shutil.which("chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        root = Path(folder) / "w"
        key = prepare(root)
        toml = root / "lmeraser.toml"  # so that what is open stays open
        toml.write_text(toml.read_text().replace("batch_seconds = 4.0", "batch_seconds = 86400.0"))
        late(root)
        browser = playwright.chromium.launch(executable_path=chromium)
        schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
        with serving(root) as url:
            for scheme in schemes:
                context = browser.new_context(color_scheme=scheme)
                page = context.new_page()
                page.set_viewport_size({"width": SIZE["width"], "height": SIZE["height"]})
                walk(page, url, key, out, scheme)
        browser.close()


if __name__ == "__main__":
    main()
