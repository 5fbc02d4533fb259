"""A run in the formats of others: a folder that transformers or timm reads, with a model card.

What was written is read again by the library that it is for, and its features of samples of the run's split are
compared with the run's own. A folder appears whole, and only where they agree.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from maskstream.pipelines.modalities.image.data import ImageData
from maskstream.pipelines.modalities.split import open_manifest
from maskstream.pipelines.modalities.text.batch import TextBatch
from maskstream.pipelines.modalities.text.data import TextData
from maskstream.pipelines.modalities.video.batch import IMAGENET_MEAN, IMAGENET_STD
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.pipelines.stream.batch import Batch
from maskstream.shards.format.manifest import Manifest, SplitLocation
from maskstream.shards.format.tokenizer import TOKENIZER_JSON, read_tokenizer, tokenizer_facts
from maskstream.shards.named import nearest
from maskstream.shards.stores.url import local_path, split_name

from .core.export import load_model
from .core.model import Model
from .core.recipe import Recipe, check_modality
from .core.run_folder import DATA, run_recipe, run_settings, run_weights
from .evaluate.features import GivesFeatures, without_augmentation
from .evaluations import kept_evaluations
from .nn.counterpart import Counterpart, TimmCounterpart, timm_counterpart
from .nn.foreign import bert_counterpart, hf_counterpart
from .nn.masked_autoencoder import MaskedAutoencoder
from .nn.media_tokens import ImageTokens, SpectrogramTokens
from .nn.token_model import TokenModel
from .papers import tables

TARGETS = ("hf", "timm")
SAMPLES = 8
"""How many samples are compared."""
TOLERANCE = 1e-5
"""How far the features of a sample may lie apart, as a share of their norm."""
EXTRA = "pip install 'maskstream[export]'"


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """What was written. reader: what reads it. difference: how far the features of `samples` samples lie apart, as a
    share of their norm; the largest.
    """

    reader: str
    difference: float
    samples: int


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
    c, tokens = model.config, model.tokens
    return timm_counterpart(
        model.encoder,
        extent=tokens.extent,
        patch=tokens.patch,
        depth=c.depth,
        heads=c.heads,
        mlp_ratio=c.mlp_ratio,
        eps=c.eps,
        channels=3 if isinstance(tokens, ImageTokens) else 1,
    )


def list_targets(model: Model[Any]) -> dict[str, str]:
    """By target, what reads a model there, of the targets that can be had."""
    found = {}
    with suppress(ValueError):
        found["hf"] = counterpart(model).name
    with suppress(ValueError):
        found["timm"] = timm_of(model).architecture
    return found


def export_run(run: str | Path, out: str | Path, data: SplitLocation | None = None, *, to: str = "hf") -> Exported:
    """Writes the newest weights of a run into the new folder `out`, for a target, and compares its features.

    to: "hf", a folder for transformers' `from_pretrained`: config.json, model.safetensors, and preprocessor_config.json
    of pictures and video or tokenizer.json of texts. "timm": model.safetensors for `create_model(checkpoint_path=)`,
    and config.json for `create_model("local-dir:OUT", pretrained=True)`. All have README.md. data: the split whose
    samples are compared, and whose tokenizer goes along; by default the one that the run trained on.

    ValueError for a target that has no counterpart of the model, which names those that have; for features that lie
    apart; for a target whose library is not installed; and for a folder that is not empty.
    """
    run, out = local_path(run, "the run"), local_path(out, "out")
    if to not in TARGETS:
        raise ValueError(f"there is no target {to!r}{nearest(to, list(TARGETS))}; legal are {', '.join(TARGETS)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there and not empty; give a new folder")
    recipe, weights = run_recipe(run), run_weights(run)
    model = load_model(weights)
    split = split_of_run(run, data)
    check_modality(recipe, split)
    try:
        way = _to_hf(model, recipe, split) if to == "hf" else _to_timm(model, recipe)
    except ValueError as error:
        others = list_targets(model)
        raise ValueError(f"{error}; for this run --to {' or '.join(others)} works" if others else str(error)) from error
    assert isinstance(model, GivesFeatures)  # all that have a counterpart do
    batch = _sample_batch(recipe, split)
    with torch.no_grad():
        ours = model.features(batch)
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as made:
        new = Path(made) / out.name
        new.mkdir()
        way.write(new)
        apart = _compare(ours, way.read(new, batch), way.reader)
        done = Exported(reader=way.reader, difference=apart, samples=len(ours))
        (new / "README.md").write_text(_card(run, recipe, way, done))
        new.replace(out)  # an empty folder too
    return done


def split_of_run(run: Path, data: SplitLocation | None = None) -> Manifest:
    """The split at `data`, or else the version of the one that a run trained on. ValueError if it does not say."""
    if data is not None:
        return Manifest.load(data)
    told = run_settings(run).get(DATA)
    if not isinstance(told, Mapping) or "location" not in told:
        raise ValueError(f"{run} does not say which split it was trained on; name one with --data")
    return open_manifest(str(told["location"]), version=told.get("version"))


def _sample_batch(recipe: Recipe[Any], split: Manifest) -> Batch:
    """The first samples of a split, in one batch, as an encoder is given them after training."""
    config = without_augmentation(recipe.data, split)
    size = min(SAMPLES, len(split))
    with closing(config.whole().loader(split, batch_size=size, shuffle=False, device="cpu", threads=1)) as loader:
        batch: Batch = next(iter(loader))
    return batch


def _compare(ours: Tensor, theirs: Tensor, reader: str) -> float:
    """The largest distance of a sample's features. ValueError if it is no number, or above `TOLERANCE`."""
    if theirs.shape != ours.shape:
        raise ValueError(f"{reader} gives features of the shape {tuple(theirs.shape)}, the run {tuple(ours.shape)}")
    ours, theirs = ours.double(), theirs.double()
    apart = float(((theirs - ours).norm(dim=1) / ours.norm(dim=1)).max())
    if not apart <= TOLERANCE:
        raise ValueError(
            f"the features of {reader} differ from the run's by {apart:.1e} of their norm, and {TOLERANCE:g} is "
            "allowed; nothing was written. Report it with the versions of `maskstream doctor`"
        )
    return apart


