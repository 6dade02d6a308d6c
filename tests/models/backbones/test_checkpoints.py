"""A converted checkpoint gives the features of the network that it was written from; nothing else is taken.

The networks of the paper's code are written down again here, in plain torch, from their papers and the names of
their tensors: ViT (Dosovitskiy et al., ICLR 2021) and Swin (Liu et al., ICCV 2021).
"""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from safetensors.torch import save_file
from torch import Tensor

from conftest import NOW, Run
from lmeraser.config.schema import parse
from lmeraser.core.digests import Digest
from lmeraser.errors import BackboneError, InputError
from lmeraser.models.backbones.checkpoints import PUBLISHED_CHECKPOINTS, convert
from lmeraser.models.modalities import Backbone, load_backbone

State = dict[str, Tensor]
SIZE, CLASSES = 32, 5
VIT: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "patch_size": 8,
    "layer_norm_eps": 1e-6,
}
SWIN: dict[str, Any] = {
    "embed_dim": 12, "depths": [2, 2], "num_heads": [2, 3], "window_size": 4, "patch_size": 4, "mlp_ratio": 2.0
}  # fmt: skip


# --- tensors under the names of timm ------------------------------------------------------------------------


class Drawn(State):
    """Random tensors by name."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self._generator = torch.Generator().manual_seed(seed)

    def draw(self, name: str, *shape: int, scale: float = 0.3) -> None:
        self[name] = torch.randn(shape, generator=self._generator) * scale

    def layer(self, name: str, out: int, inside: int) -> None:
        self.draw(f"{name}.weight", out, inside)
        self.draw(f"{name}.bias", out)

    def norm(self, name: str, size: int) -> None:
        self.draw(f"{name}.weight", size)
        self.draw(f"{name}.bias", size)

    def block(self, name: str, width: int, hidden: int) -> None:
        self.norm(f"{name}.norm1", width)
        self.layer(f"{name}.attn.qkv", 3 * width, width)
        self.layer(f"{name}.attn.proj", width, width)
        self.norm(f"{name}.norm2", width)
        self.layer(f"{name}.mlp.fc1", hidden, width)
        self.layer(f"{name}.mlp.fc2", width, hidden)


def vit_state(*, representation: bool) -> State:
    state = Drawn()
    state.draw("cls_token", 1, 1, 24)
    state.draw("pos_embed", 1, 17, 24)
    state.draw("patch_embed.proj.weight", 24, 3, 8, 8, scale=0.05)
    state.draw("patch_embed.proj.bias", 24)
    for number in range(2):
        state.block(f"blocks.{number}", 24, 40)
    state.norm("norm", 24)
    if representation:
        state.layer("pre_logits.fc", 24, 24)
    state.layer("head", CLASSES, 24)
    return dict(state)


def swin_state(*, late: bool = False) -> State:
    """Downsampling at the end of a stage, or as later versions of timm have it at the beginning of the next."""
    state = Drawn()
    state.draw("patch_embed.proj.weight", 12, 3, 4, 4, scale=0.1)
    state.draw("patch_embed.proj.bias", 12)
    state.norm("patch_embed.norm", 12)
    for stage, (width, heads, window) in enumerate([(12, 2, 4), (24, 3, 4)]):
        for number in range(2):
            name = f"layers.{stage}.blocks.{number}"
            state.block(name, width, 2 * width)
            state.draw(f"{name}.attn.relative_position_bias_table", (2 * window - 1) ** 2, heads)
    down = f"layers.{1 if late else 0}.downsample"
    state.norm(f"{down}.norm", 48)
    state.draw(f"{down}.reduction.weight", 24, 48)
    state.norm("norm", 24)
    state.layer("head.fc" if late else "head", CLASSES, 24)
    if not late:
        state["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(16, 16, dtype=torch.int64)
        state["layers.0.blocks.1.attn_mask"] = torch.zeros(4, 16, 16)
    return dict(state)


# --- the networks, written down again -----------------------------------------------------------------------


def linear(state: State, name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state.get(f"{name}.bias", torch.zeros(()))


def norm(state: State, name: str, x: Tensor, epsilon: float) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    scaled = centred / (centred.square().mean(dim=-1, keepdim=True) + epsilon).sqrt()
    return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]


def attend(state: State, name: str, x: Tensor, heads: int, scores: Tensor | float = 0.0) -> Tensor:
    """Attention among tokens [n, t, d]; ``scores`` are added, [heads, t, t]."""
    joint = linear(state, f"{name}.qkv", x)
    width = x.shape[-1]
    answers = []
    for head in range(heads):
        size = width // heads
        q, k, v = (joint[..., part * width + head * size :][..., :size] for part in range(3))
        added = scores[head] if isinstance(scores, Tensor) else scores
        answers.append((q @ k.mT / size**0.5 + added).softmax(dim=-1) @ v)
    return linear(state, f"{name}.proj", torch.cat(answers, dim=-1))


def mlp(state: State, name: str, x: Tensor) -> Tensor:
    return linear(state, f"{name}.fc2", F.gelu(linear(state, f"{name}.fc1", x)))


def vit(state: State, images: Tensor) -> Tensor:
    """Features as the paper's code takes them: the class token after the last norm, then ``pre_logits``."""
    kernel, bias = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    patches = F.conv2d(images, kernel, bias, stride=8).flatten(2).mT
    x = torch.cat([state["cls_token"].expand(len(images), -1, -1), patches], dim=1) + state["pos_embed"]
    for number in range(2):
        name = f"blocks.{number}"
        x = x + attend(state, f"{name}.attn", norm(state, f"{name}.norm1", x, 1e-6), 3)
        x = x + mlp(state, f"{name}.mlp", norm(state, f"{name}.norm2", x, 1e-6))
    token = norm(state, "norm", x, 1e-6)[:, 0]
    return linear(state, "pre_logits.fc", token).tanh() if "pre_logits.fc.weight" in state else token


