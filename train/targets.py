"""How a model goes to transformers and to timm: its files, what reads them again, and the code of a model card."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskstream.pipelines.modalities.image.data import ImageData
from maskstream.pipelines.modalities.text.batch import TextBatch
from maskstream.pipelines.modalities.text.data import TextData
from maskstream.pipelines.modalities.video.batch import IMAGENET_MEAN, IMAGENET_STD
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.pipelines.stream.batch import Batch
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.tokenizer import TOKENIZER_JSON, read_tokenizer, tokenizer_facts

from .core.model import Model
from .core.recipe import Recipe
from .evaluate.features import GivesFeatures
from .nn.counterpart import Counterpart, TimmCounterpart, timm_counterpart
from .nn.foreign import bert_counterpart, hf_counterpart
from .nn.masked_autoencoder import MaskedAutoencoder
from .nn.media_tokens import ImageTokens, SpectrogramTokens
from .nn.token_model import TokenModel
from .nn.transformer import BlockSizes
from .papers import tables

EXTRA = "pip install 'maskstream[export]'"


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """How a model goes to a target. reader: what reads the folder. call: how it is called. write: writes the model's
    files into it. read: what the target makes of a batch, with these files. card: lines of Python that define
    `features`, for the model card.
    """

    reader: str
    call: str
    write: Callable[[Path], None]
    read: Callable[[Path, Batch], Tensor]
    card: str


def counterpart(model: Model[Any]) -> Counterpart:
    """What transformers has of a model's architecture. ValueError, which says why, if there is nothing."""
    for table in tables("export", "HF"):
        if type(model) in table:
            found: Counterpart = table[type(model)](model)
            return found
    if isinstance(model, TokenModel):
        return bert_counterpart(model)
    if isinstance(model, MaskedAutoencoder) and isinstance(model.tokens, SpectrogramTokens):
        raise ValueError(
            "transformers' AST reads two tokens beside those of the spectrogram, which a model of Audio-MAE lacks"
        )
    if isinstance(model, MaskedAutoencoder):
        return hf_counterpart(model)
    raise ValueError(f"transformers has no counterpart of a {type(model).__name__}")


def timm_of(model: Model[Any]) -> TimmCounterpart:
    """What timm has of a model's encoder. ValueError, which says why, if there is nothing."""
    for table in tables("export", "TIMM"):
        if type(model) in table:
            found: TimmCounterpart = table[type(model)](model)
            return found
    if not isinstance(model, MaskedAutoencoder) or not isinstance(model.tokens, ImageTokens | SpectrogramTokens):
        raise ValueError(f"timm's VisionTransformer reads pictures and spectrograms, got a {type(model).__name__}")
    c = model.config
    return timm_counterpart(model.encoder, model.tokens, BlockSizes(c.depth, c.heads, c.mlp_ratio, c.eps))


def has_graph(model: Model[Any]) -> bool:
    """Whether a model gives a vector of each sample, and all samples have one grid, as a graph needs."""
    return isinstance(model, GivesFeatures) and bool(model.grids)


def list_targets(model: Model[Any]) -> dict[str, str]:
    """By target, what reads a model there, of the targets that can be had."""
    found = {}
    with suppress(ValueError):
        found["hf"] = counterpart(model).name
    with suppress(ValueError):
        found["timm"] = timm_of(model).architecture
    return found


