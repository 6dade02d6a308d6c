"""Settings that never change a bit of the model: storage, computation, deletion requests and the service.

`Config.model_settings` leaves these sections out.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from lmeraser.config.tuning import Section
from lmeraser.core.time import add_months


class StorageConfig(Section):
    """Where records, requests and artifacts are stored. Not part of the model."""

    database: str | None = Field(
        default=None,
        description="postgresql://USER@HOST/NAME, one per workspace; default: records.db in the workspace",
    )
    artifacts: str | None = Field(
        default=None,
        pattern=r"^s3://[^/\s]+(/\S*)?$",
        description="s3://BUCKET/FOLDER; default: the folder artifacts in the workspace",
    )


class ComputeConfig(Section):
    """Where computations run. Not part of the model: these settings never change a bit of it."""

    device: Literal["cpu", "cuda"] = Field(default="cpu", description="'cpu' or 'cuda'")
    workers: int = Field(default=0, ge=0, le=1024, description="parallel tasks in a process; 0: one per core")
    nice: int = Field(
        default=0,
        ge=0,
        le=19,
        description="niceness of its threads, from 0 (normal priority) to 19 (lowest; Linux only)",
    )
    executor: Literal["local", "processes", "ray"] = Field(
        default="local",
        description="what derives models: this process, other processes on this machine, or a Ray cluster",
    )
    processes: int = Field(
        default=0,
        ge=0,
        le=1024,
        description="number of worker processes of the executors 'processes' and 'ray'; 0: as many as fit",
    )
    address: str | None = Field(
        default=None, description="address of the Ray cluster, or 'auto'; default: start one on this machine"
    )
    image_memory_mb: int = Field(
        default=1024,
        ge=1,
        description="MiB of decoded images kept in memory; if they take more, images are decoded at each use",
    )


class RequestsConfig(Section):
    """Deletion requests. Not part of the model."""

    quarantine: bool = Field(
        default=True,
        description="predict without the clusters of records whose deletion was accepted but is not completed",
    )
    gdpr_months: int = Field(
        default=1, ge=1, le=3, description="months until the answer is due (Article 12(3) GDPR)"
    )
    ccpa_days: int = Field(default=45, ge=1, le=90, description="days until the answer is due (CCPA)")
    other_days: int = Field(
        default=30, ge=1, le=3650, description="days until the answer is due under other regulations"
    )
    gdpr_extension_months: int = Field(
        default=2, ge=1, le=2, description="further months after an extension (Article 12(3) GDPR)"
    )
    ccpa_extension_days: int = Field(default=45, ge=1, le=45, description="further days after an extension (CCPA)")
    other_extension_days: int = Field(
        default=30, ge=1, le=3650, description="further days after an extension under other regulations"
    )
    controller: str = Field(
        default="",
        max_length=200,
        pattern=r"^[^\x00-\x1f\x7f-\x9f]*$",
        description="name and address of who is responsible for the data, as certificates state it",
    )
    reference_days: int = Field(
        default=0,
        ge=0,
        le=3650,
        description="days for which the desk's reference of a request is kept (encrypted) after the request was "
        "completed or cancelled; 0: erased at once",
    )
    near_duplicate_records: int = Field(
        default=20000,
        ge=0,
        description="most records held at which those that look like deleted ones are counted (near duplicates)",
    )

    def due(self, regulation: str, received: datetime) -> datetime:
        """When the answer to a request is due."""
        if regulation == "gdpr":
            return add_months(received, self.gdpr_months)
        return received + timedelta(days=self.ccpa_days if regulation == "ccpa" else self.other_days)

    def extended_due(self, regulation: str, received: datetime) -> datetime:
        """When the answer to a request is due after its one extension; the whole period counts from its start."""
        if regulation == "gdpr":
            return add_months(received, self.gdpr_months + self.gdpr_extension_months)
        further = self.ccpa_extension_days if regulation == "ccpa" else self.other_extension_days
        return self.due(regulation, received) + timedelta(days=further)


class ServiceConfig(Section):
    """The HTTP service. Not part of the model."""

    controller_id: str = Field(
        default="controller", min_length=1, description="name of the data controller, as reported to callers"
    )
    domain: str = Field(
        default="localhost", min_length=1, description="domain of this service, as reported to callers"
    )
    grace_period: float = Field(
        default=3600.0,
        ge=0,
        le=30 * 86400,
        description="seconds from the acceptance of a request in which it can be taken back; its records are "
        "quarantined meanwhile, and deleted after it",
    )
    batch_seconds: float = Field(
        default=2.0,
        ge=0,
        le=86400,
        description="seconds from the first request whose grace period is over to the start of the derivation",
    )
    deriving_share: float = Field(
        default=0.2,
        gt=0,
        le=1,
        description="largest share of the time for derivations while requests keep coming; pauses last up to 60 s",
    )
    nice: int = Field(default=10, ge=0, le=19, description="niceness of derivations, 0 to 19")
    prediction_nice: int = Field(
        default=5,
        ge=0,
        le=19,
        description="niceness of predictions, 0 to 19, so that accepting requests comes first",
    )
    requests_per_second: float = Field(
        default=50.0, gt=0, description="calls per second allowed to an API key in the long run"
    )
    burst: int = Field(default=200, ge=1, description="calls allowed to an API key at once")
    max_names: int = Field(default=1000, ge=1, le=100000, description="identities in one deletion request")
    max_queries: int = Field(
        default=64, ge=1, le=4096, description="images, texts or vectors in one prediction call"
    )
    max_upload_mb: int = Field(default=32, ge=1, le=4096, description="MiB in one call")
    max_megapixels: float = Field(default=50.0, gt=0, le=89, description="megapixels of one image")
    max_waiting_megapixels: float = Field(
        default=400.0,
        gt=0,
        description="megapixels of all images that wait for prediction; further calls are rejected",
    )
    max_waiting_seconds: float = Field(
        default=5.0,
        gt=0,
        description="seconds that a query may wait for prediction; calls that would take longer are rejected",
    )
    max_streams: int = Field(default=100, ge=1, description="event streams open at once")
    callback_hosts: tuple[str, ...] = Field(
        default=(), description="HOST or HOST:PORT that callbacks may be sent to"
    )
    private_callback_hosts: tuple[str, ...] = Field(
        default=(),
        description="members of callback_hosts that may be in a private network and are called without TLS",
    )
    callback_days: float = Field(
        default=7.0, gt=0, le=365, description="days for which a failed callback is retried"
    )

    @model_validator(mode="before")
    @classmethod
    def _former_names(cls, values: Any) -> Any:
        """Settings by their names in 0.1, which stand in the files of workspaces."""
        if isinstance(values, Mapping) and "max_images" in values:
            if "max_queries" in values:
                raise ValueError("max_images is the former name of max_queries; give one of them")
            values = {("max_queries" if name == "max_images" else name): v for name, v in values.items()}
        return values

    @model_validator(mode="after")
    def _private_hosts_are_hosts(self) -> Self:
        if strange := set(self.private_callback_hosts) - set(self.callback_hosts):
            raise ValueError(
                f"private_callback_hosts must be among callback_hosts (missing: {', '.join(sorted(strange))})"
            )
        return self
