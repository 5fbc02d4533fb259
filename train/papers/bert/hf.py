"""Converts weights and configs to and from `transformers.BertForMaskedLM`.

Nothing here imports transformers: a model is given as a config dict and a state dict. nn/token_model.py says how they
differ; an export has zeros for the embeddings of segments.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from maskstream.pipelines.masks import TokenGrid
from maskstream.train.core.process import seeded
from maskstream.train.nn.token_model import (
    BLOCK,
    LAYERS,
    OUTPUT,
    PARTS,
    ROOT,
    SEGMENTS,
    TokenModel,
    TokenModelConfig,
    own_bert,
)


def to_bert_config(model: TokenModel) -> dict[str, Any]:
    """The keyword arguments of `transformers.BertConfig` for a model. ValueError for one that is no BERT."""
    c = model.config
    if (c.positions, c.norm, c.gated) != ("learned", "post", False):
        raise ValueError(
            "transformers.BertForMaskedLM has positions='learned', norm='post' and gated=False, got "
            f"positions={c.positions!r}, norm={c.norm!r} and gated={c.gated}; such a model has no counterpart there"
        )
    return {
        "vocab_size": c.vocabulary,
        "hidden_size": c.width,
        "num_hidden_layers": c.depth,
        "num_attention_heads": c.heads,
        "intermediate_size": c.width * c.mlp_ratio,
        "max_position_embeddings": model.embed.length,
        "layer_norm_eps": c.eps,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }


def to_bert(model: TokenModel) -> dict[str, Tensor]:
    """The state dict of `BertForMaskedLM(BertConfig(**to_bert_config(model)))` with the model's weights."""
    _ = to_bert_config(model)
    state = model.state_dict()
    hf = {theirs: state[ours] for ours, theirs in ROOT.items()}
    hf |= {theirs: state[ours] for theirs, ours in OUTPUT.items()}
    hf[SEGMENTS] = torch.zeros(2, model.config.width, dtype=state["embed.ids.weight"].dtype)
    for i in range(model.config.depth):
        ours, theirs = f"blocks.{i}", f"{LAYERS}.{i}"
        for kind in ("weight", "bias"):
            for part, name in BLOCK.items():
                hf[f"{theirs}.{name}.{kind}"] = state[f"{ours}.{part}.{kind}"]
            for part, value in zip(PARTS, state[f"{ours}.attention.qkv.{kind}"].chunk(3), strict=True):
                hf[f"{theirs}.attention.self.{part}.{kind}"] = value
    return {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in hf.items()}


def from_bert(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> TokenModel:
    """This package's model with the weights of a BertForMaskedLM, for documents of up to `max_position_embeddings`.

    config: its `config.to_dict()`, or the content of a config.json. state: its state dict, or the content of a
    model.safetensors. ValueError for an architecture that this package does not have.
    """
    _check(config)
    sizes = TokenModelConfig(
        vocabulary=config["vocab_size"],
        width=config["hidden_size"],
        depth=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        mlp_ratio=config["intermediate_size"] // config["hidden_size"],
        eps=config["layer_norm_eps"],
    )
    length = config["max_position_embeddings"]
    with seeded(0):
        model = sizes.make({"text": TokenGrid(axes=("token",), shape=(length,), patch=(1,))})
    ours = own_bert(state)
    model.to(ours["head.bias"].dtype).load_state_dict(ours)
    return model


def export_bert(model: TokenModel, folder: str | Path) -> None:
    """Writes config.json and model.safetensors, which `BertForMaskedLM.from_pretrained(folder)` reads."""
    config = {"architectures": ["BertForMaskedLM"], "model_type": "bert", **to_bert_config(model)}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    kept = {name: tensor for name, tensor in to_bert(model).items() if name not in OUTPUT}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def _check(config: Mapping[str, Any]) -> None:
    legal = {
        "hidden_act": "gelu",
        "is_decoder": False,
        "tie_word_embeddings": True,
        "position_embedding_type": "absolute",
    }
    wrong = [
        f"{name}={config[name]!r} (legal: {value!r})"
        for name, value in legal.items()
        if config.get(name) not in (value, None)
    ]
    ratio = config["intermediate_size"] / config["hidden_size"]
    if ratio % 1:
        wrong.append(f"intermediate_size / hidden_size = {ratio:g} (legal: a whole number)")
    if wrong:
        raise ValueError("this BERT config has no counterpart here: " + "; ".join(wrong))
