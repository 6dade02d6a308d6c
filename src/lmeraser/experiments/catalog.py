"""The methods and data sets that experiments can use: those of this package, of other packages, and of files.

    entry points   ``lmeraser.methods`` and ``lmeraser.datasets`` of installed packages; chosen by name
    files          modules whose `Method` and `DataSet` objects are taken; used unless others are chosen

An added method is one more `Method` object: a preset with other settings, or a `FeatureMethod`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from lmeraser.core.digests import Digest
from lmeraser.errors import InputError
from lmeraser.experiments.datasets import DATA_SETS, DataSet
from lmeraser.experiments.methods import METHODS, Method

METHODS_GROUP = "lmeraser.methods"
DATA_SETS_GROUP = "lmeraser.datasets"

T = TypeVar("T", Method, DataSet)


@dataclass(frozen=True)
class Catalog:
    """What experiments can use, by name.

    Attributes:
        methods: all methods.
        data_sets: all data sets.
        added: names of the methods and data sets that files define.
        files: digests of these files, by their names.
    """

    methods: Mapping[str, Method]
    data_sets: Mapping[str, DataSet]
    added: frozenset[str] = frozenset()
    files: Mapping[str, str] | None = None

    def method(self, name: str) -> Method:
        """The method with this name.

        Raises:
            InputError: there is no such method.
        """
        return _named(self.methods, name, "Method")

    def data_set(self, name: str) -> DataSet:
        """The data set with this name.

        Raises:
            InputError: there is no such data set.
        """
        return _named(self.data_sets, name, "Data set")


BUILT_IN = Catalog(METHODS, DATA_SETS)


def load_catalog(files: Sequence[Path] = ()) -> Catalog:
    """All methods and data sets: built in, from installed packages, and from Python files.

    Args:
        files: executed as modules.

    Raises:
        InputError: a file or an entry point cannot be loaded or defines nothing, or a name is taken.
    """
    methods = {**METHODS}
    data_sets = {**DATA_SETS}
    _add(methods, _installed(METHODS_GROUP, Method))
    _add(data_sets, _installed(DATA_SETS_GROUP, DataSet))
    added: set[str] = set()
    digests: dict[str, str] = {}
    for file in files:
        module = _module(file)
        own_methods = [found for found in _values(module, Method) if found not in METHODS.values()]
        own_data = [found for found in _values(module, DataSet) if found not in DATA_SETS.values()]
        if not own_methods and not own_data:
            raise InputError(
                "The file defines no method and no data set",
                got=str(file),
                next_step="assign a Method or a DataSet to a name of the module (docs/experiments.md)",
            )
        _add(methods, [(str(file), method) for method in own_methods])
        _add(data_sets, [(str(file), data) for data in own_data])
        added |= {method.name for method in own_methods} | {data.name for data in own_data}
        digests[file.name] = str(Digest.of(file.read_bytes()))
    return Catalog(methods, data_sets, frozenset(added), digests)


def _installed(group: str, kind: type[T]) -> Iterator[tuple[str, T]]:
    """What the entry points of a group name, with where it comes from."""
    for entry in entry_points(group=group):
        source = f"entry point {entry.name} of {entry.dist.name if entry.dist else 'a package'}"
        try:
            found = entry.load()
        except Exception as error:  # a package may raise anything
            raise _broken(source, error) from error
        if not isinstance(found, kind):
            raise InputError(
                f"The entry point is no {kind.__name__}",
                got=f"{source}: {type(found).__name__}",
                next_step="correct or uninstall the package",
            )
        yield source, found


def _module(file: Path) -> ModuleType:
    spec = spec_from_file_location(f"lmeraser_experiments_{file.stem}", file)
    if spec is None or spec.loader is None or not file.is_file():
        raise InputError("Not a Python file", got=str(file), next_step="pass a file whose name ends in .py")
    module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the file may raise anything
        raise _broken(str(file), error) from error
    return module


def _broken(source: str, error: Exception) -> InputError:
    reason = str(error).partition("\n")[0]
    return InputError(
        "Methods or data sets cannot be loaded",
        got=f"{source}: {type(error).__name__}: {reason}",
        next_step="correct it, or leave it out",
    )


def _values(module: ModuleType, kind: type[T]) -> list[T]:
    """The objects of a kind that names of a module are assigned to, each once."""
    found: dict[int, Any] = {id(value): value for value in vars(module).values() if isinstance(value, kind)}
    return list(found.values())


def _add(known: dict[str, T], more: Iterable[tuple[str, T]]) -> None:
    for source, found in more:
        if found.name in known:
            raise InputError(
                "Two methods or data sets have one name",
                got=f"{found.name!r} of {source}",
                next_step="give it another name",
            )
        known[found.name] = found


def _named(known: Mapping[str, T], name: str, what: str) -> T:
    if name not in known:
        raise InputError(
            f"{what} not found",
            got=f"{name!r} (there are: {', '.join(known)})",
            next_step="choose one of them, or add yours with --with",
        )
    return known[name]
