"""Supervised pre-training of a backbone on public images (paper, section IV-A).

    minimise over all weights:   mean of CE(c(M(x)), y) over the public images (x, y)

M is a Vision Transformer (Dosovitskiy et al., ICLR 2021, in the sizes of Touvron et al., ICML 2021), c a linear
classifier of its class token. AdamW, linear warm-up and cosine, random crops and mirror images, smoothed labels;
bf16 on a GPU, fp32 on a CPU (`training`). The result is a backbone's folder (`backbones.folder`) with a list of
the public images, so that `add` can tell whether private ones are among them. Knows nothing about workspaces.
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

from lmeraser.core.atomic_files import write_atomic
from lmeraser.core.digests import canonical_json
from lmeraser.core.progress import Progress, counted, silent
from lmeraser.core.time import to_text, utc_now
from lmeraser.data.crops import crop
from lmeraser.data.images import decode, to_canvas
from lmeraser.data.provenance import PUBLIC_DIGESTS, listed, provenance
from lmeraser.data.sources import Example, Source, check, chunks
from lmeraser.errors import BackboneError, InputError, SourceError
from lmeraser.models.backbones.folder import WEIGHTS, check_free, pixel_statistics, versions, write_backbone
from lmeraser.models.environment import deterministic
from lmeraser.models.pretraining.arrow_dataset import ArrowDataset, write_arrow_dataset
from lmeraser.models.pretraining.recipe import Recipe
from lmeraser.models.pretraining.trainer import MEAN, STD, Trainer, network_input, build_network

_UNFINISHED, _CHECKPOINT = "unfinished", "checkpoint.safetensors"
_A_DAY = timedelta(days=1)


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
    """Train a backbone on public images, or go on with a training that was stopped.

    Started by ``torchrun``, several processes share every step; one alone takes a GPU if there is one.

    Args:
        source: public, labelled images; it names its classes.
        out: the backbone's folder; empty, missing, or of a training that was stopped.
        recipe: how.
        held_out: public images that are not trained on, to measure accuracy.
        cpu: use no GPU.
        skip_bad: leave faulty rows out, instead of refusing the source.
        checkpoint_steps: after how many steps the state is written.
        progress: told the number of images seen.
        clock: tells the time.

    Returns:
        What ``provenance.json`` says; None in all processes but the first.

    Raises:
        InputError: the folder holds something else, or the source cannot be trained on.
        SourceError: faulty rows, all of them listed.
        BackboneError: accelerate is not installed, or the training diverged.
    """
    accelerator = _accelerator(cpu)
    work, main = out / _UNFINISHED, accelerator.is_main_process
    told = progress if main else silent
    if main:
        _begin(out, work, source, recipe)
        write_arrow_dataset(source, work, skip_bad=skip_bad, progress=told)
    accelerator.wait_for_everyone()
    images = ArrowDataset(work)
    with deterministic() if accelerator.device.type == "cpu" else nullcontext():
        network = build_network(recipe, source.classes)
        training = Trainer(network, images, recipe, accelerator, work / _CHECKPOINT)
        training.run(checkpoint_steps, told)
        tested = _accuracy(network, held_out, source.classes, recipe, told) if held_out and main else None
    if main:
        origin = {"source": source.name, "images": len(images), "classes": len(source.classes)}
        how = {**recipe.model_dump(mode="json"), "processes": accelerator.num_processes}
        how["device"] = accelerator.device.type
        how["precision"] = "bf16" if accelerator.mixed_precision == "bf16" else "fp32"
        _finish(network, out, recipe, {"trained_on": origin, "recipe": how, "held_out": tested}, training, clock)
    accelerator.wait_for_everyone()
    return provenance(out) if main else None


def _accelerator(cpu: bool) -> Any:
    """What knows about devices, processes and precision."""
    try:
        from accelerate import Accelerator
        from accelerate.utils import InitProcessGroupKwargs
    except ImportError as error:
        raise BackboneError(
            "Pre-training needs accelerate.", got=str(error), next_step="pip install 'lmeraser[pretrain]'"
        ) from error
    half = torch.cuda.is_available() and not cpu
    patience = InitProcessGroupKwargs(timeout=_A_DAY)  # the others wait while one reads the source
    return Accelerator(mixed_precision="bf16" if half else "no", cpu=cpu, kwargs_handlers=[patience])


def _begin(out: Path, work: Path, source: Source, recipe: Recipe) -> None:
    """Make the folder of a training, or recognise it."""
    check_free(out, kept=_UNFINISHED)
    if len(source.classes) < 2:
        raise InputError(
            "A public source names its classes, two or more.",
            got=f"{source.name} names {len(source.classes)}",
            next_step="use one folder for each class, or a dataset whose labels are a ClassLabel",
        )
    what = {
        "source": source.name,
        "classes": list(source.classes),
        **recipe.model_dump(mode="json"),
    }
    path, settings = work / "settings.json", canonical_json(what)
    if path.exists() and path.read_bytes() != settings:
        raise InputError(
            "A training that was stopped goes on with the same source and recipe.",
            got=f"{out} was begun with others",
            next_step=f"repeat the command as it was (see {path}), or choose another folder with --out",
        )
    write_atomic(path, settings)


def _accuracy(
    network: Any, source: Source, classes: Sequence[str], recipe: Recipe, progress: Progress
) -> dict[str, Any]:
    """On how many images it was measured, and the share whose most probable class is the label."""
    right, seen, device = 0, 0, next(network.parameters()).device
    corner = (recipe.canvas_size - recipe.image_size) // 2
    for chunk in chunks(counted(source.rows, "measuring accuracy", source.length, progress)):
        checked = [check(row, source.classes, classes) for row in chunk]
        examples = [example for example in checked if isinstance(example, Example)]
        if faults := [f"row {r.position}: {e}" for r, e in zip(chunk, checked, strict=True) if isinstance(e, str)]:
            raise SourceError("Held-out images decode and have known labels.", faults=faults)
        canvases = np.stack([to_canvas(decode(example.image), recipe.canvas_size) for example in examples])
        pixels = crop(canvases, [(corner, corner)] * len(canvases), recipe.image_size)
        with torch.inference_mode():
            found = network(pixel_values=network_input(pixels, device)).logits.argmax(dim=1).tolist()
        right += sum(guess == example.label for guess, example in zip(found, examples, strict=True))
        seen += len(examples)
    return {"source": source.name, "images": seen, "accuracy": right / seen if seen else None}


def _finish(
    network: Any,
    out: Path,
    recipe: Recipe,
    told: Mapping[str, Any],
    training: Trainer,
    clock: Callable[[], datetime],
) -> None:
    """Write the backbone's folder and remove the state."""
    from transformers.utils import logging

    work, saved = out / _UNFINISHED, out / _UNFINISHED / "model"
    logging.disable_progress_bar()
    network.save_pretrained(saved)
    write_atomic(out / PUBLIC_DIGESTS, (work / PUBLIC_DIGESTS).read_bytes())
    write_backbone(
        out,
        config=(saved / "config.json").read_bytes(),
        weights=(saved / WEIGHTS).read_bytes(),
        pixels=pixel_statistics(MEAN, STD, recipe.image_size),
        size=recipe.image_size,
        provenance={
            "made_by": "lmeraser pretrain",
            **told,
            "public_records": listed(out / PUBLIC_DIGESTS, told["trained_on"]["images"]),
            "versions": versions("torch", "transformers", "accelerate", "numpy", "pillow"),
            "seconds": round(training.seconds, 1),
            "finished": to_text(clock()),
        },
    )
    shutil.rmtree(work)
