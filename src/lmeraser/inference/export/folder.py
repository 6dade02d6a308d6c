"""Export of the served model as a folder that predicts without the workspace, and holds no record or secret.

Steps:
1. refuse while the model still holds the influence of records whose deletion was accepted;
2. write tensors, the backbone's files if they are wanted, model card and manifest to a temporary folder beside the
   target;
3. record the copy in the ledger, unless a deletion was accepted meanwhile;
4. move it to its place in one step; if that fails, record that the copy is deleted.
After a crash between 3 and 4 the ledger tells of a copy that nobody has, which is confirmed by hand.

Of the partition only what routes queries is exported: which sampled record is in which cluster stays here. The
format is that of `manifest`. Imports torch only to check a copied backbone and to write a graph.
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

from sqlalchemy import Connection

from lmeraser._version import __version__
from lmeraser.config.callback_urls import fault_of
from lmeraser.core.atomic_files import TEMPORARY, flush_folder, storage_errors, write_atomic
from lmeraser.core.digests import Digest
from lmeraser.core.tensors import from_bytes, to_bytes
from lmeraser.core.time import to_text
from lmeraser.errors import InputError, NoModelError, RequestConflictError
from lmeraser.evidence.entries import ModelExported
from lmeraser.inference.export import backbone_files
from lmeraser.inference.export.card import card
from lmeraser.inference.export.manifest import (
    ARTIFACTS,
    BACKBONE,
    CARD,
    GRAPH,
    ExportedBackbone,
    ExportedCluster,
    ExportedEvaluation,
    ExportFormat,
    ExportManifest,
    sign,
)
from lmeraser.inference.export.model_signature import check_key, write_model_signature
from lmeraser.inference.summary import load_summary
from lmeraser.models.backbone_names import locate_in_workspace
from lmeraser.models.manifest import Model
from lmeraser.models.partitions import partition_of
from lmeraser.storage.artifacts import BlobStore
from lmeraser.storage.blobs import Folder
from lmeraser.workspace.exports import Holder
from lmeraser.workspace.session import Session
from lmeraser.workspace.workspace import Workspace


@dataclass(frozen=True)
class ExportReport:
    """An export that was made.

    Attributes:
        path: of the folder or file.
        export: its UUID, to which a recall refers.
        generation: that it is a copy of.
        model_digest: of this generation.
        manifest: digest of the manifest.
        files: how many it has.
        bytes: of all of them.
        backbone_needed: name of a backbone that whoever loads it needs; None if the export is complete.
    """

    path: str
    export: str
    generation: int
    model_digest: Digest
    manifest: Digest
    files: int
    bytes: int
    backbone_needed: str | None

    def to_json(self) -> dict[str, object]:
        """The report as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class ExportOptions:
    """What an export is to hold.

    Attributes:
        format: "folder" for `load_predictor`, "onnx" for one graph, or "transformers" for its Auto classes.
        with_backbone: copy the backbone's files, too.
        license: SPDX identifier of the licence of the export, for its card.
        holder: who gets it.
        oms_key: private key, PEM, with which the export is also signed in the format of OpenSSF Model Signing.
    """

    format: ExportFormat = "folder"
    with_backbone: bool = False
    license: str | None = None
    holder: Holder = field(default_factory=Holder)
    oms_key: Path | None = None


def export_folder(session: Session, out: Path, options: ExportOptions = ExportOptions()) -> ExportReport:
    """Write the served generation to a folder, for `load_predictor`.

    Args:
        session: the workspace.
        out: the folder; missing or empty.
        options: what it holds.

    Raises:
        NoModelError: nothing has been trained.
        RequestConflictError: the model holds the influence of records that are to be deleted.
        InputError: the folder holds something, or is in the workspace; the holder may not be called; or the key
            for OpenSSF Model Signing cannot sign.
        StorageError: the disk refused; the folder is as it was then.
    """
    workspace = session.workspace
    if options.format not in get_args(ExportFormat):
        raise InputError(
            "Unknown format of an export",
            got=f"{options.format!r} (there are: {', '.join(get_args(ExportFormat))})",
            next_step="name one",
        )
    check_target(workspace, out)
    _check_holder(workspace, options.holder)
    if options.oms_key is not None:
        check_key(options.oms_key)
    with workspace.writing("export"):
        model = exportable(workspace)
        with storage_errors(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            part = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=out.parent))
            try:
                manifest = _write(workspace, model, part, options)
                report = _report(out, part, manifest)
                _hand_out(workspace, part, out, manifest, options.holder)
            except BaseException:
                shutil.rmtree(part, ignore_errors=True)
                raise
            flush_folder(out.parent)
    return report


