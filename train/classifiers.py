"""What transformers has of a fine-tuned classifier: its encoder's architecture with a head that scores classes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .core.process import seeded
from .evaluate.finetune import Classifier, EncoderClassifier
from .nn.counterpart import Counterpart, encoder_state, ijepa_counterpart
from .nn.foreign import hf_counterpart
from .nn.masked_autoencoder import MaskedAutoencoder
from .nn.media_tokens import ImageTokens, VideoTokens
from .nn.transformer import BlockSizes

DINO = {
    "intermediate.dense": "mlp.fc1",
    "attention.output.dense": "attention.output.dense",
    "output.dense": "mlp.fc2",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
}
"""Layers of a block of ViT by their names in DINOv2."""


def with_classes(found: Counterpart, classes: Sequence[str]) -> Counterpart:
    """A classifier whose classes have names."""
    names = {"id2label": dict(enumerate(classes)), "label2id": {name: n for n, name in enumerate(classes)}}
    return replace(found, config={**found.config, **names, "num_labels": len(classes)})


def classifier_counterpart(model: Classifier[Any] | EncoderClassifier[Any], body: Counterpart | None) -> Counterpart:
    """A classifier as transformers has it. body: what it has of the encoder of an `EncoderClassifier`, or None.

    ValueError, which says why, if there is nothing.
    """
    head = dict(model.head.named_parameters())
    if isinstance(model, EncoderClassifier):
        if body is None or body.kind != "modernbert":
            raise ValueError(
                f"transformers has no classifier by a normalised mean of the tokens of a {type(model.body).__name__}; "
                "it has one of ModernBERT, MAE and VideoMAE"
            )
        return _modernbert_classifier(model, body, head)
    if isinstance(model.tokens, VideoTokens):
        return _videomae_classifier(model, head)
    if isinstance(model.tokens, ImageTokens):
        return _image_classifier(model, head)
    raise ValueError("transformers has no classifier of spectrograms by the mean of their tokens")


def _videomae_classifier(model: Classifier[Any], head: Mapping[str, Tensor]) -> Counterpart:
    """VideoMAEForVideoClassification. ValueError for a norm before the mean."""
    if model.norm is None:
        raise ValueError(
            "transformers.VideoMAEForVideoClassification normalises the mean of the tokens, and this classifier each "
            "token; fine-tune again with --set model.norm=mean"
        )
    own: Any = model.config.of
    of = replace(own, bridge_bias=False, target="normalised")  # which only the decoder needs
    with seeded(0):
        whole = MaskedAutoencoder(of, model.grids)
    whole.load_state_dict(model.state_dict(), strict=False)
    found = hf_counterpart(whole)
    state = {name: own for name, own in found.state.items() if name.startswith(("videomae.emb", "videomae.enc"))}
    state |= {f"fc_norm.{kind}": own for kind, own in model.norm.named_parameters()}
    config = {name: value for name, value in found.config.items() if not name.startswith("decoder_")}
    return replace(
        found,
        name="VideoMAEForVideoClassification",
        config={**config, "use_mean_pooling": True},
        state={**state, **_head(head)},
        encoder="VideoMAEForVideoClassification",
    )


def _image_classifier(model: Classifier[Any], head: Mapping[str, Tensor]) -> Counterpart:
    """IJepaForImageClassification; with a class token Dinov2ForImageClassification, whose layers are not scaled and
    whose head takes nothing of that token.
    """
    tokens: object = model.tokens
    assert isinstance(tokens, ImageTokens)
    if model.norm is not None:
        raise ValueError(
            "transformers normalises tokens before their mean; fine-tune again with --set model.norm=tokens"
        )
    c = model.config.of
    found = ijepa_counterpart(model.encoder, tokens, BlockSizes(c.depth, c.heads, c.mlp_ratio, c.eps))
    if model.encoder.class_token is None:
        state = {f"ijepa.{name}": own for name, own in found.state.items()}
        name, kind, config = "IJepaForImageClassification", "ijepa", dict(found.config)
    else:
        state = {}
        for name, own in encoder_state(model.encoder, tokens.patch, hf=True).items():
            theirs = next((one for one in DINO if f".{one}." in name), None)
            state[f"dinov2.{name}" if theirs is None else f"dinov2.{name.replace(theirs, DINO[theirs])}"] = own
        for n in range(c.depth):
            for scale in (1, 2):
                state[f"dinov2.encoder.layer.{n}.layer_scale{scale}.lambda1"] = torch.ones(c.width)
        places = model.encoder.positions().detach()
        state["dinov2.embeddings.position_embeddings"] = torch.cat((torch.zeros_like(places[:1]), places))[None]
        state["dinov2.embeddings.mask_token"] = torch.zeros(1, c.width)
        head = {**head, "weight": torch.cat((torch.zeros_like(head["weight"]), head["weight"]), dim=1)}
        name, kind = "Dinov2ForImageClassification", "dinov2"
        config = {key: value for key, value in found.config.items() if key != "intermediate_size"}
        config |= {"mlp_ratio": c.mlp_ratio, "layerscale_value": 1.0, "use_swiglu_ffn": False}
    return Counterpart(name=name, kind=kind, config=config, state={**state, **_head(head)}, encoder=name)


def _modernbert_classifier(model: EncoderClassifier[Any], body: Counterpart, head: Mapping[str, Tensor]) -> Counterpart:
    """ModernBertForSequenceClassification, whose dense layer changes nothing. ValueError for other epsilons."""
    if model.norm.eps != body.config["norm_eps"]:
        raise ValueError(
            f"all norms of ModernBertForSequenceClassification have one epsilon, got {body.config['norm_eps']:g} and "
            f"{model.norm.eps:g}"
        )
    width = body.config["hidden_size"]
    bias = head["bias"] + head["weight"] @ model.norm.bias  # its norm has no bias
    state = {name: own for name, own in body.state.items() if name.startswith("model.")}
    state |= {"head.dense.weight": torch.eye(width), "head.norm.weight": model.norm.weight}
    name = "ModernBertForSequenceClassification"
    return replace(
        body,
        name=name,
        config={**body.config, "classifier_pooling": "mean", "classifier_activation": "linear"},
        state={**state, **_head({**head, "bias": bias})},
        encoder=name,
    )


def _head(head: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the layer that scores classes."""
    return {f"classifier.{kind}": own.detach().contiguous() for kind, own in head.items()}
