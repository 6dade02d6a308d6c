"""Arrays of numpy in files, read a few rows at a time: .npz, or several .npy files.

The arrays are ``X`` [rows, numbers], ``y`` [rows] with the labels and, optionally, ``ids`` and ``subjects``, each
[rows]; these two may also be named ``id`` and ``subject``. They are members of one .npz file, or files of these
names beside each other. Python objects in them are never unpickled.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmeraser.errors import InputError

SUFFIXES = {".npz", ".npy"}

_MEMBERS = {  # the column of each array
    "X": "vector",
    "y": "label",
    **dict.fromkeys(("ids", "id"), "id"),
    **dict.fromkeys(("subjects", "subject"), "subject"),
}
_BATCH_BYTES = 16 << 20
_LARGEST = 1 << 30  # bytes of an array that is held in memory: all but X


@dataclass(frozen=True)
class Arrays:
    """Open arrays as a table.

    Attributes:
        path: of their file.
        columns: by the names of the arrays that there are.
        length: number of rows.
        held: all arrays but X, by column.
        others: names of further arrays in the file, which are not read.
    """

    path: Path
    columns: Sequence[str]
    length: int
    held: Mapping[str, NDArray[Any]]
    others: Sequence[str] = ()

    def read(self, columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        """The rows with these columns."""
        chosen = [(name, self.held[name]) for name in columns if name in self.held]
        if _MEMBERS["X"] not in columns:
            for position in range(self.length):
                yield {name: array[position] for name, array in chosen}
            return
        for position, vector in enumerate(self._vectors()):
            yield {_MEMBERS["X"]: vector, **{name: array[position] for name, array in chosen}}

    def _vectors(self) -> Iterator[NDArray[Any]]:
        if self.path.suffix.lower() == ".npy":
            yield from np.load(self.path, mmap_mode="r", allow_pickle=False)
            return
        with zipfile.ZipFile(self.path) as archive, archive.open("X.npy") as member:
            shape, fortran, dtype = _header(self.path, "X", member)
            width = int(np.prod(shape[1:], dtype=np.int64))
            if fortran:  # columns lie one after the other, so that no row is complete before the last
                yield from np.frombuffer(member.read(), dtype).reshape(shape[::-1]).T
                return
            row_bytes = max(1, width * dtype.itemsize)
            left = shape[0]
            while left:
                count = min(left, max(1, _BATCH_BYTES // row_bytes))
                block = member.read(count * row_bytes)
                yield from np.frombuffer(block, dtype).reshape(count, *shape[1:])
                left -= count


def open_arrays(path: Path) -> Arrays:
    """Open a .npz file, or X.npy with y.npy beside it.

    Raises:
        InputError: the file cannot be read, X or y is missing, or their lengths differ.
    """
    try:
        shapes, held, others = _from_npz(path) if path.suffix.lower() == ".npz" else _from_npy(path)
    except Exception as error:  # damaged archives raise many kinds, and so do encrypted ones
        raise InputError(
            "Cannot read arrays", got=f"{path}: {error}", next_step="check that the file is complete"
        ) from error
    if missing := [name for name in ("X", "y") if name not in shapes]:
        raise InputError(
            "The source lacks arrays",
            got=f"no {', '.join(missing)} in {path} (there are: {', '.join([*shapes, *others]) or 'none'})",
            next_step="save them with numpy.savez(FILE, X=vectors, y=labels, ids=ids)",
        )
    columns = [_MEMBERS[name] for name in shapes]
    same_length = len({shape[:1] for shape in shapes.values()}) == 1
    if not same_length or len(shapes["X"]) != 2 or len(set(columns)) < len(columns):
        described = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise InputError(
            "Arrays that do not fit together",
            got=f"{path}: {described}",
            next_step="give X of the shape [rows, numbers], and y, ids and subjects once, of the shape [rows]",
        )
    by_column = {_MEMBERS[name]: array for name, array in held.items()}
    return Arrays(path, columns, shapes["X"][0], by_column, others)


_Found = tuple[dict[str, tuple[int, ...]], dict[str, NDArray[Any]], list[str]]  # shapes, arrays, further names


def _from_npz(path: Path) -> _Found:
    shapes: dict[str, tuple[int, ...]] = {}
    held: dict[str, NDArray[Any]] = {}
    with zipfile.ZipFile(path) as archive:
        there = set(archive.namelist())
        for name in _MEMBERS:
            if f"{name}.npy" not in there:
                continue
            with archive.open(f"{name}.npy") as member:
                shape, fortran, dtype = _header(path, name, member)
                shapes[name] = shape
                if name == "X" and not fortran:
                    continue
                size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
                if size > _LARGEST:
                    raise ValueError(f"{name} has {size >> 20} MiB (the limit is {_LARGEST >> 20} MiB)")
                if name != "X":
                    held[name] = np.frombuffer(member.read(size), dtype).reshape(shape)
    return shapes, held, sorted({name.removesuffix(".npy") for name in there}.difference(_MEMBERS))


def _from_npy(path: Path) -> _Found:
    arrays = {"X": np.load(path, mmap_mode="r", allow_pickle=False)}
    for name in list(_MEMBERS)[1:]:
        if (beside := path.with_name(f"{name}.npy")).is_file():
            arrays[name] = np.load(beside, mmap_mode="r", allow_pickle=False)
    shapes = {name: array.shape for name, array in arrays.items()}
    return shapes, {name: array for name, array in arrays.items() if name != "X"}, []


def _header(path: Path, name: str, member: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and type of an array in a .npz file."""
    version = np.lib.format.read_magic(member)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"{name} is written in version {version} of the format")
    shape, fortran, dtype = readers[version](member)
    if dtype.hasobject:
        raise ValueError(f"{name} has Python objects, which are not read; give it a type of numbers or text")
    return shape, fortran, dtype