def need(name: str) -> Any:
    """A library of others. ValueError if it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ValueError(f"an export is compared by {name}, which cannot be imported ({error}); {EXTRA}") from error


def to_hf(model: Model[Any], recipe: Recipe[Any], split: Manifest) -> Way:
    found = counterpart(model)

    def write(folder: Path) -> None:
        if isinstance(model, TokenModel):
            more = _write_tokenizer(folder, split, model)
            Counterpart(
                name=found.name, kind=found.kind, config={**found.config, **more}, state=found.state, encoder=""
            ).write(folder)
            return
        found.write(folder)
        _write_json(folder / _processor_file(found), _processor(recipe, found))

    def read(folder: Path, batch: Batch) -> Tensor:
        transformers = need("transformers")
        before = transformers.logging.get_verbosity()
        transformers.logging.set_verbosity_error()  # the decoder's weights are not read, which it warns of
        try:
            kind = getattr(transformers, found.encoder)
            theirs, told = kind.from_pretrained(folder, output_loading_info=True, **found.options)
        finally:
            transformers.logging.set_verbosity(before)
        if told["missing_keys"]:
            raise ValueError(f"{found.encoder} has weights that the run has not: {sorted(told['missing_keys'])[:3]}")
        with torch.no_grad():
            if isinstance(batch, TextBatch):
                valid = batch.valid.long()
                states: Tensor = theirs.eval()(input_ids=batch.inputs, attention_mask=valid).last_hidden_state
                return (states * valid[..., None]).sum(dim=1) / valid.sum(dim=1, keepdim=True)
            pixels: Any = batch
            states = theirs.eval()(**{found.pixels: pixels.pixel_values()}, **found.call).last_hidden_state
        return states[:, found.class_tokens :].mean(dim=1)

    reader = f"transformers.{found.name}"
    call = f"{reader}.from_pretrained(FOLDER)"
    return Way(reader=reader, call=call, write=write, read=read, card=_hf_card(found, recipe))


def _hf_card(found: Counterpart, recipe: Recipe[Any]) -> str:
    """The lines of Python of a card."""
    options = "".join(f", {name}={value!r}" for name, value in found.options.items())
    load = f'model = {found.encoder}.from_pretrained("."{options}).eval()'
    if isinstance(recipe.data, TextData):
        return f'''import torch
from transformers import AutoTokenizer, {found.encoder}

tokenizer = AutoTokenizer.from_pretrained(".")
{load}


def features(input_ids, attention_mask, **_):
    """The mean of the last states of each text, float32 (B, D), of int64 (B, L), as the tokenizer makes them:
    features(**tokenizer(texts, padding=True, return_tensors="pt")).
    """
    with torch.no_grad():
        states = model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
    return (states * attention_mask[..., None]).sum(1) / attention_mask.sum(1, keepdim=True)'''
    processor = "AutoVideoProcessor" if found.pixels != "pixel_values" else "AutoImageProcessor"
    given = "list(clips)" if found.pixels != "pixel_values" else "[list(clip) for clip in clips]"
    video = isinstance(recipe.data, VideoData)
    given, name, shape = (given, "clips", "(B, T, H, W, 3)") if video else ("list(images)", "images", "(B, H, W, 3)")
    call = "".join(f", {name}={value!r}" for name, value in found.call.items())
    return f'''import torch
from transformers import {processor}, {found.encoder}

processor = {processor}.from_pretrained(".")
{load}


def features({name}):
    """The mean of the last states of the tokens of each sample, float32 (B, D), of uint8 {shape}."""
    pixels = processor({given}, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        return model({found.pixels}=pixels{call}).last_hidden_state[:, {found.class_tokens}:].mean(1)'''


def to_timm(model: Model[Any], recipe: Recipe[Any]) -> Way:
    found = timm_of(model)
    sound = found.arguments["in_chans"] == 1
    mean, std = ((0.0,), (1.0,)) if sound else (IMAGENET_MEAN, IMAGENET_STD)
    rows, columns = found.arguments["img_size"]
    about = {
        "input_size": [found.arguments["in_chans"], rows, columns],
        "fixed_input_size": True,
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "mean": mean,
        "std": std,
    }

    def read(folder: Path, batch: Batch) -> Tensor:
        theirs = need("timm").create_model(
            found.architecture, checkpoint_path=str(folder / "model.safetensors"), **found.arguments
        )
        media: Any = batch
        with torch.no_grad():
            made: Tensor = theirs.eval()(media.spectrogram[:, None] if sound else media.pixel_values())
        return made

    given, shape = ("spectrograms", "float32 (B, T, F)") if sound else ("images", "uint8 (B, H, W, 3)")
    pixels = (
        "torch.as_tensor(spectrograms)[:, None]"
        if sound
        else "((torch.as_tensor(images).float() / 255 - mean) / std).permute(0, 3, 1, 2)"
    )
    card = f'''import timm
import torch

model = timm.create_model("local-dir:.", pretrained=True).eval()
mean, std = (torch.tensor(model.pretrained_cfg[name]) for name in ("mean", "std"))


def features({given}):
    """The mean of the last states of the patches of each sample, float32 (B, D), of {shape}."""
    with torch.no_grad():
        return model({pixels})'''
    return Way(
        reader=f"timm.{found.architecture}",
        call='timm.create_model("local-dir:FOLDER", pretrained=True)',
        write=lambda folder: found.write(folder, about),
        read=read,
        card=card,
    )


def _processor_file(found: Counterpart) -> str:
    return "preprocessor_config.json" if found.pixels == "pixel_values" else "video_preprocessor_config.json"


def _processor(recipe: Recipe[Any], found: Counterpart) -> Mapping[str, object]:
    """What transformers does to pictures: the short side to the recipe's size, its centre, ImageNet's moments.

    The processor that is named after V-JEPA 2 would resize by 256 / 224 more, so VideoMAE's is named for it.
    """
    config = recipe.data
    assert isinstance(config, VideoData | ImageData)  # what `counterpart` takes has no other data
    video = isinstance(config, VideoData)
    side = config.clip.size if isinstance(config, VideoData) else config.size
    square = {"height": side, "width": side}
    kind = {"image_processor_type": "VideoMAEImageProcessor" if video else "ViTImageProcessor"}
    if found.pixels != "pixel_values":
        kind = {"video_processor_type": "VideoMAEVideoProcessor"}
    clip = (
        {"num_frames": config.clip.frames, "frame_stride": config.clip.stride} if isinstance(config, VideoData) else {}
    )
    return {
        **kind,
        **clip,
        "do_resize": True,
        "size": {"shortest_edge": side} if video else square,
        **({"do_center_crop": True, "crop_size": square} if video else {}),
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": IMAGENET_MEAN,
        "image_std": IMAGENET_STD,
    }


def _write_tokenizer(folder: Path, split: Manifest, model: TokenModel) -> dict[str, int]:
    """The split's tokenizer with the names of its special tokens; returns their ids, for the model's config.

    ValueError if the model has fewer ids.
    """
    from tokenizers import Tokenizer

    facts = tokenizer_facts(split.location, split.info)
    if facts.vocabulary > model.config.vocabulary:
        raise ValueError(
            f"the tokenizer of {split} has {facts.vocabulary:,} ids, and the model {model.config.vocabulary:,}; give "
            "the split that it trained on"
        )
    saved = read_tokenizer(split.store, split.info)
    (folder / TOKENIZER_JSON).write_bytes(saved)
    ids = {"pad": facts.pad, "unk": facts.unknown, "cls": facts.begin, "sep": facts.end, "mask": facts.mask}
    tokenizer = Tokenizer.from_str(saved.decode())
    names = {f"{role}_token": tokenizer.id_to_token(one) for role, one in ids.items() if one is not None}
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": model.embed.length, **names}
    _write_json(folder / "tokenizer_config.json", about)
    roles = {"pad": facts.pad, "cls": facts.begin, "sep": facts.end, "bos": facts.begin, "eos": facts.end}
    return {f"{role}_token_id": one for role, one in roles.items() if one is not None}


def _write_json(path: Path, data: Mapping[str, object]) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n")