def check_target(workspace: Workspace, out: Path) -> None:
    """Check that a folder is free for an export, and outside of the workspace.

    Raises:
        InputError: it is not.
    """
    if out.absolute().is_relative_to(workspace.root.absolute()):
        raise InputError(
            "Export would be inside the workspace",
            got=str(out),
            next_step="choose a folder outside the workspace",
        )
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(
            "The place for the export is not free",
            got=f"{out} {'holds files' if out.is_dir() else 'is a file'}",
            next_step="choose an empty or new folder",
        )


def _check_holder(workspace: Workspace, holder: Holder) -> None:
    """Check that the service may call a holder's URL."""
    if holder.url is not None and (fault := fault_of(holder.url, workspace.config.service)):
        raise InputError(
            "The holder's URL may not be called",
            got=f"{holder.url}: {fault}",
            next_step="add its host to service.callback_hosts in lmeraser.toml, or give a contact instead",
        )


def _hand_out(workspace: Workspace, part: Path, out: Path, manifest: ExportManifest, holder: Holder) -> None:
    """Record a finished copy, and move it to its place (steps 3 and 4)."""
    now = workspace.clock()
    exported = ModelExported(
        export=manifest.export,
        generation=manifest.generation,
        format=manifest.content,
        manifest=Digest.of(manifest.to_bytes()),
    )
    with workspace.write_transaction() as connection:
        exportable(workspace, connection)  # again: a request may have been accepted meanwhile
        workspace.exports.add(connection, exported, holder, now=now)
    try:
        part.replace(out)
    except OSError:
        with workspace.write_transaction() as connection:
            workspace.exports.confirm(connection, manifest.export, now=now)
        raise


def exportable(workspace: Workspace, connection: Connection | None = None) -> Model:
    """The served generation, if nobody's deletion is under way.

    Args:
        workspace: held by the caller for writing.
        connection: of an open transaction, in which no request can be accepted.

    Raises:
        NoModelError: nothing has been trained.
        RequestConflictError: a request is open, so that the copy would have to be recalled at once.
    """
    model = workspace.generations.require()
    if not model.clusters:
        raise NoModelError(
            "The model is empty", got="no record is left to learn from", next_step="add records and train again"
        )
    waiting = sum(request.open for request in workspace.requests.all(connection=connection))
    if waiting:
        raise RequestConflictError(
            "The model may still hold what is to be deleted",
            got=f"open deletion requests: {waiting}",
            next_step="carry them out with 'lmeraser unlearn', then export the generation without these records",
        )
    return model