def swin(state: State, images: Tensor) -> Tensor:
    """Features as the paper's code takes them: the mean of the tokens after the last norm."""
    kernel, bias = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    x = F.conv2d(images, kernel, bias, stride=4).permute(0, 2, 3, 1)
    x = norm(state, "patch_embed.norm", x, 1e-5)
    for stage, heads in enumerate([2, 3]):
        if stage == 1:
            x = merge(state, "layers.1" if "layers.1.downsample.norm.weight" in state else "layers.0", x)
        for number in range(2):
            name = f"layers.{stage}.blocks.{number}"
            shift = 2 if number % 2 and x.shape[1] > 4 else 0
            x = x + windows(state, f"{name}.attn", norm(state, f"{name}.norm1", x, 1e-5), heads, shift)
            x = x + mlp(state, f"{name}.mlp", norm(state, f"{name}.norm2", x, 1e-5))
    return norm(state, "norm", x, 1e-5).mean(dim=(1, 2))


def merge(state: State, name: str, x: Tensor) -> Tensor:
    four = torch.cat([x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)], dim=-1)
    return linear(state, f"{name}.downsample.reduction", norm(state, f"{name}.downsample.norm", four, 1e-5))


def windows(state: State, name: str, x: Tensor, heads: int, shift: int, side: int = 4) -> Tensor:
    """Attention within windows of a rolled grid; tokens that were no neighbours before do not meet."""
    count, size = len(x), x.shape[1]
    rolled, result = x.roll((-shift, -shift), dims=(1, 2)), torch.empty_like(x)
    cells = [(row, column) for row in range(side) for column in range(side)]
    table = state[f"{name}.relative_position_bias_table"]
    far = 2 * side - 1
    places = [[(a - c + side - 1) * far + (b - d + side - 1) for c, d in cells] for a, b in cells]
    bias = table[torch.tensor(places)]
    for top in range(0, size, side):
        for left in range(0, size, side):
            window = rolled[:, top : top + side, left : left + side].reshape(count, side * side, -1)
            wrapped = [(top + row >= size - shift, left + column >= size - shift) for row, column in cells]
            apart = torch.tensor([[one != other for other in wrapped] for one in wrapped])
            scores = bias.permute(2, 0, 1).masked_fill(apart & (shift > 0), -torch.inf)
            seen = attend(state, name, window, heads, scores)
            result[:, top : top + side, left : left + side] = seen.reshape(count, side, side, -1)
    return result.roll((shift, shift), dims=(1, 2))


# --- conversion ---------------------------------------------------------------------------------------------

