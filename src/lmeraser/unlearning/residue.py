"""Residue scan: whether any byte of a workspace still comes from a file that the operator holds.

Every 16-byte window of the probes is searched at every offset of every file of the workspace, in the files' names,
in every encrypted value of its database that can still be decrypted, and in every version of artifacts in a
bucket. Windows that hold hardly any information (half of their bytes are repeated) are passed over, and so are
those that retained records hold as well: two images share headers and tables. What is found of the rest is
residue.

Symbolic links are followed, each file is read once. What cannot be followed or is no file (a link to nothing, a
socket) is named as not searched.

A window of 16 bytes, wherever it lies, covers one whole aligned word of 8, so only aligned words of the workspace
have to be compared with words of the probes. Nothing here depends on what the probes are.

Chance: encrypted pages and tensors are as good as random, and in so many random bytes any n bytes are expected
``bytes / 256**n`` times. The report says so for every probe and text. The rule for texts:

- A text that is expected more than 10**-6 times by chance is too short to tell: finding its bytes says nothing. It
  is reported as too short, its occurrences are counted, and none of them is a find.
- Such a text is found only where it stands as a value of its own: a whole string in JSON (as record ids and
  subjects do in the database, once decrypted) or a whole name of a file or folder, with or without its suffix.
- A scan is clean if nothing was found, no text was too short to tell, everything was searched, and every payload
  held is the one that was added with its record; other payloads excuse no window of a probe.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from lmeraser.core.atomic_files import read_file, storage_errors
from lmeraser.core.digests import Digest
from lmeraser.core.progress import Progress, silent
from lmeraser.data.canonical_names import spellings
from lmeraser.errors import InputError
from lmeraser.workspace.session import Session

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WINDOW = 16  # bytes
CHANCE = 1e-6  # finds by chance beyond which a text is too short to tell
_WORD = 8
_CHUNK = 1 << 20  # words compared at once
_SPREAD = WINDOW // 2  # different bytes that a window has to hold more than
_PAYLOADS = 16  # of records, in memory at once


@dataclass(frozen=True)
class Find:
    """Where something of a probe was found.

    Attributes:
        probe: name of the probe, or the text.
        file: path in the workspace.
        offset: byte in the file; -1: in its name.
    """

    probe: str
    file: str
    offset: int


@dataclass(frozen=True)
class Chance:
    """How often a probe or text would be found by chance if all that was searched were random bytes.

    Attributes:
        probe: name of the probe, or the text.
        length: bytes that have to be equal: a window's, or the text's.
        expected: number of places where they are expected by chance.
        occurrences: of a text too short to tell, in all that was searched; None: it was long enough.
    """

    probe: str
    length: int
    expected: float
    occurrences: int | None


@dataclass(frozen=True)
class ResidueReport:
    """What a scan found.

    Attributes:
        clean: whether nothing was found, no text was too short to tell, everything was searched and no payload was
            exchanged.
        finds: where, at most one for each probe and file.
        windows: how many different windows were searched for.
        shared: how many windows of the probes retained records hold as well.
        not_searched: probes of which no window is left to search for.
        not_read: links and other things in the folder that could not be searched.
        too_short: texts too short to tell whether bytes that are equal come from them.
        chance: how often each probe and text is expected by chance.
        held: records held now whose image is one of the probes, byte for byte.
        near_duplicates: other records held now whose stored features are near those of a probe; None if features
            were not searched for, or no probe is an image (`duplicates`).
        mismatched: records whose payload is missing or is not the one that was added with them.
        bytes_searched: in all files.
        files: how many.
    """

    clean: bool
    finds: tuple[Find, ...]
    windows: int
    shared: int
    not_searched: tuple[str, ...]
    not_read: tuple[str, ...]
    too_short: tuple[str, ...]
    chance: tuple[Chance, ...]
    held: int
    near_duplicates: int | None
    mismatched: int
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
        root: the folder; every file below it is read, and what links in it lead to.
        opened: decrypted values and what lies elsewhere, each with a name; searched like a file.
        probes: bytes by name.
        names: texts that are searched for as they are, in files and in their names.
        retained: payloads that may share windows with the probes.
        progress: gets the number of files searched so far.
    """
    owners: dict[bytes, tuple[str, ...]] = {}
    for name, data in probes.items():
        for window in windows(data):
            owners[window] = (*owners.get(window, ()), name)
    shared = _shared(owners, retained)
    wanted = {window: names for window, names in owners.items() if window not in shared}
    words = _words(wanted)
    texts = [_Text(name, name.encode(errors="surrogateescape")) for name in dict.fromkeys(names) if name]
    finds: set[Find] = set()
    total = 0
    with storage_errors(root):
        files, not_read = _files(root)
        read = ((path.relative_to(root).as_posix(), path.read_bytes()) for path in files)
        for done, (shown, data) in enumerate(itertools.chain(read, opened)):
            total += len(data)
            finds |= {Find(name, shown, offset) for name, offset in _in(data, wanted, words).items()}
            _search_texts(texts, shown, data)
            progress("searching files", min(done + 1, len(files)), len(files))
    for text in texts:
        finds |= text.whole if text.expected(total) > CHANCE else text.anywhere
    counts = Counter(name for names in wanted.values() for name in names)
    chance = [Chance(name, WINDOW, _expected(WINDOW, total) * counts[name], None) for name in probes]
    chance += [text.chance(total) for text in texts]
    too_short = tuple(each.probe for each in chance if each.occurrences is not None)
    return ResidueReport(
        clean=not finds and not too_short and not not_read,
        finds=tuple(sorted(finds, key=lambda find: (find.file, find.offset, find.probe))),
        windows=len(wanted),
        shared=len(shared),
        not_searched=tuple(sorted(probes.keys() - set().union(*wanted.values()))),
        not_read=tuple(not_read),
        too_short=too_short,
        chance=tuple(chance),
        held=0,
        near_duplicates=None,
        mismatched=0,
        bytes_searched=total,
        files=len(files),
    )


