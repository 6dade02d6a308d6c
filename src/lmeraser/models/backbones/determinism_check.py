"""The check that a backbone is deterministic, on which exactness rests.

A network may draw random numbers in evaluation mode (ViTMAE masks patches), or let images of a batch see each
other. What is trained on such features cannot be trained again, and no audit would agree. So a backbone is checked
when it is loaded for training, unlearning or prediction: once for each environment and backbone (`check_cache`).

- no pass changes the state of a random generator of Python, numpy or torch;
- two passes over the same images give the same bits, features and input gradients;
- an image gives the same bits among other images, and at another place of the batch.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lmeraser.core.digests import Digest
from lmeraser.errors import BackboneError, LmeraserError
from lmeraser.models.backbones.base import Backbone
from lmeraser.models.backbones.loading import first_line
from lmeraser.models.check_cache import cached_check
from lmeraser.models.environment import deterministic

_VERSION = 1  # of the check; a new one repeats it everywhere
_TRIES = 3  # other threads of this process may draw random numbers during a pass


class _Kind(Enum):
    """What a fault means, as the message of its error."""

    NOT_DETERMINISTIC = (
        "The backbone is not deterministic, so nothing that is trained on it could be unlearned exactly"
    )
    USELESS = "The backbone's features are of no use; its weights may be damaged"


@dataclass(frozen=True)
class _Fault:
    """What a check found."""

    kind: _Kind
    finding: str  # "two passes over the same images differ, first in layer ..."


def require_deterministic(backbone: Backbone, fingerprint: Digest, name: str, layers: Sequence[str] = ()) -> None:
    """Check a backbone, unless this was done in this environment already.

    Args:
        backbone: the frozen network.
        fingerprint: digest of the environment fingerprint.
        name: ``backbone.name``, for errors.
        layers: names of `Backbone.layers` that are used as well.

    Raises:
        BackboneError: its features are not deterministic; names the first layer whose output is not.
    """

    def check() -> bool:
        check_determinism(backbone, name)
        return True

    def check_layers() -> bool:
        with deterministic():
            fault = _layer_fault(backbone, layers)
        if fault is not None:
            raise _refusal(name, fault)
        return True

    facts = {
        "check": "determinism",
        "version": _VERSION,
        "fingerprint": str(fingerprint),
        "backbone": str(backbone.digest),
    }
    cached_check(facts, check)
    if layers:
        cached_check({**facts, "check": "layers", "layers": list(layers)}, check_layers)


def check_determinism(backbone: Backbone, name: str) -> None:
    """Check a backbone with a few passes. Arguments and errors as in `require_deterministic`."""
    try:
        with deterministic():
            fault = _random_layer(backbone) or _feature_fault(backbone)
    except LmeraserError:
        raise
    except Exception as error:  # a network may raise anything, also in the pass backwards alone
        raise BackboneError(
            "The backbone cannot compute features and gradients",
            got=f"{name}: {first_line(error)}",
            next_step="choose another backbone in lmeraser.toml; nothing was changed",
        ) from error
    if fault is not None:
        raise _refusal(name, fault)


def _refusal(name: str, fault: _Fault) -> BackboneError:
    return BackboneError(
        fault.kind.value,
        got=f"{name}: {fault.finding}",
        next_step="choose another backbone in lmeraser.toml; nothing was changed",
    )


def draws_random_numbers(backbone: Backbone) -> bool:
    """Whether passes change the state of a random generator."""
    images = backbone.probe(seed=1)

    def changes() -> bool:
        before = _generator_states()
        backbone.features_and_gradients(images)
        return _generator_states() != before

    return all(changes() for _ in range(_TRIES))


def _random_layer(backbone: Backbone) -> _Fault | None:
    """Which layer draws random numbers; None if none does."""
    if not draws_random_numbers(backbone):
        return None
    states: list[Any] = []
    found: list[str] = []

    def before(layer: str) -> None:
        states.append(_generator_states())

    def after(layer: str, output: Any) -> None:
        if states.pop() != _generator_states():
            found.append(layer)  # an inner layer ends before the layer that it is a part of

    with _watched(backbone, before, after):
        backbone.features_and_gradients(backbone.probe(seed=1))
    drawing = found[0] if found else "a pass"
    return _Fault(_Kind.NOT_DETERMINISTIC, f"{drawing} draws random numbers in evaluation mode")


def _feature_fault(backbone: Backbone) -> _Fault | None:
    """What makes features useless or changes them, or gradients, of an image; None: nothing."""
    images, neighbours = backbone.probe(seed=1), backbone.probe(seed=2)
    neighbours[0] = images[0]
    every = range(len(images))
    first = backbone.features_and_gradients(images)
    if not first[0].isfinite().all():
        return _Fault(_Kind.USELESS, "features of noise are not finite numbers")
    if len(images) > 1 and (first[0] == first[0][:1]).all():
        return _Fault(_Kind.USELESS, "features are the same whatever the input is")
    batches = [  # what changes nothing, a batch, and the places of the same images
        ("two passes over the same images differ", images, [(place, place) for place in every]),
        ("an image has other features beside other images", neighbours, [(0, 0)]),
        # Some kernels compute the last elements of a tensor in another way (sigmoid in a narrow RegNet).
        (
            "an image has other features at another place of the batch",
            images.flip(0),
            list(zip(every, reversed(every), strict=True)),
        ),
    ]
    for what, batch, places in batches:
        result = backbone.features_and_gradients(batch)
        ours, theirs = [place for place, _ in places], [place for _, place in places]
        if not all(torch.equal(a[ours], b[theirs]) for a, b in zip(first, result, strict=True)):
            first_layer = _first_layer(backbone, images, batch, places)
            return _Fault(_Kind.NOT_DETERMINISTIC, f"{what}{first_layer}")
    return None


def _layer_fault(backbone: Backbone, layers: Sequence[str]) -> _Fault | None:
    """What makes vectors of these layers useless or changes them; None: nothing."""
    inputs, neighbours = backbone.probe(seed=1), backbone.probe(seed=2)
    neighbours[0] = inputs[0]
    with torch.inference_mode():
        first = backbone.layered(inputs, layers)
        again = backbone.layered(inputs, layers)
        beside = backbone.layered(neighbours, layers)
        turned = backbone.layered(inputs.flip(0), layers)
    if not first.isfinite().all():
        return _Fault(_Kind.USELESS, f"vectors of {', '.join(layers)} for noise are not finite numbers")
    same = torch.equal(first, again) and torch.equal(first[0], beside[0]) and torch.equal(first, turned.flip(0))
    if same:
        return None
    finding = f"vectors of {', '.join(layers)} depend on other records of the pass, or on chance"
    return _Fault(_Kind.NOT_DETERMINISTIC, finding)


# --- layers ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Output:
    """What a layer gave: its name, and a digest for each image, or for all if it cannot be divided among them."""

    layer: str
    digests: tuple[bytes, ...]


def _first_layer(backbone: Backbone, images: Tensor, other: Tensor, places: list[tuple[int, int]]) -> str:
    """The first layer whose output for an image differs between two batches, as the end of a sentence.

    Args:
        backbone: the frozen network.
        images: one batch.
        other: another one.
        places: of the same images, in the first and in the second batch.
    """
    one, two = _outputs(backbone, images), _outputs(backbone, other)
    for a, b in zip(one, two, strict=False):
        divided = len(a.digests) == len(b.digests) == len(images)
        pairs = places if divided else []
        if a.layer != b.layer or any(a.digests[i] != b.digests[j] for i, j in pairs):
            return f", first in {a.layer}"
    return ""


def _outputs(backbone: Backbone, images: Tensor) -> list[_Output]:
    """Outputs of all layers in one pass, inner layers first."""
    outputs: list[_Output] = []

    def after(layer: str, output: Any) -> None:
        digests = [hashlib.sha256() for _ in images]
        divided = False
        for tensor in _tensors(output):
            if tensor.ndim and tensor.shape[0] % len(images) == 0 and tensor.layout == torch.strided:
                divided = True
                rows = tensor.detach().float().cpu().reshape(len(images), -1)
                for digest, row in zip(digests, rows, strict=True):
                    digest.update(row.contiguous().numpy().tobytes())
        outputs.append(_Output(layer, tuple(digest.digest() for digest in digests) if divided else ()))

    with _watched(backbone, lambda layer: None, after), torch.no_grad():
        backbone.features(images)
    return outputs


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, (tuple, list)):
        for value in output:
            yield from _tensors(value)


@contextmanager
def _watched(
    backbone: Backbone, before: Callable[[str], None], after: Callable[[str, Any], None]
) -> Iterator[None]:
    """Context in which every layer tells when it begins and what it gives."""
    networks = [value for value in vars(backbone).values() if isinstance(value, nn.Module)]
    hooks: list[Any] = []
    for network in networks:
        for path, module in network.named_modules():
            kind = type(module).__name__
            layer = f"layer {path!r} ({kind})" if path else f"the network ({kind})"
            hooks.append(module.register_forward_pre_hook(lambda _, __, layer=layer: before(layer)))
            hooks.append(module.register_forward_hook(lambda _, __, output, layer=layer: after(layer, output)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


# --- random generators -------------------------------------------------------------------------------------


def _generator_states() -> tuple[Any, ...]:
    """The states of the random generators that a network may draw from."""
    name, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002 - the one that networks use
    cuda: Any = torch.cuda  # its stubs are incomplete
    states = [torch.get_rng_state(), *(cuda.get_rng_state_all() if cuda.is_initialized() else [])]
    return (
        random.getstate(),
        (name, np.asarray(keys).tobytes(), position, has_gauss, gauss),
        tuple(state.numpy().tobytes() for state in states),
    )