def _need(name: str) -> Any:
    """A library of others. ValueError if it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ValueError(f"an export is compared by {name}, which cannot be imported ({error}); {EXTRA}") from error


def _to_hf(model: Model[Any], recipe: Recipe[Any], split: Manifest) -> Way:
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
        transformers = _need("transformers")
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


def _to_timm(model: Model[Any], recipe: Recipe[Any]) -> Way:
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
        theirs = _need("timm").create_model(
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


def _card(run: Path, recipe: Recipe[Any], way: Way, done: Exported) -> str:
    """The model card: what reads it, how it was trained, and what the run's evaluation.json says of it."""
    lines = [
        f"# {run.resolve().name}",
        "",
        f"`{way.call}` reads it. It was trained with the recipe `{recipe.name}` of "
        "[maskstream](https://pypi.org/project/maskstream/). Its features of "
        f"{done.samples} samples differ from the run's by {done.difference:.1e} of their norm.",
        "",
        "```python",
        way.card,
        "```",
    ]
    if isinstance(recipe.data, VideoData):
        clip = recipe.data.clip
        lines += ["", f"A clip has {clip.frames} frames, every {clip.stride}th of a video, at {clip.size} pixels."]
    if found := kept_evaluations(run):
        lines += ["", "| split | samples | figure | value | baseline |", "| --- | ---: | --- | ---: | --- |"]
    for one in found:
        lines += [
            f"| {split_name(one.data.location, one.data.split)} | {score.count:,} | {score.name} | {score.value:.4g}"
            + (f" | {score.best}: {score.baselines[score.best]:.4g} |" if score.baselines else " | |")
            for score in one.scores
        ]
    settings = json.dumps(recipe.to_dict(), indent=2)
    return "\n".join([*lines, "", "## The recipe", "", "```json", settings, "```", ""])