def _write(workspace: Workspace, model: Model, part: Path, options: ExportOptions) -> ExportManifest:
    """Write all files of an export to a folder; returns its manifest (step 2)."""
    export = str(uuid.uuid4())
    if options.format == "transformers":
        _write_transformers(workspace, model, part)
        parts: dict[str, Any] = {"partition": None, "global_head": None, "clusters": ()}
    elif options.format == "onnx":
        facts = {"export": export, "model_digest": model.model_digest, "generation": str(model.generation)}
        write_atomic(part / GRAPH, _graph(workspace, model, facts))
        parts = {"partition": None, "global_head": None, "clusters": ()}
    else:
        parts = _write_tensors(workspace, model, part)
    summary = load_summary(workspace.reports, model.model_digest)
    manifest = ExportManifest(
        content=options.format,
        export=export,
        created=to_text(workspace.clock()),
        software=f"lmeraser {__version__}",
        model_digest=model.model_digest,
        generation=model.generation,
        records=model.records,
        classes=model.classes,
        settings=model.settings,
        backbone=_backbone(workspace, model, part, options),
        **parts,
        fingerprints=model.fingerprints,
        evaluation=None
        if summary is None
        else ExportedEvaluation(**summary.model_dump(include=set(ExportedEvaluation.model_fields))),
        files={
            path.relative_to(part).as_posix(): Digest.of_file(path)
            for path in sorted(part.rglob("*"))
            if path.is_file()
        },
    )
    for name, data in sign(manifest, workspace.signing_key).items():
        write_atomic(part / name, data)
    write_atomic(part / CARD, card(manifest, license=options.license).encode())
    if options.oms_key is not None:
        write_model_signature(part, options.oms_key)
    return manifest


def _graph(workspace: Workspace, model: Model, facts: Mapping[str, str]) -> bytes:
    """The model as one graph; loads torch and the backbone."""
    from lmeraser.inference.export.onnx_file import onnx_file

    config = locate_in_workspace(model.config(workspace.config.compute), workspace.root)
    return onnx_file(model, config, lambda digest: from_bytes(workspace.store.read(digest)), facts=facts)


def _write_transformers(workspace: Workspace, model: Model, part: Path) -> None:
    """The model as transformers loads it; loads torch and the backbone."""
    from lmeraser.inference.export.transformers_folder import write_folder

    config = locate_in_workspace(model.config(workspace.config.compute), workspace.root)
    write_folder(model, config, lambda digest: from_bytes(workspace.store.read(digest)), part)


def _write_tensors(workspace: Workspace, model: Model, part: Path) -> dict[str, Any]:
    """Write the tensors that a prediction needs; returns the fields of the manifest that name them."""
    store = workspace.store
    config = model.config()
    routing = to_bytes(partition_of(config).for_routing(from_bytes(store.read(model.partition.artifact))))
    own = BlobStore(Folder(part / ARTIFACTS), Folder(part / ARTIFACTS))
    constituents = {c.constituent.artifact for c in model.clusters if c.constituent is not None}
    kept = constituents | ({model.global_head.artifact} if model.global_head is not None else set())
    for data in (*map(store.read, sorted(kept)), routing):
        own.keep(data)
    return {
        "partition": Digest.of(routing),
        "global_head": model.global_head.artifact if model.global_head is not None else None,
        "clusters": tuple(
            ExportedCluster(
                number=cluster.number,
                path=cluster.path,
                constituent=cluster.constituent.artifact if cluster.constituent is not None else None,
            )
            for cluster in model.clusters
        ),
    }


def _backbone(workspace: Workspace, model: Model, part: Path, options: ExportOptions) -> ExportedBackbone:
    """What the manifest says of the backbone; copies its files if they are wanted."""
    config = model.config(workspace.config.compute)
    name = config.backbone.name
    folder = backbone_files.folder_of(config, workspace.root)
    whole = options.format != "folder"  # the file or files have the backbone's weights in any case
    if options.with_backbone and not whole:
        backbone_files.copy_files(config, folder, part / BACKBONE)
        backbone_files.check_copy(config, part / BACKBONE, model.backbone)
    return ExportedBackbone(
        name=name if folder is None else None,
        digest=model.backbone,
        included=options.with_backbone or whole,
        license=backbone_files.license_of(name, folder),
    )


def _report(out: Path, part: Path, manifest: ExportManifest) -> ExportReport:
    files = [path for path in part.rglob("*") if path.is_file()]
    return ExportReport(
        path=str(out),
        export=manifest.export,
        generation=manifest.generation,
        model_digest=manifest.model_digest,
        manifest=Digest.of(manifest.to_bytes()),
        files=len(files),
        bytes=sum(path.stat().st_size for path in files),
        backbone_needed=None if manifest.backbone.included else manifest.backbone.name or "a local folder",
    )
