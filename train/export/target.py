"""How a model is exported to transformers and to timm: its files, and the code of a model card."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from maskstream.pipelines.modalities.image.data import ImageData
from maskstream.pipelines.modalities.video.batch import IMAGENET_MEAN, IMAGENET_STD
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.train.core.model import Model
from maskstream.train.core.recipe import Recipe
from maskstream.train.nn.counterpart import Counterpart

from .architecture import convert_timm, find_counterpart, with_classes
from .card import Way, format_definition, write_card
from .raw import RawKind, RawTexts

NO_LINES = (
    "a model card cannot read raw samples of {} with these settings (a custom transform, align='gop', a drawn length, "
    "several channels or other features than Fbank)"
)


def to_hf(model: Model[Any], recipe: Recipe[Any], kind: RawKind | None, classes: Sequence[str]) -> Way:
    found = find_counterpart(model)
    if kind is None:
        raise ValueError(NO_LINES.format(type(recipe.data).__name__))
    if classes:
        found = with_classes(found, classes)

    def write(folder: Path) -> None:
        if isinstance(kind, RawTexts):
            vocabulary = int(found.config["vocab_size"])
            if kind.facts.vocabulary > vocabulary:
                raise ValueError(
                    f"the tokenizer of this split has {kind.facts.vocabulary:,} ids, but the model has "
                    f"{vocabulary:,}; pass the split that it was trained on"
                )
            more = kind.write_tokenizer(folder)
            replace(found, config={**found.config, **more}).write(folder)
            return
        found.write(folder)
        name = "preprocessor_config.json" if found.pixels == "pixel_values" else "video_preprocessor_config.json"
        (folder / name).write_text(json.dumps(_make_processor(recipe, found), indent=2) + "\n")

    options = "".join(f", {name}={value!r}" for name, value in found.options.items())
    load = f'model = {found.encoder}.from_pretrained("."{options}).eval()'
    if classes:
        load += "\nclasses = [model.config.id2label[n] for n in range(model.config.num_labels)]"
    reader = f"transformers.{found.name}"
    imports = f"import torch\nfrom transformers import {found.encoder}"
    if isinstance(kind, RawTexts):
        card, own = _format_text_card(imports, load, classes), ""
    else:
        given = "".join(f", {name}={value!r}" for name, value in found.call.items())
        take = ".logits" if classes else f".last_hidden_state[:, {found.class_tokens}:].mean(1)"
        card = write_card(kind, imports, load, f"model({found.pixels}=values{given}){take}", classes)
        own = _format_hf_processor(kind, found)
    call = f"{reader}.from_pretrained(FOLDER)"
    return Way(reader=reader, call=call, write=write, card=card, own=own, classes=tuple(classes))


def _format_text_card(imports: str, load: str, classes: Sequence[str]) -> str:
    if classes:
        result = "        return model(**inputs).logits"
    else:
        result = """        states = model(**inputs).last_hidden_state
    mask = inputs["attention_mask"][..., None]
    return (states * mask).sum(1) / mask.sum(1)"""
    return f"""{imports}, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")
{load}


{format_definition("texts", classes)}
    tokens = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
    inputs = {{name: tokens[name] for name in ("input_ids", "attention_mask")}}
    with torch.no_grad():
{result}"""


def _format_hf_processor(kind: RawKind, found: Counterpart) -> str:
    """Return the code that uses the processor of transformers."""
    if kind.card == "picture":
        return '''from transformers import AutoImageProcessor

processor = AutoImageProcessor.from_pretrained(".")


def by_processor(images):
    """The same of files by the processor of transformers."""
    pictures = [Image.open(image).convert("RGB") for image in images]
    return encode(processor(pictures, return_tensors="pt")["pixel_values"])'''
    auto, given = (
        ("AutoImageProcessor", "list(frames)") if found.pixels == "pixel_values" else ("AutoVideoProcessor", "[frames]")
    )
    return f'''from transformers import {auto}

processor = {auto}.from_pretrained(".")


def by_processor(videos):
    """The same of files by the processor of transformers, which does not choose frames."""
    values = []
    for video in videos:
        with open(video, "rb") as stream, av.open(stream) as file:
            rate = float(file.streams.video[0].average_rate)
            frames = np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])
        frames = frames[choose_frames(len(frames), rate)]
        values.append(processor({given}, return_tensors="pt")["pixel_values"])
    return encode(torch.cat(values))'''


def to_timm(model: Model[Any], kind: RawKind | None, classes: Sequence[str]) -> Way:
    found = convert_timm(model)
    if kind is None:
        raise ValueError(NO_LINES.format("data"))
    sound = found.arguments["in_chans"] == 1
    rows, columns = found.arguments["img_size"]
    about = {
        "input_size": [found.arguments["in_chans"], rows, columns],
        "fixed_input_size": True,
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "mean": (0.0,) if sound else IMAGENET_MEAN,
        "std": (1.0,) if sound else IMAGENET_STD,
    }
    load = 'model = timm.create_model("local-dir:.", pretrained=True).eval()'
    if classes:
        load += '\nclasses = json.loads(open("config.json").read())["label_names"]'
    card = write_card(kind, "import json\n\nimport timm\nimport torch", load, "model(values)", classes)
    own = '''transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))


def by_processor(images):
    """The same of files by timm's transform."""
    return encode(torch.stack([transform(Image.open(image).convert("RGB")) for image in images]))'''
    return Way(
        reader=f"timm.{found.architecture}",
        call='timm.create_model("local-dir:FOLDER", pretrained=True)',
        write=lambda folder: found.write(folder, about, classes),
        card=card,
        own="" if sound else own,
        classes=tuple(classes),
    )


def _make_processor(recipe: Recipe[Any], found: Counterpart) -> Mapping[str, object]:
    """Return the config of transformers' image processor: the centred square at the recipe's size, and ImageNet's
    moments.

    Perceiver's processor crops before it resizes, like the loader. V-JEPA 2's processor would resize by a further 256 /
    224, so VideoMAE's is used for it.
    """
    config = recipe.data
    assert isinstance(config, VideoData | ImageData)  # models with a counterpart have no other data
    about: dict[str, object] = {"image_processor_type": "PerceiverImageProcessor"}
    side, shorter = (config.size, False) if isinstance(config, ImageData) else (config.clip.size, True)
    square = {"height": side, "width": side}
    if isinstance(config, VideoData):
        kind = "image" if found.pixels == "pixel_values" else "video"
        about = {f"{kind}_processor_type": f"VideoMAE{kind.title()}Processor"}
        about |= {"num_frames": config.clip.frames, "frame_stride": config.clip.stride}
    return {
        **about,
        "do_resize": True,
        "size": {"shortest_edge": side} if shorter else square,
        "do_center_crop": True,
        "crop_size": square,
        "resample": 2 if shorter else 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": IMAGENET_MEAN,
        "image_std": IMAGENET_STD,
    }