STATES: dict[str, tuple[str, Callable[[], State], Callable[[State, Tensor], Tensor]]] = {
    "vit-b-22k": ("vit-b-22k", lambda: vit_state(representation=True), vit),
    "vit-b-1k": ("vit-b-1k", lambda: vit_state(representation=False), vit),
    "swin-b-22k": ("swin-b-22k", swin_state, swin),
    "swin of later timm": ("swin-b-1k", lambda: swin_state(late=True), swin),
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published networks, but tiny."""
    for name, published in PUBLISHED_CHECKPOINTS.items():
        config = VIT if published.family == "vit" else SWIN
        monkeypatch.setitem(PUBLISHED_CHECKPOINTS, name, dataclasses.replace(published, config=config, size=SIZE))


def known(monkeypatch: pytest.MonkeyPatch, arch: str, file: Path) -> Path:
    """Let a file be the published one."""
    md5 = hashlib.md5(file.read_bytes()).hexdigest()
    monkeypatch.setitem(PUBLISHED_CHECKPOINTS, arch, dataclasses.replace(PUBLISHED_CHECKPOINTS[arch], md5=md5))
    return file


def saved(path: Path, value: Any) -> Path:
    torch.save(value, path)
    return path


def load(folder: Path, **backbone: Any) -> Backbone:
    return load_backbone(
        parse({"backbone": {"name": str(folder), "image_size": SIZE, "micro_batch": 3, **backbone}})
    )


@pytest.mark.parametrize("what", STATES)
def test_features_are_those_of_the_papers_code(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arch, state_of, network = STATES[what]
    state = state_of()
    file = known(monkeypatch, arch, saved(tmp_path / "checkpoint.pth", {"model": state}))
    origin = convert(file, tmp_path / "out", arch, clock=lambda: NOW)
    backbone = load(tmp_path / "out")
    images = backbone.probe(1)
    expected = network(state, images)
    assert expected.std() > 0.05
    torch.testing.assert_close(backbone.features(images), expected, rtol=1e-4, atol=1e-5)
    head = state["head.fc.weight" if "head.fc.weight" in state else "head.weight"]
    assert backbone.class_vectors is not None
    np.testing.assert_array_equal(backbone.class_vectors, head.numpy())
    white = backbone.place(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)).flatten().tolist()
    imagenet = [(1 - m) / s for m, s in ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))]
    assert white == pytest.approx([1.0] * 3 if arch.startswith("vit") else imagenet)
    assert (origin["backbone"], origin["published_as"], origin["file"]) == (
        backbone.digest,
        arch,
        "checkpoint.pth",
    )
    assert (origin["checked"][:3], origin["classifier"]) == ("MD5", "as in the file")
    assert origin["file_sha256"] == Digest.of(file.read_bytes())


def test_the_class_token_can_be_had_without_what_follows_it(tmp_path: Path) -> None:
    state = vit_state(representation=True)
    convert(saved(tmp_path / "c.pth", state), tmp_path / "out", "vit-b-22k", unverified=True)
    token = load(tmp_path / "out", pooling="cls")
    images = token.probe(1)
    bare = {name: tensor for name, tensor in state.items() if not name.startswith("pre_logits")}
    torch.testing.assert_close(token.features(images), vit(bare, images), rtol=1e-4, atol=1e-5)
    assert token.class_vectors is None, "they belong to other features"


@pytest.mark.parametrize("wrapped", ["plain", "module", "model", "state_dict", "both", "safetensors"])
def test_the_containers_of_the_papers_code_are_opened(tmp_path: Path, wrapped: str) -> None:
    state, file = swin_state(late=True), tmp_path / "c.pth"
    if wrapped == "safetensors":
        save_file(state, tmp_path / "c.safetensors")
        file = tmp_path / "c.safetensors"
    else:
        held = {"plain": state, "both": {"module": {"model": state}}}.get(wrapped, {wrapped: state})
        torch.save(held, file)
    origin = convert(file, tmp_path / "out", "swin-b-22k", unverified=True)
    assert (origin["checked"], origin["class_vectors"]) == ("unverified", CLASSES)


def test_an_empty_classifier_is_left_out_and_told(tmp_path: Path) -> None:
    state = vit_state(representation=True)
    state |= {name: torch.zeros_like(tensor) for name, tensor in state.items() if name.startswith("head.")}
    origin = convert(saved(tmp_path / "c.pth", state), tmp_path / "out", "vit-b-22k", unverified=True)
    assert (origin["class_vectors"], origin["classifier"][:8]) == (0, "left out")
    assert load(tmp_path / "out").class_vectors is None


def test_another_file_than_the_published_one_is_an_error_unless_it_is_meant(tmp_path: Path) -> None:
    file = saved(tmp_path / "c.pth", vit_state(representation=False))
    with pytest.raises(InputError, match="4423d3eecb5a0e00c353217a992d300f") as caught:
        convert(file, tmp_path / "out", "vit-b-1k")
    assert "--any" in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert convert(file, tmp_path / "out", "vit-b-1k", unverified=True)["checked"] == "unverified"


def test_the_sums_are_those_of_the_readme_of_the_papers_code() -> None:
    assert {name: published.md5 for name, published in PUBLISHED_CHECKPOINTS.items()} == {
        "vit-b-1k": "4423d3eecb5a0e00c353217a992d300f",
        "vit-b-22k": "b3563fde27a47c2017e78044a0a72748",
        "swin-b-1k": "733836a1b1b88a8ec21da708c35bd29e",
        "swin-b-22k": "bf9cc182ae5e417f97390e2b21a0eb09",
    }


class Executed:
    """A pickle of this runs a function of its author's choice where it is loaded."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("executed"),)


def malicious(path: Path) -> None:
    torch.save({"model": Executed()}, path)


def bare_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Executed()))


