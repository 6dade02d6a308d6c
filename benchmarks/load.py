"""The service under load: predictions and deletion requests at fixed rates, while the service is killed.

    python benchmarks/load.py --out bench --seconds 120 --predictions 50 --requests 5 --kills 3

Starts the service over a workspace of handwritten digits (preset ``instant``, by default with one view of an
image) as a process, calls it over loopback at these rates regardless of response times, and kills it with SIGKILL
at even times; it is started again at once. Callers and service share the machine. A caller without an answer
repeats its request with the same id, as callers should. Reports the time to an acceptance (of first tries), the
outcome of every accepted request, and how many predictions a second were answered beside a derivation and without
one.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from lmeraser import Columns, Eraser
from lmeraser.cli.demo import handwritten_digits
from lmeraser.config.schema import parse
from measuring import keep, parser_of

TIMEOUT = 60.0  # seconds for an answer, and for everything to be carried out in the end


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--predictions", type=float, default=50.0, help="a second")
    parser.add_argument("--requests", type=float, default=5.0, help="a second")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--records", type=int, default=1400)
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--views", default="clean", help="of an image, with commas")
    parser.add_argument("--micro-batch", type=int, default=4, help="images in a pass of the network")
    return parser.parse_args()


@dataclass
class Seen:
    """What callers saw.

    Attributes:
        accepted: ids of accepted requests.
        acceptances: seconds of each first try that was answered.
        filed: when each of them began, monotonic seconds.
        repeated: requests that were sent again.
        answered: when each prediction was answered, and after how many seconds.
        failed: predictions without an answer.
        busy: predictions that were sent away.
        deriving: when somebody looked, and whether a derivation was under way.
    """

    accepted: list[str] = field(default_factory=list)
    acceptances: list[float] = field(default_factory=list)
    filed: list[float] = field(default_factory=list)
    repeated: int = 0
    answered: list[tuple[float, float]] = field(default_factory=list)
    failed: int = 0
    busy: int = 0
    deriving: list[tuple[float, bool]] = field(default_factory=list)


class Process:
    """The service as a process that can be killed and started again at the same address."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.popen, self.url = self._start("0")

    def _start(self, port: str) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-m", "lmeraser", "-w", str(self._root), "serve", "--port", port]
        popen = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert popen.stdout is not None
        found = re.search(r"http://\S+", popen.stdout.readline())
        assert found is not None
        return popen, found[0]

    def kill_and_start(self) -> None:
        """Kill it, and start it again."""
        self.popen.send_signal(signal.SIGKILL)
        self.popen.wait()
        self.popen, self.url = self._start(self.url.rpartition(":")[2])

    def end(self) -> None:
        """Ask it to end."""
        self.popen.send_signal(signal.SIGTERM)
        self.popen.wait()


def erasure(record: str) -> dict[str, Any]:
    identity = {"identity_type": "lmeraser_record_id", "identity_value": record, "identity_format": "raw"}
    return {
        "regulation": "gdpr",
        "subject_request_id": str(uuid.uuid4()),
        "subject_request_type": "erasure",
        "submitted_time": "2026-01-31T12:00:00Z",
        "subject_identities": [identity],
    }


async def at_rate(rate: float, seconds: float, call: Callable[[int], Awaitable[None]]) -> None:
    """Start calls at a rate, whatever they take; wait for all of them."""
    started = time.monotonic()
    calls = list[asyncio.Task[None]]()
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, started + number / rate - time.monotonic()))
        calls.append(asyncio.ensure_future(call(number)))
    await asyncio.gather(*calls)


async def file(client: httpx2.AsyncClient, record: str, seen: Seen) -> None:
    """File a request until it is accepted."""
    wanted = erasure(record)
    first = True
    until = time.monotonic() + TIMEOUT
    while time.monotonic() < until:
        started = time.monotonic()
        try:
            answer = await client.post("/requests", json=wanted)
        except httpx2.HTTPError:
            answer = None
        if answer is not None and answer.is_success:
            seen.accepted.append(wanted["subject_request_id"])
            if first:
                seen.acceptances.append(time.monotonic() - started)
                seen.filed.append(started)
            return
        seen.repeated += first
        first = False
        await asyncio.sleep(0.5)


async def predict(client: httpx2.AsyncClient, image: bytes, seen: Seen) -> None:
    started = time.monotonic()
    try:
        answer = await client.post("/predict", files={"images": ("digit.png", image, "image/png")})
    except httpx2.HTTPError:
        answer = None
    if answer is not None and answer.is_success:
        seen.answered.append((time.monotonic(), time.monotonic() - started))
    elif answer is not None and answer.status_code == 503:
        seen.busy += 1
    else:
        seen.failed += 1