def _files(root: Path) -> tuple[list[Path], list[str]]:
    """All files below a folder, links followed, each of them once; and what is there that cannot be searched."""
    files: dict[str, Path] = {}  # by their real paths
    not_read = []
    visited = {os.path.realpath(root)}
    for folder, folders, names in os.walk(root, followlinks=True, onerror=_raise):
        for name in list(folders):
            real = os.path.realpath(Path(folder, name))
            if real in visited:
                folders.remove(name)
            visited.add(real)
        for path in (Path(folder, name) for name in sorted(names)):
            if path.is_file():
                # The real place is preferred to links that lead to it.
                real = os.path.realpath(path)
                if real not in files or not path.is_symlink():
                    files[real] = path
            else:
                not_read.append(path.relative_to(root).as_posix())
    return sorted(files.values()), sorted(not_read)


def _raise(error: OSError) -> None:
    raise error


@dataclass
class _Text:
    """A text that is searched for, and where it was found.

    Attributes:
        name: the text.
        raw: its bytes.
        anywhere: first place in each file where its bytes stand, and file names that contain it.
        whole: places where it stands as a value of its own.
        occurrences: of its bytes.
    """

    name: str
    raw: bytes
    anywhere: set[Find] = field(default_factory=set)
    whole: set[Find] = field(default_factory=set)
    occurrences: int = 0

    def expected(self, total: int) -> float:
        """Number of places where it is expected by chance in so many random bytes."""
        return _expected(len(self.raw), total)

    def chance(self, total: int) -> Chance:
        """The entry of the report, after so many bytes were searched."""
        expected = self.expected(total)
        return Chance(self.name, len(self.raw), expected, self.occurrences if expected > CHANCE else None)


def _expected(length: int, total: int) -> float:
    """Number of places where so many given bytes are expected in ``total`` random bytes."""
    return total * 256.0**-length


def _search_texts(texts: Sequence[_Text], shown: str, data: bytes) -> None:
    """Search a file or value and its name for texts."""
    path = PurePosixPath(shown)
    names = {*path.parts, *(PurePosixPath(part).stem for part in path.parts)}
    strings: set[str] | None = None
    for text in texts:
        if text.name in shown:
            text.anywhere.add(Find(text.name, shown, -1))
            if text.name in names:
                text.whole.add(Find(text.name, shown, -1))
        if (offset := data.find(text.raw)) >= 0:
            text.anywhere.add(Find(text.name, shown, offset))
            text.occurrences += data.count(text.raw)
            strings = _strings(data) if strings is None else strings
            if text.name in strings:
                text.whole.add(Find(text.name, shown, offset))


def _strings(data: bytes) -> set[str]:
    """All strings of a JSON document or of lines of JSON; none of any other data."""
    found: set[str] = set()

    def visit(value: object) -> None:
        if isinstance(value, str):
            found.add(value)
        elif isinstance(value, list):
            for each in value:
                visit(each)
        elif isinstance(value, dict):
            visit([*value, *value.values()])

    if data[:1] in (b"[", b"{"):
        with contextlib.suppress(ValueError, RecursionError):
            text = data.decode(errors="surrogatepass")
            try:
                visit(json.loads(text))
            except json.JSONDecodeError:
                for line in text.splitlines():
                    visit(json.loads(line))
    return found


