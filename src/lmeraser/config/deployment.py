"""Settings that never change a bit of the model: where things lie, where work runs, requests, the service.

They are sections of `config` like the others, and left out of `Config.model_settings`. Knows nothing about what
they are for.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal, Self

from pydantic import Field, model_validator

from lmeraser.config.tuning import Section
from lmeraser.core.time import add_months


class StorageConfig(Section):
    """Where records, requests and artifacts are kept. Not part of the model."""

    database: str | None = Field(
        default=None, description="postgresql://USER@HOST/NAME, one for each workspace; none: records.db here"
    )
    artifacts: str | None = Field(
        default=None,
        pattern=r"^s3://[^/\s]+(/\S*)?$",
        description="s3://BUCKET/FOLDER; none: the folder artifacts here",
    )


class ComputeConfig(Section):
    """Where the work runs. Not part of the model: these settings never change a bit of it."""

    device: Literal["cpu", "cuda"] = "cpu"
    workers: int = Field(default=0, ge=0, le=1024, description="parallel tasks of a process; 0: one per core")
    nice: int = Field(
        default=0, ge=0, le=19, description="how much its threads give way to those of others (Linux)"
    )
    executor: Literal["local", "processes", "ray"] = Field(
        default="local", description="what derives models: this process, others here, or a Ray cluster"
    )
    processes: int = Field(default=0, ge=0, le=1024, description="workers of the others; 0: as many as fit")
    address: str | None = Field(default=None, description="of the Ray cluster, or 'auto'; none: one of its own")
    image_memory_mb: int = Field(
        default=1024, ge=1, description="MiB of decoded images kept; beyond, they are decoded again"
    )


class RequestsConfig(Section):
    """Deletion requests. Not part of the model."""

    quarantine: bool = Field(
        default=True, description="predict without the clusters of records whose deletion was accepted"
    )
    gdpr_months: int = Field(default=1, ge=1, le=3, description="until the answer is due (Article 12(3) GDPR)")
    ccpa_days: int = Field(default=45, ge=1, le=90, description="until the answer is due (CCPA)")
    other_days: int = Field(default=30, ge=1, le=3650, description="until the answer is due")

    def due(self, regulation: str, received: datetime) -> datetime:
        """When the answer to a request is due."""
        if regulation == "gdpr":
            return add_months(received, self.gdpr_months)
        return received + timedelta(days=self.ccpa_days if regulation == "ccpa" else self.other_days)


class ServiceConfig(Section):
    """The HTTP service. Not part of the model."""

    controller_id: str = Field(
        default="controller", min_length=1, description="whose requests they are, as told to callers"
    )
    domain: str = Field(default="localhost", min_length=1, description="of this service, as told to callers")
    batch_seconds: float = Field(
        default=2.0, ge=0, le=86400, description="from the first waiting request to the start of the derivation"
    )
    deriving_share: float = Field(
        default=0.2,
        gt=0,
        le=1,
        description="of the time, for derivations while requests keep coming; they rest a minute at most",
    )
    nice: int = Field(default=10, ge=0, le=19, description="how much deriving models gives way to all else")
    prediction_nice: int = Field(
        default=5, ge=0, le=19, description="how much predictions give way to taking requests"
    )
    requests_per_second: float = Field(
        default=50.0, gt=0, description="calls that a key may make, in the long run"
    )
    burst: int = Field(default=200, ge=1, description="calls that a key may make at once")
    max_names: int = Field(default=1000, ge=1, le=100000, description="identities in one request")
    max_images: int = Field(default=64, ge=1, le=4096, description="in one prediction")
    max_upload_mb: int = Field(default=32, ge=1, le=4096, description="MiB in one call")
    max_megapixels: float = Field(default=50.0, gt=0, le=89, description="of one image")
    max_waiting_megapixels: float = Field(
        default=400.0,
        gt=0,
        description="of all images that wait for their prediction; beyond, callers are sent away",
    )
    max_waiting_seconds: float = Field(
        default=5.0,
        gt=0,
        description="for which an image may wait for its prediction; beyond, callers are sent away",
    )
    max_streams: int = Field(default=100, ge=1, description="callers that follow requests at once")
    callback_hosts: tuple[str, ...] = Field(default=(), description="HOST or HOST:PORT that may be called back")
    private_callback_hosts: tuple[str, ...] = Field(
        default=(),
        description="those of them that may have an address in a private network, and be called without TLS",
    )
    callback_days: float = Field(default=7.0, gt=0, le=365, description="for which a callback is tried again")

    @model_validator(mode="after")
    def _private_hosts_are_hosts(self) -> Self:
        if strange := set(self.private_callback_hosts) - set(self.callback_hosts):
            raise ValueError(
                f"private_callback_hosts are among callback_hosts, and {', '.join(sorted(strange))} is not"
            )
        return self
