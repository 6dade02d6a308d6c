"""The environment fingerprint as a value; `environment` computes it. Needs no torch."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from lmeraser.core.digests import Digest


class Fingerprint(BaseModel):
    """Everything about the software and hardware that may change a bit of the result.

    Attributes:
        torch: its version; likewise ``numpy``, ``scipy`` and ``pillow``.
        device: name of the GPU and version of CUDA, or the instruction set of the CPU.
        machine: architecture, such as x86_64.
        micro_batch: rows in every pass.
        canary: digest of a fixed computation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    torch: str
    numpy: str
    scipy: str
    pillow: str
    device: str
    machine: str
    micro_batch: int
    canary: Digest

    @property
    def digest(self) -> Digest:
        """Digest of all fields."""
        return Digest.of_json(self.model_dump(mode="json"))
