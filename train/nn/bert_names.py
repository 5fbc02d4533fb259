"""The names of BERT's weights in transformers, and here.

Differences: transformers has separate linear layers for query, key and value, and adds the embedding of a token's
segment. All tokens have segment 0 here, whose vector is part of the embeddings of places.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

ROOT = {
    "embed.ids.weight": "bert.embeddings.word_embeddings.weight",
    "embed.places.weight": "bert.embeddings.position_embeddings.weight",
    "embed.norm.weight": "bert.embeddings.LayerNorm.weight",
    "embed.norm.bias": "bert.embeddings.LayerNorm.bias",
    "head.dense.weight": "cls.predictions.transform.dense.weight",
    "head.dense.bias": "cls.predictions.transform.dense.bias",
    "head.norm.weight": "cls.predictions.transform.LayerNorm.weight",
    "head.norm.bias": "cls.predictions.transform.LayerNorm.bias",
    "head.bias": "cls.predictions.bias",
}
BLOCK = {
    "attention.out": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "mlp.up": "intermediate.dense",
    "mlp.down": "output.dense",
    "norm2": "output.LayerNorm",
}
PARTS = ("query", "key", "value")
SEGMENTS = "bert.embeddings.token_type_embeddings.weight"
OUTPUT = {"cls.predictions.decoder.weight": "embed.ids.weight", "cls.predictions.decoder.bias": "head.bias"}
LAYERS = "bert.encoder.layer"


def is_bert(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict is that of a BERT of transformers."""
    return ROOT["embed.ids.weight"] in state and SEGMENTS in state


def own_bert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a BERT of transformers by the names of a `TokenModel`; what it lacks, such as a head, is left out.

    Its pooler and its predictor of the next sentence have no counterpart.
    """
    ours = {name: state[theirs] for name, theirs in ROOT.items() if theirs in state}
    ours["embed.places.weight"] = ours["embed.places.weight"] + state[SEGMENTS][0]
    depth = len({name.split(".")[3] for name in state if name.startswith(LAYERS)})
    for i in range(depth):
        own, theirs = f"blocks.{i}", f"{LAYERS}.{i}"
        for kind in ("weight", "bias"):
            for part, name in BLOCK.items():
                ours[f"{own}.{part}.{kind}"] = state[f"{theirs}.{name}.{kind}"]
            ours[f"{own}.attention.qkv.{kind}"] = torch.cat(
                [state[f"{theirs}.attention.self.{part}.{kind}"] for part in PARTS]
            )
    return ours