def search(
    session: Session,
    files: Iterable[Path],
    names: Iterable[str] = (),
    *,
    features: bool = True,
) -> ResidueReport:
    """Scan a workspace for files and, where they are payloads of records, for their features.

    Args:
        session: the workspace to search, and what computes features.
        files: what to search for.
        names: texts to search for, for instance record ids; names with accents in each of their spellings.
        features: also search for the features of files that are payloads (images, texts); this loads the backbone.

    Raises:
        InputError: there is nothing to search for, or a file cannot be read.
    """
    workspace = session.workspace
    files, names = list(files), list(names)
    if not files and not names:  # else the report would say that nothing is left
        raise InputError("Nothing to search for", next_step="give --probe or --id (probes=, ids= in Python)")
    probes = {str(path): read_file(path) for path in files}
    key = ""
    vectors: list[NDArray[np.float32]] = []
    payloads: dict[str, bytes] = {}
    if probes:  # else nothing that reads payloads has to be loaded
        from lmeraser.data.modalities import payload_format

        own = payload_format(workspace.config)
        payloads = {name: data for name, given in probes.items() if (data := own.of_file(given)) is not None}
    for name, data in payloads.items():
        probes |= {f"{name} ({way})": other for way, other in own.encodings(data).items() if other != probes[name]}
    if features and payloads:
        from lmeraser.pipeline.derive import feature_key

        executor = session.executors.local()
        stream = executor.embed(list(payloads), lambda ids: [payloads[i] for i in ids], session.progress)
        found = dict(stream)
        probes |= {f"features of {name}": vector.tobytes() for name, vector in found.items()}
        key = feature_key(workspace.config, executor.backbone, executor.fingerprint)
        vectors = [vector.reshape(-1) for vector in found.values()]
    records = workspace.records
    searched = {Digest.of(data) for data in (*probes.values(), *payloads.values())}
    index = records.index()
    mismatched = set(records.mismatched([record.id for record in index]))
    held = [record.id for record in index if record.payload_digest in searched]
    others = [record.id for record in index if record.id not in mismatched.union(held)]
    chunks = (others[start : start + _PAYLOADS] for start in range(0, len(others), _PAYLOADS))
    retained = (data for chunk in chunks for data in records.payloads(chunk))
    sealed = ((f"records.db, {table}", data) for table, data in workspace.database.decrypted_values())
    opened = itertools.chain(sealed, workspace.bucket.all_versions() if workspace.bucket else ())
    texts = dict.fromkeys(way for name in names for way in (name, *sorted(spellings(name))))
    report = scan(workspace.root, probes, texts, opened=opened, retained=retained, progress=session.progress)
    clean = report.clean and not mismatched
    near = None
    if vectors:
        import numpy as np

        from lmeraser.unlearning.duplicates import near_held

        near = near_held(workspace, np.stack(vectors), key=key, duplicates=held)
    return replace(report, clean=clean, held=len(held), near_duplicates=near, mismatched=len(mismatched))


def windows(data: bytes) -> set[bytes]:
    """The windows of ``data`` that hold enough information to be searched for."""
    every = (data[start : start + WINDOW] for start in range(len(data) - WINDOW + 1))
    return {window for window in every if len(set(window)) > _SPREAD}


def _shared(owners: Mapping[bytes, object], retained: Iterable[bytes]) -> set[bytes]:
    """The windows that retained payloads hold as well; reads none of them if there is no window."""
    words = _words(owners)
    found: set[bytes] = set()
    for data in retained if words is not None else ():
        found.update(window for _, window in _matches(data, owners, words))
    return found


def _words(windows_: Iterable[bytes]) -> NDArray[np.uint64] | None:
    """Every word that may lie aligned within one of these windows, in order; None: there is no window."""
    words = {window[start : start + _WORD] for window in windows_ for start in range(WINDOW - _WORD + 1)}
    if not words:
        return None
    import numpy as np

    return np.unique(np.frombuffer(b"".join(words), dtype=np.uint64))


def _in(data: bytes, wanted: Mapping[bytes, tuple[str, ...]], words: NDArray[np.uint64] | None) -> dict[str, int]:
    """First offset of each probe that has a window in ``data``."""
    first: dict[str, int] = {}
    for offset, window in _matches(data, wanted, words):
        for name in wanted[window]:
            first[name] = min(offset, first.get(name, offset))
    return first


def _matches(
    data: bytes, wanted: Mapping[bytes, object], words: NDArray[np.uint64] | None
) -> Iterable[tuple[int, bytes]]:
    """Offsets and windows of ``data`` that are wanted."""
    if words is None:
        return
    import numpy as np

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
