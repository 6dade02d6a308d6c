"""The facade: one object with the verbs of the command line.

    from lmeraser import Eraser

    eraser = Eraser.create("workspace")
    eraser.add("photos/")                       # one folder per class
    eraser.train()
    eraser.predict(["new.jpg"])
    eraser.unlearn(ids=["cat/0001.jpg"])        # now the model that training without it gives
    assert eraser.audit().identical

Every verb is a module of its own, imported when it is used, so that `status` is quick. Each takes the `Session`:
the workspace, the executors that run the expensive stages, and the progress report.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from lmeraser.config.presets import PresetName
from lmeraser.config.schema import Config, parse
from lmeraser.core.arguments import as_path, listed
from lmeraser.core.atomic_files import read_file
from lmeraser.core.digests import Digest
from lmeraser.core.progress import Progress, silent
from lmeraser.core.time import to_moment, utc_now
from lmeraser.errors import InputError, LmeraserError
from lmeraser.evidence.dsse import SigningKey
from lmeraser.workspace.requests.draft import RequestDraft, Selector
from lmeraser.workspace.requests.receipts import Receipt
from lmeraser.workspace.requests.state import (
    Regulation,
    Request,
    parse_cancellation_reason,
    parse_regulation,
)
from lmeraser.workspace.session import Session
from lmeraser.workspace.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset, IterableDataset
    from numpy.typing import NDArray

    from lmeraser.data.importing import ImportReport
    from lmeraser.data.modalities import PayloadFormat
    from lmeraser.data.name_lookup import NameKind
    from lmeraser.data.sources import Columns
    from lmeraser.evidence.reconcile import LedgerReport
    from lmeraser.inference.evaluate import EvaluationReport
    from lmeraser.inference.export.folder import ExportReport
    from lmeraser.inference.export.manifest import ExportFormat
    from lmeraser.inference.predictor import Predictions, Predictor, Query
    from lmeraser.models.backbones import Backbone
    from lmeraser.models.partitions.cost import Cost
    from lmeraser.pipeline.executors.local import LocalExecutor
    from lmeraser.unlearning.audit import AuditReport
    from lmeraser.unlearning.completion import CompletionReport
    from lmeraser.unlearning.plan import Plan
    from lmeraser.unlearning.residue import ResidueReport
    from lmeraser.unlearning.unlearn import UnlearnReport
    from lmeraser.unlearning.update import TrainReport
    from lmeraser.workspace.certificate_forms import CertificateForm
    from lmeraser.workspace.exports import HeldCopy
    from lmeraser.workspace.holdings import Holdings, RecordLine, SubjectLine
    from lmeraser.workspace.status import Status

Name = str | int  # of a record or a subject


class Eraser:
    """Exact unlearning for a classifier in a workspace.

    Every method may raise `LockedError`, where another process writes for longer than ``wait``, and `StorageError`
    or `CorruptError`, where files cannot be used or are damaged; its own list has what else it raises.

    Args:
        root: the workspace's folder.
        wait: how many seconds a writer waits for another one.
        progress: receives progress reports.
        compute: settings of ``[compute]`` to use instead of those in lmeraser.toml.
        clock: tells the time.
        backbone: the network that the settings name, if the caller has loaded it already.

    Attributes:
        session: what the verbs take, for callers that use their modules directly.

    Raises:
        WorkspaceError: the folder is not a workspace; create one with `create`.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        wait: float = 10.0,
        progress: Progress = silent,
        compute: Mapping[str, Any] | None = None,
        clock: Callable[[], datetime] = utc_now,
        backbone: Backbone | None = None,
    ) -> None:
        workspace = Workspace(as_path(root), wait=wait, compute=compute, clock=clock)
        self.session = Session.of(workspace, backbone=backbone, progress=progress)

    @classmethod
    def create(
        cls,
        root: str | os.PathLike[str],
        config: Config | dict[str, Any] | None = None,
        *,
        preset: PresetName = "instant",
        classes: Sequence[str] = (),
        signing_key: str | os.PathLike[str] | None = None,
        wait: float = 10.0,
        progress: Progress = silent,
        clock: Callable[[], datetime] = utc_now,
    ) -> Self:
        """Create a workspace in an empty or missing folder.

        Args:
            root: the folder.
            config: settings, or a nested dictionary of those that differ from the preset.
            preset: 'instant' (nothing is tuned), 'prompts' (one for each cluster), 'paper' (its settings), or a
                method to compare with (`config.presets`).
            classes: class names; needed if sources don't name them.
            signing_key: PEM file with an Ed25519 private key for certificates; None: a new key.
            wait: how many seconds a writer waits for another one.
            progress: receives progress reports.
            clock: tells the time.

        Raises:
            ConfigError: unknown settings or values out of range, all of them listed.
            InputError: the folder is not empty.
        """
        parsed = config if isinstance(config, Config) else parse({} if config is None else config, base=preset)
        key = SigningKey.read(Path(signing_key)) if signing_key is not None else None
        names = listed(classes, "classes")
        Workspace.create(as_path(root), parsed, classes=names, signing_key=key, clock=clock).close()
        return cls(root, wait=wait, progress=progress, clock=clock)

    @property
    def workspace(self) -> Workspace:
        """The workspace, which has records, requests, generations and the rest."""
        return self.session.workspace

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the labels."""
        return self.workspace.records.classes

    @property
    def model_digest(self) -> Digest:
        """Digest of the served model.

        Raises:
            NoModelError: nothing was trained yet.
        """
        return self.workspace.generations.require().model_digest

    @property
    def payload_format(self) -> PayloadFormat:
        """What the payloads of the records are, namely images, texts or vectors."""
        from lmeraser.data.modalities import payload_format

        return payload_format(self.workspace.config)

    def record_ids(self) -> list[str]:
        """Ids of all records, sorted."""
        return [record.id for record in self.workspace.records.index()]

    def sampled_ids(self) -> list[str]:
        """Ids of the records that shape the partition; unlearning one of them derives the partition again."""
        from lmeraser.models.partitions import partition_of

        return partition_of(self.workspace.config).sample(self.record_ids())

    def add(
        self,
        source: str | os.PathLike[str] | Dataset | IterableDataset | Any,
        *,
        split: str | None = None,
        columns: Columns | None = None,
        extend_classes: bool = False,
        allow_deleted: bool = False,
        skip_bad: bool = False,
        refuse_public: bool = False,
        subjects: str | os.PathLike[str] | None = None,
        subject_level: int | None = None,
        subject_pattern: str | None = None,
        follow_paths: bool = False,
    ) -> ImportReport:
        """Add records: all of a source's or, if any is faulty, none.

        Args:
            source: a folder of class folders, or of images that ``metadata.csv`` or ``metadata.jsonl`` lists; a
                table (.csv, .tsv, .jsonl, .parquet); arrays (.npz); ``hub:OWNER/NAME``; a ``datasets`` object; or
                a table in memory: a DataFrame, a table of Arrow, ``(X, y)``, dictionaries.
            split: of a dataset, or a subfolder of a folder.
            columns: where payload, label, id and subject are.
            extend_classes: append classes that the workspace does not know.
            allow_deleted: add records again that were deleted here.
            skip_bad: leave faulty rows out, and count them in the report.
            refuse_public: treat images that the backbone was trained on as faulty.
            subjects: CSV or JSON lines file with the columns ``id`` and ``subject``.
            subject_level: the folder in an image's path that is its subject; 2 in CLASS/PERSON/FILE.
            subject_pattern: regular expression whose group in an image's path is its subject.
            follow_paths: also read files outside of the source that it names by their paths.

        Raises:
            SourceError: the source has faulty rows (all are listed); nothing was added.
            InputError: the source cannot be read or lacks a column, its classes do not fit, or ``refuse_public``
                where the public images of the backbone are unknown; nothing was added.
        """
        from lmeraser.data.importing import import_records
        from lmeraser.data.provenance import open_public_images
        from lmeraser.data.sources import open_source
        from lmeraser.data.subject_rules import SubjectRule
        from lmeraser.models.backbone_names import locate_in_workspace

        rule = SubjectRule.of(level=subject_level, pattern=subject_pattern, file=subjects)
        opened = open_source(
            source,
            split=split,
            columns=columns,
            subjects=rule,
            follow_paths=follow_paths,
            payloads=self.payload_format,
        )
        located = locate_in_workspace(self.workspace.config, self.workspace.root)
        with self.workspace.writing("add"):
            return import_records(
                self.workspace.records,
                opened,
                ledger=self.workspace.ledger,
                now=self.workspace.clock(),
                extend_classes=extend_classes,
                allow_deleted=allow_deleted,
                skip_bad=skip_bad,
                public=open_public_images(located.backbone.name),
                refuse_public=refuse_public,
                progress=self.session.progress,
            )

    def extend_classes(self, names: Sequence[str]) -> tuple[str, ...]:
        """Append class names; every head changes its shape, so all clusters will be tuned again.

        Returns:
            All class names in the order of the labels.

        Raises:
            InputError: a name is there already, or cannot be used.
        """
        with self.workspace.writing("classes"):
            self.workspace.records.set_classes([*self.classes, *listed(names, "names")])
        return self.classes

    def train(self, *, rederive: bool = False) -> TrainReport:
        """Derive the model of the records and serve it; completes deletions in progress.

        Args:
            rederive: run stages again whose results were made in another environment.

        Raises:
            BackboneError: the backbone cannot be loaded, has changed, or is not deterministic.
        """
        from lmeraser.unlearning.train import train

        return train(self.session, rederive=rederive)

    def plan(
        self,
        *,
        ids: Iterable[Name] | None = None,
        subjects: Iterable[Name] | None = None,
        with_duplicates: bool = False,
        regulation: Regulation = "other",
        received: date | str | None = None,
        asked: date | str | None = None,
        near_duplicates: bool = False,
    ) -> Plan:
        """What `unlearn` would do, without doing it, and when the answer would be due.

        Args:
            ids: as of `unlearn`, as are the next five.
            subjects: people whose records are all deleted.
            with_duplicates: select the other records with the payload of a selected one, too.
            regulation: the law that the request invokes.
            received: when it was received.
            asked: when the person asked.
            near_duplicates: count the records that look like a selected one, too; reads all stored features.

        Raises:
            UnknownRecordError: some of the names were never held here; all of them are listed.
            InputError: nothing is named, or a time cannot be meant.
            NoModelError: there is no model, or it is not up to date.
        """
        from lmeraser.unlearning.dry_run import dry_run

        now = self.workspace.clock()
        draft = _draft(ids, subjects, None, regulation, received, asked, with_duplicates)
        draft.check_times(now=now)
        found = dry_run(self.session, draft.selector, near_duplicates=near_duplicates)
        return found.with_due(draft.due(self.workspace.config.requests, now=now), now=now)

    def unlearn(
        self,
        *,
        ids: Iterable[Name] | None = None,
        subjects: Iterable[Name] | None = None,
        request: str | UUID | None = None,
        regulation: Regulation = "other",
        received: date | str | None = None,
        audit: bool = False,
        asked: date | str | None = None,
        with_duplicates: bool = False,
    ) -> UnlearnReport:
        """Unlearn records exactly: accept a request and carry it out.

        If both ids and subjects are left out, the requests that were accepted before are carried out, in one
        derivation. An empty list is not left out: it is an error, so that a list that happens to be empty never
        carries out what was only accepted.

        Args:
            ids: record ids; numbers are the names that they are written as.
            subjects: people whose records are all deleted.
            request: the request's UUID; None: a new one. Repeating it is harmless.
            regulation: the law that it invokes.
            received: when it was received: a time, a day, or either as RFC 3339 text; without a time zone it is in
                UTC. None: now.
            audit: audit the model before the request is completed.
            asked: when the person asked, from when the period for the answer counts; None: when it was received.
            with_duplicates: delete the other records with the payload of a selected one, byte for byte, too.

        Raises:
            UnknownRecordError: some of the names were never held here; all are listed, and nothing was deleted.
            AmbiguousNameError: a name means several records; nothing was deleted.
            RequestConflictError: ``request`` belongs to a request with other content; nothing was deleted.
            InputError: there is nothing to carry out, or a time cannot be meant; nothing was deleted.
            BackboneError: the backbone cannot be loaded, or has changed; nothing was deleted.
        """
        from lmeraser.unlearning.unlearn import unlearn

        if ids is None and subjects is None:
            if with_duplicates or asked is not None:
                raise InputError(
                    "Options of a new request, but no record or subject named",
                    got="nothing was deleted",
                    next_step="name records or subjects, or leave with_duplicates and asked out",
                )
            only = [str(request)] if request is not None else []
            return unlearn(self.session, only=only, audit=audit)
        draft = _draft(ids, subjects, request, regulation, received, asked, with_duplicates, audit)
        return unlearn(self.session, draft, audit=audit)

    def request(
        self,
        *,
        ids: Iterable[Name] | None = None,
        subjects: Iterable[Name] | None = None,
        request: str | UUID | None = None,
        regulation: Regulation = "other",
        received: date | str | None = None,
        audit: bool = False,
        asked: date | str | None = None,
        with_duplicates: bool = False,
        reference: str | None = None,
        now: bool = False,
    ) -> Request:
        """Accept a deletion request without carrying it out; the other arguments are those of `unlearn`.

        Requests are accepted while a model is being derived, too. From now on `predict` does not use the clusters
        of these records, unless quarantine is switched off. ``reference`` is your own name for the request, which
        is kept encrypted, and erased when it is closed, or `requests.reference_days` later. A service leaves a
        request alone for its grace period, in which it can be taken back, unless it is to be carried out ``now``.

        Raises:
            UnknownRecordError: some of the names were never held here; all of them are listed.
            AmbiguousNameError: a name means several records.
            RequestConflictError: ``request`` belongs to a request with other content, or to a cancelled one.
            InputError: nothing is named, or a time or the reference cannot be used.
        """
        draft = _draft(ids, subjects, request, regulation, received, asked, with_duplicates, audit)
        grace = timedelta() if now else timedelta(seconds=self.workspace.config.service.grace_period)
        draft = replace(draft, reference=reference, grace=grace)
        with self.workspace.request_transaction("request") as connection:
            return self.workspace.request_changes.accept(draft, now=self.workspace.clock(), connection=connection)

    def find(self, *, subject: Name | None = None, id: Name | None = None) -> Holdings:  # noqa: A002
        """What is held of a person, or under a record id, however it is spelled.

        Raises:
            InputError: not exactly one of ``subject`` and ``id`` is given.
        """
        from lmeraser.workspace.holdings import find

        if (subject is None) == (id is None):
            raise InputError("Neither or both of a person and a record named", next_step="give subject= or id=")
        kind: NameKind = "id" if subject is None else "subject"
        (name,) = Selector.of(ids=[id if subject is None else subject]).ids
        return find(self.workspace, kind, name)

    def list_subjects(self, *, search: str = "") -> list[SubjectLine]:
        """The people of whom records are held, sorted by name.

        Args:
            search: only those whose name contains this, whatever its case, accents and spaces.
        """
        from lmeraser.workspace.holdings import list_subjects

        return list_subjects(self.workspace, search=search)

    def list_records(
        self, *, subject: str | None = None, label: str | None = None, search: str = ""
    ) -> list[RecordLine]:
        """The records that are held, without their payloads, sorted by id.

        Args:
            subject: only those about this person, however the name is spelled.
            label: only those of this class.
            search: only those whose id or subject contains this, whatever its case, accents and spaces.
        """
        from lmeraser.workspace.holdings import list_records

        return list_records(self.workspace, subject=subject, label=label, search=search)

    def requests(self) -> list[Request]:
        """All deletion requests, the earliest due first."""
        return self.workspace.requests.all()

    def cancel(self, request: str | UUID, *, reason: str | None = None) -> Request:
        """Cancel a pending request.

        Args:
            request: its UUID.
            reason: why, for the ledger: withdrawn, unverified, mistake or other.

        Raises:
            InputError: there is no such request, it is not pending any more, or the reason is another one.
        """
        why = None if reason is None else parse_cancellation_reason(reason)
        with self.workspace.request_transaction("cancel") as connection:
            now = self.workspace.clock()
            return self.workspace.request_changes.cancel(connection, str(request), now=now, reason=why)

    def extend(self, request: str | UUID, *, reason: str) -> Request:
        """Extend the time for the answer to an open request, once, as its law allows.

        Args:
            request: its UUID.
            reason: why, for the ledger: complexity, number or, except under the GDPR, other.

        Raises:
            InputError: there is no such request, it is closed, late or extended already, or the reason is another
                one.
        """
        with self.workspace.request_transaction("extend") as connection:
            return self.workspace.request_changes.extend(
                connection, str(request), reason, now=self.workspace.clock()
            )

    def start(self, request: str | UUID) -> Request:
        """End the grace period of a pending request: the service carries it out next.

        Raises:
            InputError: there is no such request, or it is not pending.
        """
        with self.workspace.request_transaction("start") as connection:
            return self.workspace.request_changes.start_now(connection, str(request), now=self.workspace.clock())

    def attach_receipt(
        self,
        request: str | UUID,
        system: str,
        *,
        file: str | os.PathLike[str] | None = None,
        digest: str | None = None,
    ) -> list[Receipt]:
        """Attach the receipt of another system to a pending request, whose certificate will list it.

        Args:
            request: its UUID.
            system: name of the other system, for people; it must not name a person.
            file: the receipt, of which only the digest is kept; or
            digest: ``sha256:`` and 64 hexadecimal digits.

        Returns:
            All receipts that the request has now.

        Raises:
            InputError: there is no such request, it is not pending, not exactly one of ``file`` and ``digest`` is
                given, the file cannot be read, or the name cannot be used.
        """
        if (file is None) == (digest is None):
            raise InputError("Either file or digest is needed, not both", next_step="give one of them")
        found = Digest(digest) if digest is not None else Digest.of(read_file(as_path(file or "")))
        with self.workspace.request_transaction("attach") as connection:
            held = self.workspace.requests.require(str(request), connection)
            self.workspace.receipts.attach(connection, held, [Receipt(system, found)])
            return self.workspace.receipts.of(held.id, connection)

    def receipts(self, request: str | UUID) -> list[Receipt]:
        """The receipts of other systems that are attached to a request.

        Raises:
            InputError: there is no such request.
        """
        return self.workspace.receipts.of(self.workspace.requests.require(str(request)).id)

    def certificate(self, request: str | UUID, form: CertificateForm = "json") -> bytes:
        """The certificate of a completed request, verified.

        Args:
            request: its UUID.
            form: "json", signed; or "text" or "pdf", made from the JSON for people.

        Raises:
            InputError: there is no such request, it is not completed, or the file is missing.
            VerificationError: the stored certificate was changed, or is that of another request.
            ConfigError: the library that writes PDF files is not installed.
        """
        from lmeraser.workspace.certificate_forms import read_certificate

        return read_certificate(self.workspace, self.workspace.requests.require(str(request)), form)

    def relabel(self, label: str, *, ids: Iterable[Name]) -> CompletionReport:
        """Give records another label and bring the model up to date.

        Args:
            label: the class of the records from now on.
            ids: their record ids.

        Raises:
            InputError: the workspace has no such class, or no record is named.
            UnknownRecordError: some of the ids are not held; nothing was changed.
            AmbiguousNameError: some of the ids mean several records; nothing was changed.
        """
        from lmeraser.unlearning.relabel import relabel

        return relabel(self.session, label, ids=Selector.of(listed(ids, "ids")).ids)

    def check_ledger(self, *, head: str | os.PathLike[str] | None = None) -> LedgerReport:
        """Check the ledger's chain and compare it with what is held.

        Args:
            head: file with a head that was exported earlier, which the ledger has to contain.

        Raises:
            VerificationError: the chain is broken; the error says where.
        """
        from lmeraser.evidence.hash_chain import LedgerHead
        from lmeraser.workspace.ledger_check import check_ledger

        return check_ledger(self.workspace, head=LedgerHead.read(as_path(head)) if head is not None else None)

    def residue(
        self, probes: Iterable[str | os.PathLike[str]] = (), *, ids: Iterable[Name] = (), features: bool = True
    ) -> ResidueReport:
        """Search every byte of the workspace for content of files that you still hold.

        Args:
            probes: files.
            ids: record ids and subjects, searched for as text.
            features: also search for the features of probes that are payloads of records (images, texts); this
                loads the backbone.

        Raises:
            InputError: there is nothing to search for, or a file cannot be read.
        """
        from lmeraser.unlearning.residue import search

        return search(
            self.session,
            [as_path(probe) for probe in listed(probes, "probes")],
            [str(name) for name in listed(ids, "ids")],
            features=features,
        )

    def draw(self) -> list[Path]:
        """Draw what there is to see of the served model, and of requests over time.

        Clusters (of a single one, classes) as rows of pictures, where records have pictures, and sizes of
        clusters; records on the plane on which the global head separates the classes; records by class; the
        confusion matrix of the last evaluation; requests by the ledger. The files are in the workspace's
        ``reports``, which every generation purges.

        Returns:
            The files.

        Raises:
            NoModelError: nothing was trained yet.
        """
        from lmeraser.inference.draw_model import draw_model

        with self.workspace.writing("draw"):
            return draw_model(self.workspace, has_pictures=self.payload_format.has_pictures)

    def audit(self, *, clusters: int | None = None, spot_check: bool = False) -> AuditReport:
        """Derive the model again from scratch and compare every digest.

        Args:
            clusters: tune only this many clusters again, drawn at random; None: all of them. Where clusters are
                tuned together, all are checked anyway.
            spot_check: look at nothing but the drawn clusters and their records.

        Raises:
            NoModelError: there is no model, or records or settings changed since it was derived.
            InputError: ``clusters`` is not positive, or a spot check is not possible.
        """
        from lmeraser.unlearning.audit import audit

        return audit(self.session, clusters=clusters, spot_check=spot_check)

    def sign_audit(self, report: AuditReport) -> bytes:
        """What an audit verified, as a signed in-toto Simple Verification Result in a DSSE envelope.

        Args:
            report: of an audit that found no difference.

        Raises:
            VerificationError: the audit found a difference, or another generation is served by now.
        """
        from lmeraser.unlearning.audit import sign_result

        return sign_result(self.workspace, report).to_bytes()

    def cost(self, *, hits: int = 8) -> Cost:
        """The cost of requests on the current records and settings.

        Args:
            hits: how many requests that shape the partition to simulate.

        Raises:
            InputError: there are no records.
        """
        from lmeraser.unlearning.cost_simulation import simulate

        return simulate(self.session, hits=hits)

    def status(self) -> Status:
        """The state of the workspace."""
        from lmeraser.workspace.status import status

        return status(self.workspace)

    def purge(self, *, dry_run: bool = False) -> list[str]:
        """Remove what the served generation does not use, and rewrite the database.

        Args:
            dry_run: remove nothing.

        Returns:
            The files and objects that were removed, or that would be.
        """
        from lmeraser.workspace.purge import purge

        with self.workspace.writing("purge"):
            return purge(self.workspace, dry_run=dry_run, compact=True)

    def predict(self, queries: Iterable[Query]) -> Predictions:
        """Classify images, texts or vectors.

        Args:
            queries: of each image, the path of a file or its bytes, an image of Pillow, or an array of pixels
                (uint8, [h, w], [h, w, 3] or [h, w, 4]); one that Pillow has opened gets the answer that its file
                gets. Each text as a string, or the path (`pathlib.Path`) of a text file. Each vector as an array
                or a sequence of numbers; an array [n, length] is a list of vectors.

        Returns:
            A list in the order of the queries; its ``to_frame()`` is a DataFrame.

        Raises:
            InputError: this is one query and no list, or something else.
            ImageError: a file cannot be decoded; the error names it.
            NoModelError: there is nothing to predict with.
        """
        from lmeraser.inference.queries import predict

        values = listed(queries, "queries")
        return predict(self.predictor(), values, self.session.progress)

    def predict_proba(self, queries: Iterable[Query]) -> NDArray[np.float32]:
        """Probabilities of all classes, float32 [n, classes], in the order of `classes`.

        Args:
            queries: as of `predict`.

        Returns:
            One row for each query. Classes that were added after the served model was derived have probability 0.

        Raises:
            InputError: as `predict`, as are the next two.
            ImageError: a file cannot be decoded.
            NoModelError: there is nothing to predict with.
        """
        from lmeraser.inference.queries import predict_proba

        values = listed(queries, "queries")
        return predict_proba(self.predictor(), values, len(self.classes), self.session.progress)

    def predict_top_k(self, queries: Iterable[Query], k: int = 5) -> list[list[tuple[str, float]]]:
        """The most probable classes of each query with their probabilities, the most probable first.

        Args:
            queries: as of `predict`.
            k: how many classes; all, if there are fewer.

        Raises:
            InputError: as `predict`, as are the next two; or ``k`` is no positive number.
            ImageError: a file cannot be decoded.
            NoModelError: there is nothing to predict with.
        """
        from lmeraser.inference.queries import check_k, top_k

        check_k(k)
        return top_k(self.predict_proba(queries), self.classes, k)

    def evaluate(
        self,
        source: str | os.PathLike[str] | Dataset | IterableDataset | Any,
        *,
        split: str | None = None,
        columns: Columns | None = None,
        linear: bool = True,
        on_embedding: bool = True,
    ) -> EvaluationReport:
        """Accuracy on labelled records, beside that of linear classifiers.

        Args:
            source: as of `add`, as are ``split`` and ``columns``.
            split: of a dataset, or a subfolder of a folder.
            columns: where payload and label are.
            linear: also fit linear classifiers, on the retained records.
            on_embedding: one of them on the embedding in use, which is wider than the features and takes longer.

        Raises:
            NoModelError: there is nothing to predict with.
            SourceError: payloads that cannot be read, missing labels, or labels outside the known classes; all are
                listed.
            InputError: the source cannot be read, or lacks a column.
        """
        from lmeraser.data.sources import open_source
        from lmeraser.inference.evaluate import evaluate

        opened = open_source(source, split=split, columns=columns, payloads=self.payload_format)
        return evaluate(self.session, opened, linear=linear, on_embedding=on_embedding)

    def predictor(self) -> Predictor:
        """The served model in memory; it does not follow later generations.

        Raises:
            NoModelError: there is nothing to predict with.
            CorruptError: an artifact is missing or damaged.
        """
        from lmeraser.inference.served import served_predictor

        return served_predictor(self.session)

    def export(
        self,
        out: str | os.PathLike[str],
        *,
        format: ExportFormat = "folder",  # noqa: A002 - the option's name
        with_backbone: bool = False,
        license: str | None = None,  # noqa: A002 - the hub's word
        holder_url: str | None = None,
        holder_contact: str | None = None,
        oms_key: str | os.PathLike[str] | None = None,
    ) -> ExportReport:
        """Copy the served model to a folder that predicts without the workspace.

        Args:
            out: the folder, new or empty; `lmeraser.load_predictor` loads it.
            format: "folder"; or, of a model with one head, "onnx" for one graph that onnxruntime runs, or
                "transformers" for a folder that its Auto classes load.
            with_backbone: copy the backbone's files, too.
            license: SPDX identifier of the licence of the export, for its model card.
            holder_url: where the service tells whoever gets it that it is recalled.
            holder_contact: whom to tell otherwise.
            oms_key: private key (PEM, P-256, P-384 or P-521) to also sign it with, in the format of OpenSSF Model
                Signing.

        Raises:
            NoModelError: nothing was trained yet.
            RequestConflictError: the model holds the influence of records that are to be deleted.
            InputError: the folder holds something or is in the workspace, the holder may not be called, the format
                does not fit the model, or the key cannot sign.
        """
        from lmeraser.inference.export.folder import ExportOptions, export_folder
        from lmeraser.workspace.exports import Holder

        holder = Holder(holder_url, holder_contact)
        own_key = None if oms_key is None else Path(oms_key)
        options = ExportOptions(format, with_backbone, license, holder, own_key)
        return export_folder(self.session, as_path(out), options)

    def exports(self) -> list[HeldCopy]:
        """The copies of the model outside of the workspace, and the influence that each still holds."""
        return self.workspace.exports.all()

    def export_statement(self) -> bytes:
        """What has become of all copies until now, as a signed in-toto statement in a DSSE envelope."""
        from lmeraser.evidence.recall_statement import recall_statement

        workspace = self.workspace
        made = recall_statement(workspace.ledger.entries(), now=workspace.clock())
        return made.sign(workspace.signing_key).to_bytes()

    def tell_export(self, export: str | UUID) -> HeldCopy:
        """Note that the holder of a recalled copy was told what was erased, by other means than the service.

        Raises:
            InputError: there is no such copy, or it is not recalled.
        """
        exports, now = self.workspace.exports, self.workspace.clock()
        held = exports.require(str(export))
        if held.copy.state != "recalled":
            raise InputError(
                "Nothing to tell the holder of this copy",
                got=f"its state is {held.copy.state!r}",
                next_step="'lmeraser exports' lists which copies are recalled",
            )
        with self.workspace.request_transaction("exports") as connection:
            exports.told(connection, held.copy, now=now)
        return exports.require(str(export))

    def confirm_export(self, export: str | UUID) -> HeldCopy:
        """Note that a copy is deleted, as its holder confirms; harmless to repeat.

        Raises:
            InputError: there is no such copy.
        """
        exports, now = self.workspace.exports, self.workspace.clock()
        with self.workspace.request_transaction("exports") as connection:
            exports.confirm(connection, str(export), now=now)
        return exports.require(str(export))

    def quarantined(self) -> frozenset[int]:
        """Numbers of the served model's clusters that are in quarantine, so that predictions do not use them.

        Raises:
            NoModelError: nothing was trained yet.
        """
        from lmeraser.inference.quarantine import current_scope

        return current_scope(self.workspace, self.workspace.generations.require()).clusters

    def close(self) -> None:
        """Release the workspace's database and stop workers."""
        self.session.close()

    def __repr__(self) -> str:
        """The folder; reads nothing."""
        return f"{type(self).__name__}({str(self.workspace.root)!r})"

    def _repr_html_(self) -> str | None:
        """The state of the workspace for notebooks; None if it cannot be read, so that they show the folder."""
        try:
            status = self.status()
        except LmeraserError:
            return None
        facts = {
            "records": f"{status.records} ({self.payload_format.noun}s), of {status.subjects} known subjects",
            "classes": str(len(status.classes)),
            "backbone": status.backbone,
            "model": status.model_digest or "not trained yet",
            "up to date": "yes" if status.up_to_date else "no",
            "open requests": str(status.open_requests),
        }
        rows = "".join(f"<tr><th>{name}</th><td>{escape(value)}</td></tr>" for name, value in facts.items())
        return f"<table><caption>{escape(repr(self))}</caption>{rows}</table>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def executor(self) -> LocalExecutor:
        """The executor of this process with the workspace's backbone, loaded at first use."""
        return self.session.executors.local()


def _draft(
    ids: Iterable[Name] | None,
    subjects: Iterable[Name] | None,
    request: str | UUID | None,
    regulation: Regulation,
    received: date | str | None,
    asked: date | str | None,
    with_duplicates: bool,
    audit: bool = False,
) -> RequestDraft:
    """The request that the arguments of `Eraser.plan`, `Eraser.unlearn` and `Eraser.request` describe."""
    return RequestDraft(
        selector=Selector.of(listed(ids, "ids"), listed(subjects, "subjects"), duplicates=with_duplicates),
        request_id=None if request is None else str(request),
        regulation=parse_regulation(regulation),
        received=None if received is None else to_moment(received),
        audit=audit,
        asked=None if asked is None else to_moment(asked),
    )
