"""A run as a folder that transformers reads: its config and weights, what prepares its inputs, and a model card."""

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from maskstream.pipelines.modalities.image.data import ImageData
from maskstream.pipelines.modalities.video.batch import IMAGENET_MEAN, IMAGENET_STD
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.shards.format.manifest import Manifest, SplitLocation
from maskstream.shards.format.tokenizer import TOKENIZER_JSON, read_tokenizer, tokenizer_facts
from maskstream.shards.stores.url import local_path, split_name

from .core.export import load_model
from .core.model import Model
from .core.recipe import Recipe
from .core.run_folder import run_recipe, run_weights
from .evaluations import kept_evaluations
from .nn.foreign import export_bert, export_hf, to_bert_config, to_hf_config
from .nn.masked_autoencoder import MaskedAutoencoder
from .nn.token_model import TokenModel


def counterpart(model: Model[Any]) -> str:
    """The class of transformers that has a model's architecture. ValueError, which says why, if there is none."""
    if isinstance(model, TokenModel):
        _ = to_bert_config(model)
        return "BertForMaskedLM"
    if isinstance(model, MaskedAutoencoder):
        return "VideoMAEForPreTraining" if "num_frames" in to_hf_config(model) else "ViTMAEForPreTraining"
    raise ValueError(f"transformers has no counterpart of a {type(model).__name__}")


def export_run(run: str | Path, out: str | Path, data: SplitLocation | None = None) -> str:
    """Writes the newest weights of a run into the new folder `out`; returns the class whose `from_pretrained` reads it.

    Beside config.json and model.safetensors there are preprocessor_config.json for pictures and video, tokenizer.json
    of the split `data` for texts, and README.md. ValueError for a model without a counterpart, for texts without
    `data`, and for a folder that is not empty.
    """
    run, out = local_path(run, "the run"), local_path(out, "out")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there and not empty; give a new folder")
    recipe, weights = run_recipe(run), run_weights(run)
    model = load_model(weights)
    name = counterpart(model)
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as made:
        new = Path(made) / out.name
        if isinstance(model, TokenModel):
            if data is None:
                raise ValueError("a model of texts is of no use without its tokenizer; give the split it trained on")
            export_bert(model, new)
            _write_tokenizer(new, Manifest.load(data), model)
        elif isinstance(model, MaskedAutoencoder):
            export_hf(model, new)
            _write_json(new / "preprocessor_config.json", _processor(recipe))
        (new / "README.md").write_text(_card(run, recipe, name))
        new.replace(out)  # an empty folder too
    return name


def _processor(recipe: Recipe[Any]) -> Mapping[str, object]:
    """What transformers does to pictures: the short side to the recipe's size, its centre, ImageNet's moments."""
    config = recipe.data
    assert isinstance(config, VideoData | ImageData)  # what `counterpart` takes has no other data
    video = isinstance(config, VideoData)
    side = config.clip.size if isinstance(config, VideoData) else config.size
    square = {"height": side, "width": side}
    return {
        "image_processor_type": "VideoMAEImageProcessor" if video else "ViTImageProcessor",
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


def _write_tokenizer(folder: Path, split: Manifest, model: TokenModel) -> None:
    """The split's tokenizer with the names of its special tokens. ValueError if the model has fewer ids."""
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


def _write_json(path: Path, data: Mapping[str, object]) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n")


def _card(run: Path, recipe: Recipe[Any], name: str) -> str:
    """The model card: what reads it, how it was trained, and what the run's evaluation.json says of it."""
    lines = [
        f"# {run.resolve().name}",
        "",
        f"`transformers.{name}.from_pretrained(FOLDER)` reads it. It was trained with the recipe `{recipe.name}` of "
        "[maskstream](https://pypi.org/project/maskstream/).",
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
