"""Layout of a workspace's folder. Every path in a workspace comes from here.

    lmeraser.toml    settings                        records.db    records and requests, unless elsewhere
    workspace.json   format of this folder           records.keys  keys of encrypted rows
    secret.key       key of keyed digests, 0600      ledger        what was done, entry by entry
    signing.key      signs certificates, 0600        certificates/ of completed deletions
    signing.pub      verifies them                   artifacts/    tensors by digest
    lock             held by the one writer          memo/         artifacts by the digests of their inputs
    lock.holder      who that is                     generations/  manifests, and which of them is served
    calibration.json tuning speed of this machine    reports/      figures; they show records
    records.files/   large encrypted values of rows

The names are a stored format.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """The paths of one workspace.

    Attributes:
        root: the folder.
    """

    root: Path

    @property
    def settings(self) -> Path:
        """The settings."""
        return self.root / "lmeraser.toml"

    @property
    def marker(self) -> Path:
        """The file that makes a folder a workspace, and names its format."""
        return self.root / "workspace.json"

    @property
    def secret_key(self) -> Path:
        """The key of keyed digests."""
        return self.root / "secret.key"

    @property
    def signing_key(self) -> Path:
        """The private key that signs certificates."""
        return self.root / "signing.key"

    @property
    def public_key(self) -> Path:
        """The public key that verifies certificates."""
        return self.root / "signing.pub"

    @property
    def lock(self) -> Path:
        """The file that the one writer holds."""
        return self.root / "lock"

    @property
    def lock_holder(self) -> Path:
        """Says who the writer is; only a hint."""
        return self.root / "lock.holder"

    @property
    def calibration(self) -> Path:
        """The tuning speed of this machine."""
        return self.root / "calibration.json"

    @property
    def database(self) -> Path:
        """The SQLite file, unless the settings name another database."""
        return self.root / "records.db"

    @property
    def database_keys(self) -> Path:
        """The keys of encrypted rows, wherever the database is."""
        return self.root / "records.keys"

    @property
    def ledger(self) -> Path:
        """The ledger."""
        return self.root / "ledger"

    @property
    def certificates(self) -> Path:
        """The folder of certificates."""
        return self.root / "certificates"

    @property
    def artifacts(self) -> Path:
        """The folder of artifacts, unless the settings name another location."""
        return self.root / "artifacts"

    @property
    def memo(self) -> Path:
        """The folder that maps digests of inputs to artifacts."""
        return self.root / "memo"

    @property
    def generations(self) -> Path:
        """The folder of manifests."""
        return self.root / "generations"

    @property
    def reports(self) -> Path:
        """The folder of figures; purged with every generation, because they show records."""
        return self.root / "reports"
