"""Digests of a manifest: of the model, which says what it is, and of the file, which says nothing without it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from make_evidence import NEW, OLD

from lmeraser.core.digests import Digest
from lmeraser.models.clusters import ClusterList
from lmeraser.models.manifest import Model

MODEL = Model.model_validate(OLD.model_dump(by_alias=True) | {"nonce": "0a" * 32})


def test_a_copy_has_the_digests_of_its_own_fields() -> None:
    before = MODEL.model_digest, MODEL.public_digest, tuple(MODEL.stages)
    copied = MODEL.model_copy(update={"classes": ("other",), "clusters": NEW.clusters})
    assert copied.model_digest != before[0]
    assert copied.public_digest != before[1]
    assert tuple(copied.stages) != before[2]
    assert (MODEL.model_digest, MODEL.public_digest) == before[:2]
    assert copied.model_copy(update={"classes": MODEL.classes, "clusters": MODEL.clusters}) == MODEL


def test_the_public_digest_is_that_of_the_stored_bytes() -> None:
    data = MODEL.to_bytes()
    assert Model.parse(data) == MODEL
    assert Model.parse(data).public_digest == MODEL.public_digest == Digest.of(data)
    spaced = data.replace(b"\n", b"\n ")
    assert Model.parse(spaced).public_digest == Digest.of(spaced), "whichever version wrote them"


def test_a_nonce_changes_what_the_ledger_sees_and_nothing_else() -> None:
    other = MODEL.model_copy(update={"nonce": "0b" * 32})
    assert other.model_digest == MODEL.model_digest
    assert other.public_digest != MODEL.public_digest
    old = MODEL.model_copy(update={"nonce": None})
    assert old.public_digest == old.model_digest == Model.parse(old.to_bytes()).public_digest


TEXTS = st.one_of(
    st.text(max_size=8), st.sampled_from(['"clusters":[]', '\\"clusters\\":[]', "é", "\u2028", "😀"])
)


@given(st.lists(TEXTS, min_size=1, max_size=3), st.dictionaries(TEXTS, TEXTS, max_size=2), st.integers(0, 3))
def test_the_model_digest_is_that_of_the_canonical_json_of_its_parts(
    classes: list[str], settings: dict[str, str], clusters: int
) -> None:
    cluster, untuned = OLD.clusters[0], OLD.clusters[0].model_copy(update={"constituent": None, "path": "7/01"})
    every = ClusterList((cluster, untuned, cluster)[:clusters])
    for global_head in (None, OLD.partition):
        update = {"classes": tuple(classes), "settings": settings, "clusters": every, "global_head": global_head}
        model = OLD.model_copy(update=update)
        parts = {
            "settings": settings,
            "classes": classes,
            "backbone": model.backbone,
            "partition": model.partition.artifact,
            "clusters": [[c.path, c.constituent.artifact if c.constituent else None] for c in every],
        } | ({"global_head": global_head.artifact} if global_head else {})
        assert model.model_digest == Digest.of_json(parts)
