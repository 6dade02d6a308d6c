"""Tiny random networks for texts, with tokenizers, in folders as their publishers save them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from lmeraser.config.schema import Config, parse

TEXTS = (
    "I lost my card.",
    "Why was I charged twice for one coffee in Paris, and who can tell me where my money is now?",
    "\u0645\u0631\u062d\u0628\u0627 \u6771\u4eac \U0001f600",
    "exchange rate",
    "Please, please, please close the account of my late mother; here is her letter to you. " * 3,
)
_SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]
_WIDTH: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 400,
    "max_position_embeddings": 160,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
# Settings beside these for each family; all but those of BERT's kind are what makes a family special.
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {},  # positions begin after the padding's
    "deberta-v2": {
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_buckets": 16,
        "position_biased_input": False,
        "norm_rel_ebd": "layer_norm",
    },
    "modernbert": {"local_attention": 8, "global_attn_every_n_layers": 2},  # layers that see some places only
    "mpnet": {},
    "squeezebert": {"embedding_size": 32},  # calls its pooler in any case
    "fnet": {},  # hidden states depend on padding, so that there must be none
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 160},
    "llama": {"num_key_value_heads": 1, "head_dim": 16},  # keys that heads share
    "qwen2": {"num_key_value_heads": 1, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    "qwen3": {"num_key_value_heads": 1, "head_dim": 16},
}
ENCODERS = ("bert", "roberta", "deberta-v2", "modernbert", "mpnet", "squeezebert", "fnet")


def tokenizer(*, encoder: bool) -> Any:
    """A tokenizer of bytes, which knows a few words; an encoder's puts a token before and after each text."""
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=_SPECIAL, initial_alphabet=alphabet)
    made.train_from_iterator(TEXTS, trainer)
    if encoder:
        made.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)


def save(family: str, folder: Path, **more: Any) -> Path:
    """Save a random network of a family, and its tokenizer; the same in every call."""
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.for_model(family, **{**_WIDTH, **FAMILIES[family], **more})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModel.from_config(config)
        for weight in model.parameters():  # far from zero, so that places matter
            torch.nn.init.normal_(weight, std=0.2)
    model.save_pretrained(folder)
    tokenizer(encoder=family in ENCODERS).save_pretrained(folder)
    return folder


def as_sentence_transformer(folder: Path, pooling: dict[str, Any], **prompts: Any) -> Path:
    """Make a folder one of sentence-transformers, with normalised vectors."""
    steps = ["Transformer", "Pooling", "Normalize"]
    kinds = [
        {
            "idx": n,
            "name": f"{n}",
            "path": f"{n}_{kind}" if n else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for n, kind in enumerate(steps)
    ]
    (folder / "modules.json").write_text(json.dumps(kinds))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "2_Normalize").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **pooling}))
    if prompts:
        (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    return folder


def settings(name: str | Path, text: dict[str, Any] | None = None, **backbone: Any) -> Config:
    """Settings of a workspace of texts with a backbone."""
    values: dict[str, Any] = {"name": str(name), "micro_batch": 4, **backbone}
    return parse(
        {
            "data": {"modality": "text"},
            "text": {"max_tokens": 96, **(text or {})},
            "backbone": values,
            "embedding": {"views": ["whole"]},
            "constituent": {"kind": "tokens"},
            "prompt": {"kind": "none"},
        }
    )
