"""Counterparts in transformers and timm of models, and of fine-tuned classifiers: an encoder with a head of classes."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from maskstream.train.core.model import Model
from maskstream.train.core.process import seeded
from maskstream.train.evaluate.classifier import Classifier, EncoderClassifier
from maskstream.train.evaluate.features import GivesFeatures
from maskstream.train.nn.counterpart import (
    Counterpart,
    TimmCounterpart,
    convert_encoder_state,
    convert_to_ijepa,
    convert_to_timm,
)
from maskstream.train.nn.foreign import convert_to_bert, convert_to_hf
from maskstream.train.nn.masked_autoencoder import MaskedAutoencoder
from maskstream.train.nn.media_tokens import ImageTokens, SpectrogramTokens, VideoTokens
from maskstream.train.nn.token_model import TokenModel
from maskstream.train.nn.transformer import BlockSizes
from maskstream.train.papers import tables

DINO = {
    "intermediate.dense": "mlp.fc1",
    "attention.output.dense": "attention.output.dense",
    "output.dense": "mlp.fc2",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
}
"""Layers of a block of ViT by their names in DINOv2."""


def find_counterpart(model: Model[Any]) -> Counterpart:
    """Return the transformers counterpart of a model; raise ValueError with the reason if there is none."""
    own = [make for table in tables("export", "HF") for kind, make in table.items() if kind is type(model)]
    if own:
        found: Counterpart = own[0](model)
        return found
    if isinstance(model, Classifier | EncoderClassifier):
        body: Any = getattr(model, "body", None)
        has_own = any(type(body) in table for table in tables("export", "HF"))
        return convert_classifier(model, find_counterpart(body) if has_own else None)
    if isinstance(model, TokenModel):
        return convert_to_bert(model)
    if isinstance(model, MaskedAutoencoder) and isinstance(model.tokens, SpectrogramTokens):
        raise ValueError("transformers' AST has two tokens besides the spectrogram's, which Audio-MAE does not have")
    if isinstance(model, MaskedAutoencoder):
        return convert_to_hf(model)
    raise ValueError(f"transformers has no counterpart of a {type(model).__name__}")


def convert_timm(model: Model[Any]) -> TimmCounterpart:
    """Return the timm counterpart of a model's encoder, or of a classifier; raise ValueError with the reason if there
    is none.
    """
    for table in tables("export", "TIMM"):
        if type(model) in table:
            found: TimmCounterpart = table[type(model)](model)
            return found
    tokens: object = getattr(model, "tokens", None)
    if not isinstance(model, MaskedAutoencoder | Classifier) or not isinstance(tokens, ImageTokens | SpectrogramTokens):
        raise ValueError(f"timm's VisionTransformer supports images and spectrograms, got a {type(model).__name__}")
    if isinstance(model, Classifier) and model.norm is not None:
        raise ValueError("timm normalises tokens before their mean; fine-tune again with --set model.norm=tokens")
    of, head = (model.config.of, model.head) if isinstance(model, Classifier) else (model.config, None)
    return convert_to_timm(model.encoder, tokens, BlockSizes(of.depth, of.heads, of.mlp_ratio, of.eps), head)


def has_graph(model: Model[Any]) -> bool:
    """Return whether a model has a feature vector per sample and all samples have one grid, as a graph needs."""
    return isinstance(model, GivesFeatures) and bool(model.grids)


def list_targets(model: Model[Any]) -> dict[str, str]:
    """Return the class or architecture that reads a model, by target, for each possible target of hf and timm."""
    found = {}
    with suppress(ValueError):
        found["hf"] = find_counterpart(model).name
    with suppress(ValueError):
        found["timm"] = convert_timm(model).architecture
    return found


def with_classes(found: Counterpart, classes: Sequence[str]) -> Counterpart:
    """Return a classifier's counterpart with the names of its classes.

    Args:
        found: Counterpart of the classifier.
        classes: Names of the classes, in order.
    """
    names = {"id2label": dict(enumerate(classes)), "label2id": {name: n for n, name in enumerate(classes)}}
    return replace(found, config={**found.config, **names, "num_labels": len(classes)})


def convert_classifier(model: Classifier[Any] | EncoderClassifier[Any], body: Counterpart | None) -> Counterpart:
    """Return the transformers counterpart of a classifier.

    Args:
        model: The classifier.
        body: Counterpart of the encoder of an `EncoderClassifier`, or None.

    Raises:
        ValueError: There is none; the message has the reason.
    """
    head = dict(model.head.named_parameters())
    if isinstance(model, EncoderClassifier):
        if body is None or body.kind != "modernbert":
            raise ValueError(
                f"transformers has no classifier on the normalised mean token of a {type(model.body).__name__}; it "
                "has one for ModernBERT, MAE and VideoMAE"
            )
        return _convert_modernbert_classifier(model, body, head)
    if isinstance(model.tokens, VideoTokens):
        return _convert_videomae_classifier(model, head)
    if isinstance(model.tokens, ImageTokens):
        return _convert_image_classifier(model, head)
    raise ValueError("transformers has no classifier on the mean token of spectrograms")


def _convert_videomae_classifier(model: Classifier[Any], head: Mapping[str, Tensor]) -> Counterpart:
    """Convert to VideoMAEForVideoClassification; raise ValueError if the norm is before the mean."""
    if model.norm is None:
        raise ValueError(
            "transformers.VideoMAEForVideoClassification normalises the mean of the tokens, but this classifier "
            "normalises each token; fine-tune again with --set model.norm=mean"
        )
    own: Any = model.config.of
    of = replace(own, bridge_bias=False, target="normalised")  # which only the decoder needs
    with seeded(0):
        whole = MaskedAutoencoder(of, model.grids)
    whole.load_state_dict(model.state_dict(), strict=False)
    found = convert_to_hf(whole)
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


def _convert_image_classifier(model: Classifier[Any], head: Mapping[str, Tensor]) -> Counterpart:
    """Convert to IJepaForImageClassification or, with a class token, to Dinov2ForImageClassification with layer scale 1
    and a head that ignores the class token.
    """
    tokens: object = model.tokens
    assert isinstance(tokens, ImageTokens)
    if model.norm is not None:
        raise ValueError(
            "transformers normalises tokens before their mean; fine-tune again with --set model.norm=tokens"
        )
    c = model.config.of
    found = convert_to_ijepa(model.encoder, tokens, BlockSizes(c.depth, c.heads, c.mlp_ratio, c.eps))
    if model.encoder.class_token is None:
        state = {f"ijepa.{name}": own for name, own in found.state.items()}
        name, kind, config = "IJepaForImageClassification", "ijepa", dict(found.config)
    else:
        state = {}
        for name, own in convert_encoder_state(model.encoder, tokens.patch, hf=True).items():
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


def _convert_modernbert_classifier(
    model: EncoderClassifier[Any], body: Counterpart, head: Mapping[str, Tensor]
) -> Counterpart:
    """Convert to ModernBertForSequenceClassification with an identity dense layer; raise ValueError if epsilons
    differ.
    """
    if model.norm.eps != body.config["norm_eps"]:
        raise ValueError(
            "all norms of ModernBertForSequenceClassification must have the same epsilon, got "
            f"{body.config['norm_eps']:g} and {model.norm.eps:g}"
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
    """Return the weights of the layer that scores classes."""
    return {f"classifier.{kind}": own.detach().contiguous() for kind, own in head.items()}