async def look(client: httpx2.AsyncClient, seen: Seen, until: float) -> None:
    """Look now and then whether a derivation is under way."""
    while time.monotonic() < until:
        try:
            text = (await client.get("/metrics")).text
            seen.deriving.append((time.monotonic(), "lmeraser_deriving 1.0" in text))
        except httpx2.HTTPError:
            pass
        await asyncio.sleep(0.25)


async def kill(process: Process, times: int, seconds: float) -> None:
    for _ in range(times):
        await asyncio.sleep(seconds / (times + 1))
        await asyncio.to_thread(process.kill_and_start)


async def load(
    process: Process, headers: dict[str, str], records: Sequence[str], images: Sequence[bytes], options: Any
) -> Seen:
    """Everything at once."""
    choice = random.Random(0).choice
    seen = Seen()
    limits = httpx2.Limits(max_connections=200, max_keepalive_connections=50)
    async with httpx2.AsyncClient(base_url=process.url, headers=headers, timeout=TIMEOUT, limits=limits) as client:
        await asyncio.gather(
            at_rate(options.requests, options.seconds, lambda n: file(client, records[n], seen)),
            at_rate(options.predictions, options.seconds, lambda n: predict(client, choice(images), seen)),
            look(client, seen, time.monotonic() + options.seconds),
            kill(process, options.kills, options.seconds),
        )
    return seen


def carried_out(process: Process, headers: dict[str, str], accepted: Sequence[str]) -> list[str]:
    """Accepted requests that are not completed in the end."""
    with httpx2.Client(base_url=process.url, headers=headers, timeout=TIMEOUT) as client:
        until = time.monotonic() + TIMEOUT
        left = list(accepted)
        while left and time.monotonic() < until:
            answers = ((one, client.get(f"/requests/{one}")) for one in left)
            left = [one for one, a in answers if a.status_code != 200 or a.json()["request_status"] != "completed"]
            time.sleep(1.0)
    return left


def rates(seen: Seen) -> dict[str, float | None]:
    """Predictions answered a second, while a derivation was under way and while none was."""
    spans, counts = {True: 0.0, False: 0.0}, {True: 0, False: 0}
    for (start, deriving), (end, _) in itertools.pairwise(seen.deriving):
        if end - start < 1.0:  # not across a kill
            spans[deriving] += end - start
            counts[deriving] += sum(start <= when < end for when, _ in seen.answered)
    return {
        name: counts[kind] / spans[kind] if spans[kind] else None
        for name, kind in (("while deriving", True), ("while not deriving", False))
    }


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "workspace"
        settings = {
            "backbone": {"image_size": options.image_size, "micro_batch": options.micro_batch},
            "embedding": {"views": options.views.split(",")},
            "service": {"requests_per_second": 10000.0, "burst": 10000, "grace_period": 0.0},
        }
        digits = handwritten_digits()[0].select(range(options.records))
        with Eraser.create(root, parse(settings, base="instant")) as eraser:
            eraser.add(digits, columns=Columns(id="id"))
            eraser.train()
            _, key = eraser.workspace.api_keys.create("load", ["admin"], now=eraser.workspace.clock())
            ids = eraser.record_ids()
            images = eraser.workspace.records.payloads(ids[:100])
        random.Random(0).shuffle(ids)
        headers = {"Authorization": f"Bearer {key}"}
        process = Process(root)
        seen = asyncio.run(load(process, headers, ids, images, options))
        left = carried_out(process, headers, seen.accepted)
        process.end()
        with Eraser(root) as eraser:
            known = {request.id for request in eraser.requests()}
            sound = eraser.check_ledger().sound
            identical = eraser.audit().identical
    latencies = [seconds for _, seconds in seen.answered]
    rows: dict[str, Any] = {
        "requests accepted": len(seen.accepted),
        "requests repeated after a kill": seen.repeated,
        "acceptance, median (s)": statistics.median(seen.acceptances),
        "acceptance, p99 (s)": quantile(seen.acceptances, 0.99),
        "accepted requests that were lost": len(set(seen.accepted) - known),
        "accepted requests that were not carried out": len(left),
        "predictions answered": len(seen.answered),
        "predictions sent away (too many waited)": seen.busy,
        "predictions without an answer (kills)": seen.failed,
        "prediction, median (s)": statistics.median(latencies),
        "prediction, p99 (s)": quantile(latencies, 0.99),
        **{f"predictions a second {name}": rate for name, rate in rates(seen).items()},
        "ledger and records tell the same story": sound,
        "model is that of training anew": identical,
    }
    keep(options, "load", rows)


if __name__ == "__main__":
    main()
