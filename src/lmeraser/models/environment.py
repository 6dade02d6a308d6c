"""The computing environment as an input of the training function: determinism, and a fingerprint.

Bit-for-bit equality is promised among environments with the same fingerprint. It holds there because

- a task (one pass of one micro-batch, one cluster's tuning) runs on one intra-operation thread. Libraries
  choose other kernels and other orders of summation for other thread counts; measured here, features of a
  batch of 8 differ between 1 and 2 threads. Cores are used by running several tasks at once (`executors`);
- every pass through a backbone has the same shape, padded; other batch sizes give other bits;
- torch's deterministic algorithms are on, so an operation without one is an error instead of a risk. They choose
  the fused attention whose backward pass adds up in a fixed order; cuDNN's attention has none, so it is off;
- fp32 means fp32: cuDNN's convolutions do not round their inputs to TF32.

The fingerprint consists of versions, the device and a *canary*: the digest of the backbone's features and input
gradients for fixed inputs, with and without a prompt, and of a global head on them. Whatever changes the
arithmetic of this process (a CPU, a library, an environment variable) changes the canary. A process that has
nothing to compute with the backbone takes the canary of an earlier one (`known_environments`). Knows nothing about
records.
"""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL
import scipy
import torch

from lmeraser.core.digests import Digest
from lmeraser.core.lda import solve
from lmeraser.core.sufficient_statistics import SufficientStatistics, embedding, quantize
from lmeraser.errors import BackboneError
from lmeraser.models.fingerprint import Fingerprint

if TYPE_CHECKING:
    from lmeraser.models.backbones.base import Backbone


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """Context of one intra-operation thread and deterministic algorithms; restores both settings afterwards."""
    threads = torch.get_num_threads()
    mode = torch.get_deterministic_debug_mode()
    memory: Any = torch.utils.deterministic  # torch's stubs lack the setting
    was_filling = memory.fill_uninitialized_memory
    cudnn: Any = torch.backends.cudnn
    cuda: Any = torch.backends.cuda
    used_cudnn_attention = cuda.cudnn_sdp_enabled()
    allowed_tf32 = cudnn.allow_tf32
    cuda.enable_cudnn_sdp(False)
    cudnn.allow_tf32 = False
    torch.set_num_threads(1)
    # `torch.use_deterministic_algorithms` does the same, but imports torch's compiler, which takes a second.
    torch.set_deterministic_debug_mode("error")
    memory.fill_uninitialized_memory = False  # costs time, and nothing reads such memory
    try:
        yield
    finally:
        memory.fill_uninitialized_memory = was_filling
        torch.set_deterministic_debug_mode(mode)
        torch.set_num_threads(threads)
        cudnn.allow_tf32 = allowed_tf32
        cuda.enable_cudnn_sdp(used_cudnn_attention)


def fingerprint(backbone: Backbone) -> Fingerprint:
    """The fingerprint of this process with a backbone; takes a few passes through it.

    Raises:
        BackboneError: the backbone has no deterministic gradients.
    """
    return Fingerprint(
        torch=torch.__version__,
        numpy=np.__version__,
        scipy=scipy.__version__,
        pillow=PIL.__version__,
        device=_device_name(backbone.device),
        machine=platform.machine(),
        micro_batch=backbone.micro_batch,
        canary=_canary(backbone),
    )


def _canary(backbone: Backbone) -> Digest:
    inputs = backbone.probe(seed=0)
    try:
        with deterministic():
            features, gradients = backbone.features_and_gradients(inputs)
            shared = backbone.shared_gradient(inputs)
    except (RuntimeError, NotImplementedError) as error:  # torch refuses operations that are not deterministic
        raise BackboneError(
            "The backbone cannot compute features and their gradients deterministically",
            got=str(error).partition("\n")[0],
            next_step="choose another backbone in lmeraser.toml; nothing was changed",
        ) from error
    quantized = quantize(embedding(features.numpy()[:, None]))
    count, width = quantized.shape
    statistics = SufficientStatistics.zero(width, classes=count).plus(quantized, range(count))
    head = solve(statistics, penalty=1.0)
    parts = (features.numpy(), gradients.contiguous().numpy(), shared.numpy(), head["weight"])
    return Digest.of(b"".join(part.tobytes() for part in parts))


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda {torch.cuda.get_device_name(device)} (CUDA {torch.version.cuda})"
    return f"cpu {torch.backends.cpu.get_cpu_capability()}"