def not_a_dictionary(path: Path) -> None:
    torch.save([torch.zeros(1)], path)


def mixed(path: Path) -> None:
    torch.save({"cls_token": torch.zeros(1), "epoch": 3}, path)


def cut_short(path: Path) -> None:
    torch.save(vit_state(representation=False), path)
    path.write_bytes(path.read_bytes()[:5000])


def with_other_tensors(path: Path) -> None:
    torch.save({**vit_state(representation=False), "dist_token": torch.zeros(1)}, path)


def without_a_tensor(path: Path) -> None:
    state = vit_state(representation=False)
    torch.save({name: state[name] for name in state if name != "blocks.1.mlp.fc2.weight"}, path)


def of_another_architecture(path: Path) -> None:
    torch.save(swin_state(), path)


def of_another_width(path: Path) -> None:
    torch.save({**vit_state(representation=False), "cls_token": torch.zeros(1, 1, 30)}, path)


DAMAGES = [malicious, bare_pickle, not_a_dictionary, mixed, cut_short, with_other_tensors, without_a_tensor]


@pytest.mark.parametrize("damage", [*DAMAGES, of_another_architecture, of_another_width])
def test_a_file_with_anything_else_is_refused_and_leaves_nothing(
    tmp_path: Path, damage: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    damage(tmp_path / "c.pth")
    with pytest.raises(BackboneError):
        convert(tmp_path / "c.pth", tmp_path / "out", "vit-b-1k", unverified=True)
    assert not (tmp_path / "executed").exists()
    assert not list((tmp_path / "out").glob("*"))


def test_the_command_converts_and_refuses(run: Run, tmp_path: Path) -> None:
    file = saved(tmp_path / "c.pth", swin_state())
    refused = run("convert", file, "--arch", "swin-b-22k", "--out", tmp_path / "out")
    assert (refused.code, refused.out, "bf9cc182ae5e417f97390e2b21a0eb09" in refused.err) == (2, "", True)
    result = run("convert", file, "--arch", "swin-b-22k", "--out", tmp_path / "out", "--any", "--json")
    assert (result.code, result.json["feature_dim"]) == (0, 24)
    refused = run("convert", file, "--arch", "swin-b-22k", "--out", tmp_path / "out", "--any")
    assert (refused.code, "finished backbone" in refused.err) == (2, True)
    refused = run("convert", file, "--arch", "resnet", "--out", tmp_path / "other")
    assert (refused.code, "vit-b-22k" in refused.err) == (2, True)
    refused = run("convert", tmp_path / "none.pth", "--arch", "swin-b-22k", "--out", tmp_path / "other")
    assert (refused.code, "none.pth" in refused.err) == (2, True)
