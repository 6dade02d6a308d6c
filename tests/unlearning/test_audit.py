"""An audit finds whatever differs from deriving the model again, and nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from conftest import DIGIT_COLUMNS, Template, _train_tiny, digits, exchange_payload, forget, tiny_config
from fake import Fake
from lmeraser import Eraser
from lmeraser.core.digests import Digest
from lmeraser.data.records import Records
from lmeraser.errors import InputError, NoModelError, VerificationError


def _train_fake(root: Path) -> None:
    Eraser.create(root, tiny_config()).close()
    with opened(root) as eraser:
        eraser.add(digits(range(40)), columns=DIGIT_COLUMNS)
        eraser.train()


def opened(root: Path) -> Eraser:
    eraser = Eraser(root)
    eraser.session.executors.use(Fake())
    return eraser


@pytest.fixture
def real(template: Template, tmp_path: Path) -> Iterator[Eraser]:
    """A trained workspace of 40 digits."""
    with Eraser(shutil.copytree(template("tiny", _train_tiny), tmp_path / "real")) as one:
        yield one


@pytest.fixture
def eraser(template: Template, tmp_path: Path) -> Iterator[Eraser]:
    """The same with an executor whose results are digests of its inputs, for what does not depend on numbers."""
    with opened(shutil.copytree(template("audited", _train_fake), tmp_path / "workspace")) as one:
        yield one


def manifest(eraser: Eraser) -> Path:
    folder = eraser.workspace.root / "generations"
    return folder / (folder / "current").read_text().split()[0]


def edit(eraser: Eraser, change: Any) -> None:
    path = manifest(eraser)
    values = json.loads(path.read_bytes())
    change(values)
    path.write_text(json.dumps(values))
    # A dishonest operator covers the traces.
    (path.parent / "current").write_text(f"{path.name} {Digest.of(path.read_bytes())}\n")


def test_an_honest_model_is_identical(real: Eraser) -> None:
    report = real.audit()
    assert report.identical
    assert report.same_environment
    assert report.differences == ()
    assert report.clusters_checked == report.clusters == real.status().clusters
    assert report.records == 40


def test_an_audit_leaves_the_workspace_as_it_was(eraser: Eraser) -> None:
    eraser.status()  # opens the database, which makes files of its own
    names = {path for path in eraser.workspace.root.rglob("*") if path.is_file()}
    revision = eraser.workspace.records.changes.revision
    eraser.audit()
    assert {path for path in eraser.workspace.root.rglob("*") if path.is_file()} == names
    assert eraser.workspace.records.changes.revision == revision


def test_some_clusters_drawn_at_random(eraser: Eraser) -> None:
    report = eraser.audit(clusters=1)
    assert report.identical
    assert report.clusters_checked == 1


def test_at_least_one_cluster_is_checked(eraser: Eraser) -> None:
    with pytest.raises(InputError, match="at least 1"):
        eraser.audit(clusters=0)


def test_an_altered_artifact_is_found(real: Eraser) -> None:
    path = max((real.workspace.root / "artifacts").rglob("*.safetensors"), key=lambda p: p.stat().st_size)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    report = real.audit()
    assert not report.identical
    assert len(report.differences) == 1
    assert path.stem[:12] in report.differences[0]


def test_a_missing_artifact_is_found(eraser: Eraser) -> None:
    model = eraser.workspace.generations.require()
    name = model.stages["cluster 0"].artifact.hex
    (eraser.workspace.root / "artifacts" / name[:2] / f"{name}.safetensors").unlink()
    assert not eraser.audit().identical


def test_a_constituent_of_another_cluster_is_found(real: Eraser) -> None:
    def swap(values: Any) -> None:
        first, second = values["clusters"][:2]
        first["constituent"], second["constituent"] = second["constituent"], first["constituent"]

    edit(real, swap)
    report = real.audit()
    assert [line.split(":")[0] for line in report.differences] == ["cluster 0", "cluster 1"]


def test_a_model_that_still_knows_a_deleted_record_is_found(eraser: Eraser, tmp_path: Path) -> None:
    """A cheat: the record is deleted from the database, but the old model is passed off as up to date."""
    forget(eraser.workspace.records, ["digit-0004"])
    edit(eraser, lambda values: values.update(revision=eraser.workspace.records.changes.revision))
    assert eraser.status().up_to_date
    report = eraser.audit()
    assert not report.identical
    assert any(line.startswith("cluster") for line in report.differences)


def test_a_deleted_image_in_the_row_of_another_record_is_found(eraser: Eraser) -> None:
    """A cheat: the image of the deleted record stays, and a model is derived that still knows it."""
    records = eraser.workspace.records
    (image,) = records.payloads(["digit-0004"])
    exchange_payload(records, "digit-0007", image)
    report = eraser.audit()
    assert not report.identical
    assert report.differences == ("payloads: 1 are missing or not those that were added with their records",)
    assert report.clusters_checked == 0


def test_a_cluster_too_many_or_too_few_is_found(eraser: Eraser) -> None:
    edit(eraser, lambda values: values["clusters"].pop())
    assert any("derived but not served" in line for line in eraser.audit().differences)


def test_another_backbone_is_found(eraser: Eraser) -> None:
    edit(eraser, lambda values: values.update(backbone=Digest.of(b"another")))
    assert any(line.startswith("backbone") for line in eraser.audit().differences)


def test_parts_from_another_environment_are_said(eraser: Eraser) -> None:
    def elsewhere(values: Any) -> None:
        values["clusters"][0]["constituent"]["fingerprint"] = Digest.of(b"elsewhere")

    edit(eraser, elsewhere)
    assert not eraser.audit().same_environment
    assert len(eraser.status().fingerprints) == 2
    assert eraser.status().fingerprint is None


def test_a_model_that_is_out_of_date_is_not_audited(eraser: Eraser) -> None:
    eraser.add(digits([50]), columns=DIGIT_COLUMNS)
    with pytest.raises(NoModelError, match="up to date"):
        eraser.audit()


# --- spot checks -------------------------------------------------------------------------------------------


def test_a_spot_check_looks_at_the_drawn_clusters_alone(real: Eraser, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {cluster.number: cluster.records for cluster in real.workspace.generations.require().clusters}
    original = Records.mismatched
    looked_at = list[int]()

    def mismatched(records: Records, ids: Sequence[str]) -> list[str]:
        looked_at.append(len(ids))
        return original(records, ids)

    monkeypatch.setattr(Records, "mismatched", mismatched)
    monkeypatch.setattr(Records, "index", None)
    report = real.audit(clusters=1, spot_check=True)
    assert report.identical, report.differences
    assert looked_at == [report.records_checked]
    assert report.records_checked in sizes.values()
    assert (report.clusters_checked, report.records, report.to_json()["records_checked"]) == (1, 40, looked_at[0])
    with pytest.raises(VerificationError, match="spot check"):
        real.sign_audit(report)


def test_a_spot_check_of_every_cluster_finds_what_an_audit_finds_in_clusters(real: Eraser) -> None:
    def swap(values: Any) -> None:
        first, second = values["clusters"][:2]
        first["constituent"], second["constituent"] = second["constituent"], first["constituent"]

    edit(real, swap)
    found = real.audit(clusters=1000, spot_check=True).differences
    assert [line.split(":")[0] for line in found] == ["cluster 0", "cluster 1"]


def test_a_spot_check_finds_a_record_that_was_put_elsewhere(eraser: Eraser) -> None:
    model = eraser.workspace.generations.require()
    derived = eraser.workspace.records.derived
    here, there = model.clusters[0].path, model.clusters[1].path
    moved = next(iter(derived.trie_keys_under(model.partition.key, here)))
    sampled = moved in derived.sampled(model.partition.key)
    derived.store_trie_keys({moved: there}, partition=model.partition.key, sampled=sampled)
    found = eraser.audit(clusters=1000, spot_check=True).differences
    assert "0 of which belong elsewhere" in found[0]
    assert "1 of which belong elsewhere" in found[1]
    derived.store_trie_keys({moved: here}, partition=model.partition.key, sampled=sampled)
    shaped = eraser.sampled_ids()[0]
    trie_key = derived.trie_keys(model.partition.key, [shaped])
    derived.store_trie_keys(trie_key, partition=model.partition.key, sampled=False)
    found = eraser.audit(clusters=1000, spot_check=True).differences
    assert [line.split(":")[0] for line in found] == ["partition"]


def test_a_spot_check_finds_changed_payloads_and_damaged_parts(eraser: Eraser) -> None:
    path = max((eraser.workspace.root / "artifacts").rglob("*.safetensors"), key=lambda p: p.stat().st_size)
    path.write_bytes(path.read_bytes()[:-1])
    assert "stored bytes" in eraser.audit(clusters=1000, spot_check=True).differences[0]
    records = eraser.workspace.records
    exchange_payload(records, "digit-0007", *records.payloads(["digit-0004"]))
    assert eraser.audit(clusters=1000, spot_check=True).differences == (
        "payloads: 1 are missing or not those that were added with their records",
    )


def test_a_spot_check_says_how_many_clusters(eraser: Eraser) -> None:
    with pytest.raises(InputError, match=r"not possible.*no number"):
        eraser.audit(spot_check=True)
