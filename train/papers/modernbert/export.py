"""The counterpart of ModernBERT in transformers."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from maskstream.train.nn.counterpart import Counterpart

from .model import BLOCK, ROOT, ModernModel


def to_modernbert(model: ModernModel) -> Counterpart:
    """Convert the model to ModernBertForMaskedLM."""
    c, own = model.config, model.state_dict()
    state = {theirs: own[ours] for ours, theirs in ROOT.items() if ours in own}  # a classifier has no such head
    for i in range(c.depth):
        for part, name in BLOCK.items():
            if (ours := f"blocks.{i}.{part}.weight") in own:
                state[f"model.layers.{i}.{name}.weight"] = own[ours]
    config = {
        "vocab_size": c.vocabulary,
        "hidden_size": c.width,
        "intermediate_size": c.hidden,
        "num_hidden_layers": c.depth,
        "num_attention_heads": c.heads,
        "max_position_embeddings": model.embed.length,
        "norm_eps": c.eps,
        "local_attention": c.window,
        "global_attn_every_n_layers": c.every,
        "global_rope_theta": c.theta,
        "local_rope_theta": c.local_theta,
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")),
    }
    return Counterpart(
        name="ModernBertForMaskedLM",
        kind="modernbert",
        config=config,
        state={name: tensor.detach().clone() for name, tensor in state.items()},
        encoder="ModernBertModel",
    )


HF: Mapping[type[nn.Module], Callable[[Any], Counterpart]] = {ModernModel: to_modernbert}
