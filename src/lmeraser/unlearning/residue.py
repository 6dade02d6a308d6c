"""Residue scan: does any byte of a workspace still come from a file that the operator holds?

Every 16-byte window of the probes is searched at every offset of every file of the workspace, in the files' names,
in everything sealed in its database that can still be read, and in every version of artifacts in a bucket. Windows
that hold hardly any information (half of their bytes are repeated) are passed over, and so are those that records
which are still there hold as well: two images share headers and tables. What is left is residue.

The method: a window of 16 bytes, wherever it lies, covers one whole aligned word of 8, so only aligned words of
the workspace have to be compared with words of the probes. Knows nothing about what the probes are.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmeraser.core.atomic_files import read_file, storage_errors
from lmeraser.core.digests import Digest
from lmeraser.core.progress import Progress, silent
from lmeraser.data.images import decode
from lmeraser.errors import ImageError
from lmeraser.pipeline.executors.base import Executor
from lmeraser.workspace.workspace import Workspace

WINDOW = 16  # bytes
_WORD = 8
_CHUNK = 1 << 20  # words compared at once
_SPREAD = WINDOW // 2  # different bytes that a window has to hold more than


@dataclass(frozen=True)
class Find:
    """Where something of a probe was found: the probe, the file, the offset in it (-1: in its name)."""

    probe: str
    file: str
    offset: int


@dataclass(frozen=True)
class ResidueReport:
    """What a scan found.

    Attributes:
        clean: whether nothing was found.
        finds: where, at most one for each probe and file.
        windows: how many different windows were searched for.
        shared: how many windows of the probes records that are still there hold as well.
        not_searched: probes of which no window is left to search for.
        held: records held now whose image is one of the probes, byte for byte.
        bytes_searched: in all files.
        files: how many.
    """

    clean: bool
    finds: tuple[Find, ...]
    windows: int
    shared: int
    not_searched: tuple[str, ...]
    held: int
    bytes_searched: int
    files: int

    def to_json(self) -> dict[str, object]:
        """The report as JSON values."""
        return asdict(self)


def scan(
    root: Path,
    probes: Mapping[str, bytes],
    names: Iterable[str] = (),
    *,
    opened: Iterable[tuple[str, bytes]] = (),
    retained: Iterable[bytes] = (),
    progress: Progress = silent,
) -> ResidueReport:
    """Search a folder for windows of probes and for names.

    Args:
        root: the folder; every file below it is read.
        opened: what is sealed or lies elsewhere, each with a name; searched like a file.
        probes: bytes by name.
        names: texts that are searched for as they are, in files and in their names.
        retained: payloads that may share windows with the probes.
        progress: told how many files were searched.
    """
    owners: dict[bytes, tuple[str, ...]] = {}
    for name, data in probes.items():
        for window in windows(data):
            owners[window] = (*owners.get(window, ()), name)
    shared = _shared(owners, retained)
    wanted = {window: names for window, names in owners.items() if window not in shared}
    words = np.unique(np.frombuffer(b"".join(_words(wanted)), dtype=np.uint64))
    texts = {name: name.encode(errors="surrogateescape") for name in names if name}
    finds: set[Find] = set()
    total = 0
    with storage_errors(root):
        files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
        read = ((path.relative_to(root).as_posix(), path.read_bytes()) for path in files)
        for done, (shown, data) in enumerate(itertools.chain(read, opened)):
            total += len(data)
            finds |= {Find(name, shown, offset) for name, offset in _in(data, wanted, words).items()}
            finds |= {Find(t, shown, at) for t, raw in texts.items() if (at := data.find(raw)) >= 0}
            finds |= {Find(t, shown, -1) for t in texts if t in shown}
            progress("searching files", min(done + 1, len(files)), len(files))
    ordered = tuple(sorted(finds, key=lambda find: (find.file, find.offset, find.probe)))
    unsearched = tuple(sorted(probes.keys() - set().union(*wanted.values())))
    return ResidueReport(not finds, ordered, len(wanted), len(shared), unsearched, 0, total, len(files))


def search(
    workspace: Workspace,
    files: Iterable[Path],
    names: Iterable[str] = (),
    *,
    executor: Callable[[], Executor] | None = None,
    progress: Progress = silent,
) -> ResidueReport:
    """Scan a workspace for files and, where they are images, for their features.

    Args:
        workspace: where to search.
        files: what to search for.
        names: texts to search for, for instance record ids.
        executor: gives what computes features; None: they are not searched for.
        progress: told how far it is.
    """
    probes = {str(path): read_file(path) for path in files}
    if executor is not None:
        images = {name: data for name, data in probes.items() if _is_image(data)}
        if images:
            found = executor().embed(list(images), lambda ids: [images[i] for i in ids], progress)
            probes |= {f"features of {name}": vector.tobytes() for name, vector in found}
    records = workspace.records
    searched = {Digest.of(data) for data in probes.values()}
    index = records.index()
    others = [record.id for record in index if record.image_digest not in searched]
    retained = (data for record_id in others for data in records.images([record_id]))
    sealed = ((f"records.db, {table}", data) for table, data in workspace.database.opened())
    opened = itertools.chain(sealed, workspace.bucket.opened() if workspace.bucket else ())
    report = scan(workspace.root, probes, names, opened=opened, retained=retained, progress=progress)
    return replace(report, held=len(index) - len(others))


def _is_image(data: bytes) -> bool:
    try:
        decode(data)
    except ImageError:
        return False
    return True


def windows(data: bytes) -> set[bytes]:
    """The windows of ``data`` that hold enough information to be searched for."""
    every = (data[start : start + WINDOW] for start in range(len(data) - WINDOW + 1))
    return {window for window in every if len(set(window)) > _SPREAD}


def _shared(owners: Mapping[bytes, object], retained: Iterable[bytes]) -> set[bytes]:
    words = np.unique(np.frombuffer(b"".join(_words(owners)), dtype=np.uint64))
    found: set[bytes] = set()
    for data in retained:
        found.update(window for _, window in _matches(data, owners, words))
    return found


def _words(windows_: Iterable[bytes]) -> Iterable[bytes]:
    """Every word that may lie aligned within one of these windows."""
    for window in windows_:
        for start in range(WINDOW - _WORD + 1):
            yield window[start : start + _WORD]


def _in(data: bytes, wanted: Mapping[bytes, tuple[str, ...]], words: NDArray[np.uint64]) -> dict[str, int]:
    """First offset of each probe that has a window in ``data``."""
    first: dict[str, int] = {}
    for offset, window in _matches(data, wanted, words):
        for name in wanted[window]:
            first[name] = min(offset, first.get(name, offset))
    return first


def _matches(
    data: bytes, wanted: Mapping[bytes, object], words: NDArray[np.uint64]
) -> Iterable[tuple[int, bytes]]:
    """Offsets and windows of ``data`` that are wanted."""
    if not len(words):
        return
    aligned = np.frombuffer(data, dtype=np.uint64, count=len(data) // _WORD)
    for start in range(0, len(aligned), _CHUNK):
        part = aligned[start : start + _CHUNK]
        places = np.minimum(np.searchsorted(words, part), len(words) - 1)
        for hit in np.flatnonzero(words[places] == part).tolist():
            middle = (start + hit) * _WORD
            for offset in range(max(0, middle - _WORD), middle + 1):
                window = data[offset : offset + WINDOW]
                if window in wanted:
                    yield offset, window
