"""Supervised pre-training of a backbone on public images (paper, section IV-A).

    minimise over all weights:   mean of CE(c(M(x)), y) over the public images (x, y)

M is a Vision Transformer (Dosovitskiy et al., ICLR 2021, in the sizes of Touvron et al., ICML 2021), c a linear
classifier of its class token. AdamW, linear warm-up and cosine, random crops and mirror images, smoothed labels;
bf16 on a GPU, fp32 on a CPU (`trainer`). The result is a backbone folder (`backbones.folder`) with the digests of
the public images, so that `add` can tell whether private images are among them. Knows nothing about workspaces.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lmeraser.core.atomic_files import SHARED, write_atomic
from lmeraser.core.digests import canonical_json
from lmeraser.core.progress import Progress, silent, track
from lmeraser.core.time import to_text, utc_now
from lmeraser.data.canvases import to_canvas
from lmeraser.data.crops import central_crop
from lmeraser.data.images import decode
from lmeraser.data.provenance import PUBLIC_DIGESTS, describe_public_digests, read_provenance
from lmeraser.data.sources import Example, Source, check_row, chunks
from lmeraser.errors import BackboneError, InputError, SourceError
from lmeraser.models.backbones.folder import (
    WEIGHTS,
    check_output_folder,
    package_versions,
    pixel_statistics,
    write_backbone,
)
from lmeraser.models.environment import deterministic
from lmeraser.models.pretraining.arrow_dataset import ArrowDataset, write_arrow_dataset
from lmeraser.models.pretraining.recipe import Recipe
from lmeraser.models.pretraining.trainer import MEAN, STD, Trainer, build_network, network_input

_UNFINISHED = "unfinished"
_CHECKPOINT = "checkpoint.safetensors"
_PROCESS_TIMEOUT = timedelta(days=1)  # the other processes wait while the first one reads the source


def pretrain(
    source: Source,
    out: Path,
    recipe: Recipe,
    *,
    held_out: Source | None = None,
    cpu: bool = False,
    skip_bad: bool = False,
    checkpoint_steps: int = 500,
    progress: Progress = silent,
    clock: Callable[[], datetime] = utc_now,
) -> Mapping[str, Any] | None:
    """Train a backbone on public images, or continue a training that was stopped.

    If ``torchrun`` starts several processes, they share every step. A single process uses a GPU if there is one.

    Args:
        source: labelled public images and the names of their classes.
        out: the backbone folder; empty, missing, or of a training that was stopped.
        recipe: hyperparameters.
        held_out: public images to measure accuracy on, which are not trained on.
        cpu: use no GPU.
        skip_bad: leave faulty rows out, instead of refusing the source.
        checkpoint_steps: number of steps between checkpoints.
        progress: reports the number of images seen.
        clock: gives the current time.

    Returns:
        The content of ``provenance.json``; None in all processes but the first.

    Raises:
        InputError: the folder holds something else, or the source cannot be trained on.
        SourceError: faulty rows, all of them listed.
        BackboneError: accelerate is not installed, or the training diverged.
    """
    accelerator = _accelerator(cpu)
    is_main = accelerator.is_main_process
    reporter = progress if is_main else silent
    work = out / _UNFINISHED
    if is_main:
        _prepare_folder(out, work, source, recipe)
        write_arrow_dataset(source, work, skip_bad=skip_bad, progress=reporter)
    accelerator.wait_for_everyone()
    images = ArrowDataset(work)
    with deterministic() if accelerator.device.type == "cpu" else nullcontext():
        network = build_network(recipe, source.classes)
        trainer = Trainer(network, images, recipe, accelerator, work / _CHECKPOINT)
        trainer.run(checkpoint_steps, reporter)
        measured = _accuracy(network, held_out, source.classes, recipe, reporter) if held_out and is_main else None
    if is_main:
        origin = {
            "trained_on": {"source": source.name, "images": len(images), "classes": len(source.classes)},
            "recipe": {
                **recipe.model_dump(mode="json"),
                "processes": accelerator.num_processes,
                "device": accelerator.device.type,
                "precision": "bf16" if accelerator.mixed_precision == "bf16" else "fp32",
            },
            "held_out": measured,
        }
        _finish(network, out, recipe, origin, trainer.seconds, clock)
    accelerator.wait_for_everyone()
    return read_provenance(out) if is_main else None


def _accelerator(cpu: bool) -> Any:
    """An ``accelerate.Accelerator``, which manages devices, processes and precision."""
    try:
        from accelerate import Accelerator
        from accelerate.utils import InitProcessGroupKwargs
    except ImportError as error:
        raise BackboneError(
            "Package accelerate is not installed", got=str(error), next_step="pip install 'lmeraser[pretrain]'"
        ) from error
    half = torch.cuda.is_available() and not cpu
    processes = InitProcessGroupKwargs(timeout=_PROCESS_TIMEOUT)
    return Accelerator(mixed_precision="bf16" if half else "no", cpu=cpu, kwargs_handlers=[processes])


def _prepare_folder(out: Path, work: Path, source: Source, recipe: Recipe) -> None:
    """Create the folder of a training, or check that the stopped training in it is the same."""
    check_output_folder(out, allowed=_UNFINISHED)
    if len(source.classes) < 2:
        raise InputError(
            "The source names fewer than two classes",
            got=f"{source.name} names {len(source.classes)}",
            next_step="use one folder for each class, or a dataset whose labels are a ClassLabel",
        )
    path = work / "settings.json"
    settings = canonical_json(
        {"source": source.name, "classes": list(source.classes), **recipe.model_dump(mode="json")}
    )
    if path.exists() and path.read_bytes() != settings:
        raise InputError(
            "The stopped training in this folder has another source or other hyperparameters",
            got=f"{out} (its settings are in {path.relative_to(out)})",
            next_step="repeat the command with the same source and options, or choose another folder with --out",
        )
    write_atomic(path, settings, mode=SHARED)


def _accuracy(
    network: Any, source: Source, classes: Sequence[str], recipe: Recipe, progress: Progress
) -> dict[str, Any]:
    """Name of the source, number of its images, and the share whose most probable class is the label."""
    device = next(network.parameters()).device
    correct = 0
    count = 0
    for chunk in chunks(track(source.rows, "measuring accuracy", source.length, progress)):
        checked = [check_row(row, source.classes, classes) for row in chunk]
        examples = [example for example in checked if isinstance(example, Example)]
        if faults := [f"row {r.position}: {e}" for r, e in zip(chunk, checked, strict=True) if isinstance(e, str)]:
            raise SourceError(
                "The held-out source has faulty rows",
                faults=faults,
                next_step=f"correct or remove these rows of {source.name}",
            )
        canvases = np.stack([to_canvas(decode(example.payload), recipe.canvas_size) for example in examples])
        pixels = central_crop(canvases, recipe.image_size)
        with torch.inference_mode():
            predicted = network(pixel_values=network_input(pixels, device)).logits.argmax(dim=1).tolist()
        correct += sum(label == example.label for label, example in zip(predicted, examples, strict=True))
        count += len(examples)
    return {"source": source.name, "images": count, "accuracy": correct / count if count else None}


def _finish(
    network: Any,
    out: Path,
    recipe: Recipe,
    origin: Mapping[str, Any],
    seconds: float,
    clock: Callable[[], datetime],
) -> None:
    """Write the backbone folder and remove the state of the training."""
    from transformers.utils import logging

    work = out / _UNFINISHED
    saved = work / "model"
    logging.disable_progress_bar()
    network.save_pretrained(saved)
    write_atomic(out / PUBLIC_DIGESTS, (work / PUBLIC_DIGESTS).read_bytes(), mode=SHARED)
    write_backbone(
        out,
        config=(saved / "config.json").read_bytes(),
        weights=(saved / WEIGHTS).read_bytes(),
        pixels=pixel_statistics(MEAN, STD, recipe.image_size),
        size=recipe.image_size,
        provenance={
            "made_by": "lmeraser pretrain",
            **origin,
            "public_records": describe_public_digests(out / PUBLIC_DIGESTS, origin["trained_on"]["images"]),
            "versions": package_versions("torch", "transformers", "accelerate", "numpy", "pillow"),
            "seconds": round(seconds, 1),
            "finished": to_text(clock()),
        },
    )
    shutil.rmtree(work)
