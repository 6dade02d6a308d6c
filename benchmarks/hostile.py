"""The service under attack: a hostile `predict` key, a hostile `request` key and strangers do their worst.

    python benchmarks/hostile.py --out bench --seconds 60

Starts the service over a workspace of handwritten digits as a process. Another process attacks it over loopback
with what `docs/threats.md` lists for these callers, as fast as it is answered: images of many pixels and of many
scans, uploads that are held open, lists without end, plans, event streams, repeated ids, methods of its own.
Meanwhile a third key files deletion requests at a fixed rate. Reports the time to an acceptance, before the attack
and during it, to a health check, and the memory of the service at its highest. Attackers, caller, service and
derivations share the machine. With ``--elsewhere`` the attackers compute only when nothing else wants a processor
(Linux), as if they were on other machines, which real ones are; they send less then, so the figures without it are
the harder ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import multiprocessing
import os
import re
import statistics
import struct
import tempfile
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
from PIL import Image

from lmeraser import Columns, Eraser
from lmeraser.cli.demo import handwritten_digits
from lmeraser.config.schema import parse
from load import Process, Seen, at_rate, erasure, file, quantile
from measuring import keep, parser_of

SIDE = 7000  # px: 49 million pixels, just below what one image may have
STRANGERS = 2  # callers without a key that call at once
CALLERS = 2  # that call at once, for each kind of call


def saved(kind: str, mode: str, side: int = SIDE, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (side, side), 5).save(buffer, kind, **options)
    return buffer.getvalue()


def with_scans(jpeg: bytes, count: int) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    scan = jpeg[jpeg.rfind(b"\xff\xda") : -2]
    return jpeg[:-2] + scan * count + b"\xff\xd9"


def with_chunks(png: bytes, count: int) -> bytes:
    """A PNG with empty private chunks."""
    chunk = bytes(4) + b"prVt" + struct.pack(">I", zlib.crc32(b"prVt"))
    return png[:33] + chunk * count + png[33:]


def calls_for_predictions() -> list[tuple[str, list[bytes]]]:
    """Uploads, each with what it attacks."""
    progressive = saved("JPEG", "RGB", progressive=True)
    small = saved("JPEG", "RGB", 600, progressive=True)
    grey = saved("PNG", "I;16")
    return [
        ("twelve large images", [saved("PNG", "RGB")] * 12),
        ("four large images", [saved("PNG", "RGB")] * 4),
        ("transparency", [saved("PNG", "RGBA")] * 2),
        ("16 bits", [grey] * 2),
        ("lossless WebP", [saved("WEBP", "RGB", lossless=True)] * 2),
        ("many scans", [with_scans(small, 400)]),
        ("as many scans as allowed", [with_scans(progressive, 20)] * 2),
        ("many chunks", [with_chunks(saved("PNG", "RGB", 40), 1 << 19)]),
        ("many small images", [saved("PNG", "RGB", 300)] * 64),
    ]


def calls_for_requests(name: str) -> list[tuple[str, str, Callable[[], bytes]]]:
    """Paths and bodies, each with what it attacks."""

    def body(identities: object, **more: object) -> bytes:
        return json.dumps({**erasure(name), "subject_identities": identities, **more}).encode()

    identity = erasure(name)["subject_identities"][0]
    unknown = [{**identity, "identity_value": f"nobody {number} " + "x" * 900} for number in range(1000)]
    ones = body([1] * 600_000)
    faulty = body([{}] * 1000)
    urls = body([identity], status_callback_urls=["x"] * 400_000)
    many = body(unknown)
    same = body([identity])
    return [
        ("a list without end", "/requests", lambda: ones),
        ("a thousand faulty identities", "/requests", lambda: faulty),
        ("callbacks without end", "/requests", lambda: urls),
        ("a thousand unknown names", "/requests", lambda: many),
        ("a plan of unknown names", "/plan", lambda: many),
        ("a plan", "/plan", lambda: same),
        ("no JSON", "/requests", lambda: b"[" * 1_900_000),
        ("the same id with other content", "/requests", lambda: same.replace(b'"gdpr"', b'"ccpa"')),
        ("a request for one who is held", "/requests", lambda: body([identity])),
    ]


async def again_and_again(until: float, seen: Counter[str], call: Callable[[], Awaitable[int]]) -> None:
    """Call as fast as the answers come."""
    while time.monotonic() < until:
        try:
            seen[str(await call())] += 1
        except (httpx2.HTTPError, OSError) as error:
            seen[type(error).__name__] += 1
        await asyncio.sleep(0.005)


async def held_open(url: str, key: str, until: float) -> None:
    """Send most of a large upload, and then nothing."""
    parts = urlsplit(url)
    while time.monotonic() < until:
        with contextlib.suppress(OSError, TimeoutError):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writer.write(
                f"POST /predict HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
                "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 32505856\r\n\r\n"
                '--x\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'.encode()
            )
            for _ in range(31):
                writer.write(bytes(1 << 20))
                await asyncio.wait_for(writer.drain(), 5.0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reader.read(1), max(0.1, until - time.monotonic()))
            writer.close()
        await asyncio.sleep(0.5)


async def attack_all(
    url: str, predict_key: str, request_key: str, seconds: float, name: str, ready: Callable[[], None]
) -> dict[str, Any]:
    uploads_of = calls_for_predictions()
    bodies_of = calls_for_requests(name)
    ready()  # returns when the attack is to begin
    until = time.monotonic() + seconds
    seen: dict[str, Counter[str]] = {}

    def counter(what: str) -> Counter[str]:
        return seen.setdefault(what, Counter())

    limits = httpx2.Limits(max_connections=400)
    async with httpx2.AsyncClient(base_url=url, timeout=60.0, limits=limits) as client:

        async def send(path: str, key: str, **body: Any) -> int:
            return (await client.post(path, headers={"Authorization": f"Bearer {key}"}, **body)).status_code

        async def send_json(path: str, body: Callable[[], bytes]) -> int:
            headers = {"Authorization": f"Bearer {request_key}", "Content-Type": "application/json"}
            return (await client.post(path, content=body(), headers=headers)).status_code

        async def stream() -> int:
            wanted = erasure(name)
            headers = {"Authorization": f"Bearer {request_key}"}
            await client.post("/requests", json=wanted, headers=headers)
            path = f"/requests/{wanted['subject_request_id']}/events"
            async with client.stream("GET", path, headers=headers) as answer:
                async for _part in answer.aiter_bytes():
                    if time.monotonic() > until:
                        break
            return answer.status_code

        async def strange() -> int:
            method = uuid.uuid4().hex.upper()
            await client.post("/ui/file", data={"ids": "x" * 1000}, headers={"X-Forwarded-For": method})
            return (await client.request(method, "/requests")).status_code

        attacks: list[Awaitable[Any]] = []
        for what, uploads in uploads_of:
            files = [("images", ("a", upload)) for upload in uploads]
            upload_again = partial(send, "/predict", predict_key, files=files)
            callers = 44 if what == "many scans" else CALLERS
            attacks += [again_and_again(until, counter(what), upload_again) for _ in range(callers)]
        attacks += [held_open(url, predict_key, until) for _ in range(20)]
        for what, path, body in bodies_of:
            send_again = partial(send_json, path, body)
            attacks += [again_and_again(until, counter(what), send_again) for _ in range(CALLERS)]
        attacks += [again_and_again(until, counter("event streams"), stream) for _ in range(120)]
        attacks += [again_and_again(until, counter("strangers"), strange) for _ in range(STRANGERS)]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*attacks, return_exceptions=True), seconds + 5.0)
    return {what: dict(counts) for what, counts in seen.items()}


def attack(
    pipe: Any, url: str, predict_key: str, request_key: str, seconds: float, name: str, elsewhere: bool
) -> None:
    """The attackers' process, which gives way to the caller whose time is measured."""
    if elsewhere:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.nice(10)

    def ready() -> None:
        pipe.send("ready")
        pipe.recv()

    pipe.send(asyncio.run(attack_all(url, predict_key, request_key, seconds, name, ready)))


