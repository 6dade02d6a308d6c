"""The manifest of an exported model: what a predictor needs, and nothing that says who is in it.

    export.json       the manifest, JSON
    export.sig        its signature by the workspace's key, a DSSE envelope
    signing.pub       the key
    artifacts/        tensors by digest
    backbone/         files of the backbone, if they were copied
    model.onnx        instead of tensors and backbone: all of it as one graph (`graph`)
    config.json...    or as transformers loads it (`transformers_folder`)
    README.md         model card; not covered by the manifest, because holders may add to it
    model.sig         signature in the format of OpenSSF Model Signing, if it was wanted (`model_signature`)

The manifest lists the digest of every other file. It holds neither ids nor keyed digests, keys, sizes of clusters
or paths of the machine that it was written on. Field names are a stored format. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from lmeraser.core.digests import Digest, parse_json
from lmeraser.errors import FormatError, InputError, VerificationError
from lmeraser.evidence.dsse import Envelope, PublicKey, SigningKey
from lmeraser.models.manifest import Cluster, Model, StageResult

MANIFEST = "export.json"
SIGNATURE = "export.sig"
KEY = "signing.pub"
CARD = "README.md"
GRAPH = "model.onnx"
MODEL_SIGNATURE = "model.sig"
ARTIFACTS = "artifacts"
BACKBONE = "backbone"
FORMAT = 1
PAYLOAD_TYPE = "application/vnd.lmeraser.export+json"
ExportFormat = Literal["folder", "onnx", "transformers"]

_OWN = {MANIFEST, SIGNATURE, KEY, CARD, MODEL_SIGNATURE}  # files that the manifest does not list


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ExportedCluster(_Part):
    """A cluster with members.

    Attributes:
        number: in the model.
        path: of the cluster in the trie.
        constituent: digest of its tensors; None: nothing is tuned for it.
    """

    number: int
    path: str
    constituent: Digest | None


class ExportedBackbone(_Part):
    """The frozen network.

    Attributes:
        name: from where others can load it; None for a folder of the exporting machine.
        digest: of its architecture and weights.
        included: whether its files are in the export.
        license: SPDX identifier of its licence, where it is known.
    """

    name: str | None
    digest: Digest
    included: bool
    license: str | None


class ExportedEvaluation(_Part):
    """The last evaluation of the exported generation.

    Attributes:
        images: number of records that it was evaluated on.
        accuracy: share of them whose most probable class is the label.
        linear_accuracy: the same for a linear classifier on the features of the clean view; None: not compared.
    """

    images: int
    accuracy: float
    linear_accuracy: float | None


class ExportManifest(_Part):
    """What an export says of itself.

    Attributes:
        format: version of this layout.
        content: what predicts: "folder" for tensors that `load_predictor` loads, "onnx" for one graph, or
            "transformers" for what its Auto classes load.
        export: UUID, under which the ledger of the workspace records it.
        created: when it was made, RFC 3339 in UTC.
        software: what made it.
        model_digest: of the generation, as certificates and the ledger name it.
        generation: its number.
        records: how many records it was derived from.
        classes: class names in the order of the labels.
        settings: `Config.model_settings`.
        backbone: the frozen network.
        partition: digest of the tensors that route queries to clusters; None but for a folder.
        global_head: digest of the global head of a folder, where the model has one.
        clusters: those with members; none but for a folder.
        fingerprints: of the environments in which the parts were computed; in an environment with the only one of
            them, predictions have the bits of the workspace's.
        evaluation: of this generation; None if there was none.
        files: digest of every other file, by its path.
    """

    format: int = FORMAT
    content: ExportFormat = "folder"
    export: str
    created: str
    software: str
    model_digest: Digest
    generation: int
    records: int
    classes: tuple[str, ...]
    settings: dict[str, Any]
    backbone: ExportedBackbone
    partition: Digest | None
    global_head: Digest | None
    clusters: tuple[ExportedCluster, ...]
    fingerprints: tuple[Digest, ...]
    evaluation: ExportedEvaluation | None
    files: dict[str, Digest]

    def to_bytes(self) -> bytes:
        """The content of ``export.json``."""
        return self.model_dump_json(indent=1).encode() + b"\n"

    def model(self, backbone_name: str) -> Model:
        """The exported generation as `Predictor` takes it.

        What only a workspace needs is missing: keys of stages, sizes of clusters, the revision. Its own
        ``model_digest`` is therefore not that of the generation.

        Args:
            backbone_name: from where the weights are loaded here.

        Raises:
            InputError: it is exported for other libraries.
        """
        if self.partition is None:
            use = f"run {GRAPH} with onnxruntime" if self.content == "onnx" else "load it with transformers"
            raise InputError(
                "This export is for other libraries",
                got=f"content {self.content!r}",
                next_step=f"{use}, or export with --format folder",
            )
        return Model(
            generation=self.generation,
            parent=None,
            settings=self.settings,
            classes=self.classes,
            backbone=self.backbone.digest,
            backbone_name=backbone_name,
            partition=_result(self.partition),
            global_head=None if self.global_head is None else _result(self.global_head),
            clusters=tuple(
                Cluster(
                    number=cluster.number,
                    path=cluster.path,
                    records=0,
                    constituent=None if cluster.constituent is None else _result(cluster.constituent),
                )
                for cluster in self.clusters
            ),
            revision=0,
        )


def _result(artifact: Digest) -> StageResult:
    """An artifact by its digest alone; what it was derived from stays in the workspace."""
    return StageResult(key=artifact, artifact=artifact, fingerprint=artifact)


def sign(manifest: ExportManifest, key: SigningKey) -> dict[str, bytes]:
    """The files of a manifest: itself, its signature and the public key."""
    data = manifest.to_bytes()
    return {
        MANIFEST: data,
        SIGNATURE: key.sign(data, payload_type=PAYLOAD_TYPE).to_bytes(),
        KEY: key.public.pem,
    }


def read_export(folder: Path, *, key: PublicKey | None = None) -> ExportManifest:
    """The manifest of an export, after its signature and the digest of every file were verified.

    Args:
        folder: the export.
        key: the workspace's public key, obtained from elsewhere; None: the one in the folder, which shows that
            the files belong together, not who made them.

    Raises:
        InputError: the folder is no export.
        FormatError: a newer version wrote it.
        VerificationError: a signature or digest does not match, a file is missing, or there is another one.
    """
    if not (folder / MANIFEST).is_file():
        raise InputError(
            "Not an exported model",
            got=f"{folder} has no file {MANIFEST}",
            next_step="give a folder that 'lmeraser export' wrote",
        )
    data = _read(folder, MANIFEST)
    envelope = Envelope.parse(_read(folder, SIGNATURE))
    own_key = folder / KEY
    signer = key if key is not None else PublicKey.read(own_key) if own_key.is_file() else None
    if signer is None:
        raise _damaged(f"no file {KEY}")
    if signer.verify(envelope, payload_type=PAYLOAD_TYPE) != data:
        raise _damaged(f"{SIGNATURE} signs another {MANIFEST}")
    manifest = _parse(data)
    _verify_files(folder, manifest.files)
    return manifest


def _parse(data: bytes) -> ExportManifest:
    try:
        values = parse_json(data)
        found = values.get("format") if isinstance(values, dict) else None
        if isinstance(found, int) and found > FORMAT:
            raise FormatError(
                "Export was written by a newer version of lmeraser",
                got=f"format {found} (this version reads {FORMAT})",
                next_step="upgrade lmeraser",
            )
        return ExportManifest.model_validate(values)
    except (ValueError, ValidationError) as error:
        raise _damaged(f"{MANIFEST} is not a manifest: {str(error).splitlines()[0]}") from error


def _verify_files(folder: Path, files: Mapping[str, Digest]) -> None:
    present = set(_files(folder))
    for name, digest in files.items():
        if name not in present:
            raise _damaged(f"{name} is missing")
        try:
            found = Digest.of_file(folder / name)
        except OSError as error:
            raise _damaged(f"{name}: {error.strerror}") from error
        if found != digest:
            raise _damaged(f"{name} has digest {found.short} instead of {digest.short}")
    if foreign := sorted(present - files.keys() - _OWN):
        raise _damaged(f"{foreign[0]} does not belong to it")


def _files(folder: Path) -> Iterator[str]:
    """Paths of the files below a folder; hidden ones, which download tools leave, are passed over."""
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        if not any(part.startswith(".") for part in relative.parts) and not path.is_dir():
            yield relative.as_posix()


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise _damaged(f"{name}: {error.strerror}") from error


def _damaged(got: str) -> VerificationError:
    return VerificationError(
        "Exported model is incomplete or was changed", got=got, next_step="get the export again from its maker"
    )
