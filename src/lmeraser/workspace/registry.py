"""Registry of the generations of a model: their manifests on disk, and which of them is served.

``generations/00000003.json`` is a manifest; the file ``current`` is a pointer to the served one: its name and
digest. A generation is published by writing its manifest, then replacing the pointer in one atomic step: a reader
sees the old generation or the new one. Numbers of generations only grow.

A manifest may name pages of clusters (`models.cluster_page`), which lie beside it under their digests and are
written before it. Generations share them; a page is read once by a process, and all of them when a generation is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from lmeraser.core.atomic_files import storage_errors, write_all_atomic, write_atomic
from lmeraser.core.digests import Digest
from lmeraser.errors import CorruptError, FormatError, NoModelError
from lmeraser.models.cluster_page import Page, PageEntry
from lmeraser.models.manifest import IN_PAGES, Model

_FORMAT = IN_PAGES


class Generations:
    """The manifests of one workspace.

    Args:
        folder: where they are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._current = folder / "current"
        self._parsed: tuple[Digest, Model] | None = None  # parsing a large manifest takes long

    def current(self) -> Model | None:
        """The served generation, or None before the first training."""
        pointer = self._read_pointer()
        while pointer is not None:
            name, digest = pointer
            try:
                data = (self._folder / name).read_bytes()
                if Digest.of(data) != digest:
                    raise _corrupt(f"{name} has digest {Digest.of(data).short} instead of {digest.short}")
                if self._parsed is None or self._parsed[0] != digest:
                    self._parsed = (digest, self._parse(name, data))
            except FileNotFoundError as error:
                newer = self._read_pointer()  # a writer may have published and purged meanwhile
                if newer == pointer:
                    missing = Path(error.filename or name).name
                    raise _corrupt(f"{self._current} names {name}; {missing} is missing") from error
                pointer = newer
                continue
            return self._parsed[1]
        return None

    def require(self) -> Model:
        """The served generation.

        Raises:
            NoModelError: nothing has been trained yet.
        """
        model = self.current()
        if model is None:
            raise NoModelError("No trained model", next_step="run 'lmeraser train'")
        return model

    def publish(self, model: Model) -> None:
        """Make ``model`` the served generation."""
        path = self._manifest(model.generation)
        data = model.to_bytes()
        digest = Digest.of(data)
        pages = {self._page(page.digest): page.data for page in model.pages}
        write_all_atomic({path: content for path, content in pages.items() if not path.exists()})
        write_atomic(path, data)
        write_atomic(self._current, f"{path.name} {digest}\n".encode())
        self._parsed = (digest, model)

    def withdraw(self) -> None:
        """Serve no generation from now on."""
        with storage_errors(self._current):
            self._current.unlink(missing_ok=True)

    def earlier(self, generation: int, digest: Digest) -> Model | None:
        """A generation of before, by its number and public digest; None if its manifest is gone.

        Raises:
            CorruptError: it is there and damaged.
        """
        path = self._manifest(generation)
        try:
            data = path.read_bytes()
            if Digest.of(data) != digest:
                return None
            return self._parse(path.name, data)
        except FileNotFoundError:
            return None

    def outdated(self, needed: Iterable[tuple[int, Digest]] = ()) -> list[Path]:
        """All files of the folder except the served manifest, the pointer to it and its pages.

        Args:
            needed: numbers and public digests of earlier generations that stay, with their pages.
        """
        if not self._folder.exists():
            return []
        pointer = self._read_pointer()
        kept = {self._current.name, pointer[0] if pointer else None}
        earlier = {self._manifest(number).name: self.earlier(number, digest) for number, digest in needed}
        kept.update(name for name, model in earlier.items() if model is not None)
        for model in (self.current(), *earlier.values()):
            kept.update(self._page(page.digest).name for page in (model.pages if model else ()))
        return sorted(path for path in self._folder.iterdir() if path.name not in kept)

    def _manifest(self, generation: int) -> Path:
        return self._folder / f"{generation:08d}.json"

    def _page(self, digest: Digest) -> Path:
        return self._folder / f"page-{digest.hex}.json"

    def _known_pages(self) -> dict[Digest, Page]:
        """The pages of the generation that was read or published last."""
        return {page.digest: page for page in self._parsed[1].pages} if self._parsed else {}

    def _read_page(self, digest: Digest) -> bytes:
        path = self._page(digest)
        data = path.read_bytes()
        if Digest.of(data) != digest:
            raise _corrupt(f"{path.name} has digest {Digest.of(data).short}")
        return data

    def _parse(self, name: str, data: bytes) -> Model:
        known = self._known_pages()

        def read(entry: PageEntry) -> Page:
            page = known.get(entry.digest)
            return page if page and page.entry == entry else Page(entry, self._read_page(entry.digest))

        try:
            found = json.loads(data)["format"]
            if isinstance(found, int) and found > _FORMAT:
                raise FormatError(
                    "Manifest was written by a newer version of lmeraser",
                    got=f"format {found} (this version reads {_FORMAT})",
                    next_step="upgrade lmeraser",
                )
            return Model.parse(data, read_page=read)
        except (ValueError, TypeError, KeyError) as error:  # pydantic's errors are ValueErrors
            raise _corrupt(f"{name}: not a manifest") from error

    def _read_pointer(self) -> tuple[str, Digest] | None:
        """Name and digest of the served manifest, or None before the first training."""
        try:
            data = self._current.read_bytes()
        except FileNotFoundError:
            return None
        if not (match := re.fullmatch(rb"(\d{8,}\.json) (sha256:[0-9a-f]{64})\n", data)):
            raise _corrupt(f"{self._current} holds {data[:100]!r}")
        return match[1].decode(), Digest(match[2].decode())


def _corrupt(got: str) -> CorruptError:
    return CorruptError(
        "Manifest of the served model is missing or damaged",
        got=got,
        next_step="delete the folder generations and run 'lmeraser train'; it derives the model again",
    )