def resident(pid: int) -> int:
    """Bytes of a process in memory; 0: it has ended."""
    with contextlib.suppress(OSError, IndexError):
        status = Path(f"/proc/{pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) << 10
    return 0


def decoders(service: int) -> list[int]:
    """The processes in which the service decodes images; not the one that derives models."""
    children: list[int] = []
    for path in Path(f"/proc/{service}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            children += map(int, path.read_text().split())
    found = []
    for pid in children:
        with contextlib.suppress(OSError):
            if b"multiprocessing" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


async def look_at_memory(process: Process, until: float) -> int:
    """The most bytes that the service and its decoders had in memory together, looked at ten times a second."""
    most = 0
    while time.monotonic() < until:
        pids = await asyncio.to_thread(decoders, process.popen.pid)
        most = max(most, sum(map(resident, [process.popen.pid, *pids])))
        await asyncio.sleep(0.1)
    return most


async def measured(
    process: Process, key: str, records: list[str], seconds: float, options: Any
) -> tuple[Seen, list[float], int]:
    """File requests and look at the service's health and memory; acceptances, health checks, bytes."""
    seen = Seen()
    health = list[float]()
    until = time.monotonic() + seconds

    async def look(client: httpx2.AsyncClient) -> None:
        while time.monotonic() < until:
            started = time.monotonic()
            for path in ("/healthz", "/readyz"):
                (await client.get(path)).raise_for_status()
            health.append(time.monotonic() - started)
            await asyncio.sleep(0.5)

    headers = {"Authorization": f"Bearer {key}"}
    async with httpx2.AsyncClient(base_url=process.url, headers=headers, timeout=60.0) as client:
        _, _, memory = await asyncio.gather(
            at_rate(options.requests, seconds, lambda n: file(client, records[n], seen)),
            look(client),
            look_at_memory(process, until),
        )
    return seen, health, memory


def slowest(seen: Seen, began: float, count: int = 5) -> str:
    """The slowest acceptances, each with when it was filed, counted from the beginning of the attack."""
    ordered = sorted(zip(seen.acceptances, seen.filed, strict=True), reverse=True)[:count]
    return ", ".join(f"{seconds:.3f} at {filed - began:.1f}" for seconds, filed in ordered)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--requests", type=float, default=5.0, help="a second")
    parser.add_argument("--records", type=int, default=700)
    parser.add_argument("--elsewhere", action="store_true", help="attackers take idle processors only (Linux)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "workspace"
        settings = {
            "backbone": {"image_size": 96, "micro_batch": 4},
            "embedding": {"views": ["clean"]},
            "service": {"grace_period": 0.0},
        }
        with Eraser.create(root, parse(settings, base="instant")) as eraser:
            digits = handwritten_digits()[0].select(range(options.records))
            eraser.add(digits, columns=Columns(id="id"))
            eraser.train()
            keys = {
                scope: eraser.workspace.api_keys.create(scope, [scope], now=eraser.workspace.clock())[1]
                for scope in ("predict", "request", "admin")
            }
            held = list(eraser.record_ids())
        process = Process(root)
        mine, theirs = multiprocessing.Pipe()
        attackers = multiprocessing.get_context("spawn").Process(
            target=attack,
            args=(
                *(theirs, process.url, keys["predict"], keys["request"], options.seconds, held[-1]),
                options.elsewhere,
            ),
        )
        try:
            attackers.start()
            mine.recv()  # they are ready
            calm, _, _ = asyncio.run(measured(process, keys["admin"], held[:-1], options.seconds / 4, options))
            mine.send("begin")
            print("the attack begins", flush=True)
            began = time.monotonic()
            left = held[len(calm.accepted) : -1]
            seen, health, memory = asyncio.run(measured(process, keys["admin"], left, options.seconds, options))
            answers = mine.recv()
            attackers.join()
            headers = {"Authorization": f"Bearer {keys['admin']}"}
            metrics = len(httpx2.get(f"{process.url}/metrics", headers=headers, timeout=60.0).content)
        finally:
            process.end()
        with Eraser(root) as eraser:
            sound = eraser.check_ledger().sound
    rows: dict[str, Any] = {
        "attackers share the processors": not options.elsewhere,
        "accepted requests": len(seen.accepted),
        "requests that were sent again": seen.repeated,
        "acceptance before the attack, median (s)": statistics.median(calm.acceptances),
        "acceptance before the attack, p99 (s)": quantile(calm.acceptances, 0.99),
        "acceptance, median (s)": statistics.median(seen.acceptances),
        "acceptance, p99 (s)": quantile(seen.acceptances, 0.99),
        "acceptance, longest (s)": max(seen.acceptances),
        "slowest acceptances, and when they were filed (s)": slowest(seen, began),
        "both health checks, p99 (s)": quantile(health, 0.99),
        "memory of the service and its decoders at its highest (MiB)": memory / 2**20,
        "page of metrics (KiB)": metrics / 1024,
        "ledger and records tell the same story": sound,
        **{f"answers to {what}": str(counts) for what, counts in sorted(answers.items())},
    }
    keep(options, "hostile_elsewhere" if options.elsewhere else "hostile", rows)


if __name__ == "__main__":
    main()
