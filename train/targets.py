"""How a model goes to transformers and to timm: its files, and the code of a model card."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from maskstream.pipelines.modalities.image.data import ImageData
from maskstream.pipelines.modalities.video.batch import IMAGENET_MEAN, IMAGENET_STD
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.tokenizer import TOKENIZER_JSON, TokenizerFacts

from .classifiers import classifier_counterpart, with_classes
from .core.data import told_label_names
from .core.model import Model
from .core.recipe import Recipe
from .evaluate.features import GivesFeatures
from .evaluate.finetune import Classifier, EncoderClassifier
from .evaluate.raw import RawKind, RawTexts
from .nn.counterpart import Counterpart, TimmCounterpart, timm_counterpart
from .nn.foreign import bert_counterpart, hf_counterpart
from .nn.masked_autoencoder import MaskedAutoencoder
from .nn.media_tokens import ImageTokens, SpectrogramTokens
from .nn.token_model import TokenModel
from .nn.transformer import BlockSizes
from .papers import tables

NO_LINES = (
    "a model card cannot read raw samples of {} with these settings (a transform of your own, align='gop', a drawn "
    "length, several channels or other features than Fbank)"
)
CARDS = Path(__file__).parent / "cards"
"""The lines of cards that make raw samples what a model reads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """How a model goes to a target. reader: what reads the folder. call: how it is called. write: writes the model's
    files into it. card: lines of Python that define `features`, or `scores` of a classifier, for the model card. own:
    lines that define `by_processor` by the target's own processor, which comes near them; "" where it has none. inputs:
    the tensors of a batch that the card takes; none where it takes raw samples. classes: of a classifier.
    """

    reader: str
    call: str
    write: Callable[[Path], None]
    card: str
    own: str = ""
    inputs: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()


def counterpart(model: Model[Any]) -> Counterpart:
    """What transformers has of a model's architecture. ValueError, which says why, if there is nothing."""
    own = [make for table in tables("export", "HF") for kind, make in table.items() if kind is type(model)]
    if own:
        found: Counterpart = own[0](model)
        return found
    if isinstance(model, Classifier | EncoderClassifier):
        body: Any = getattr(model, "body", None)
        has_own = any(type(body) in table for table in tables("export", "HF"))
        return classifier_counterpart(model, counterpart(body) if has_own else None)
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
    """What timm has of a model's encoder, or of a classifier. ValueError, which says why, if there is nothing."""
    for table in tables("export", "TIMM"):
        if type(model) in table:
            found: TimmCounterpart = table[type(model)](model)
            return found
    tokens: object = getattr(model, "tokens", None)
    if not isinstance(model, MaskedAutoencoder | Classifier) or not isinstance(tokens, ImageTokens | SpectrogramTokens):
        raise ValueError(f"timm's VisionTransformer reads pictures and spectrograms, got a {type(model).__name__}")
    if isinstance(model, Classifier) and model.norm is not None:
        raise ValueError("timm normalises tokens before their mean; fine-tune again with --set model.norm=tokens")
    of, head = (model.config.of, model.head) if isinstance(model, Classifier) else (model.config, None)
    return timm_counterpart(model.encoder, tokens, BlockSizes(of.depth, of.heads, of.mlp_ratio, of.eps), head)


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


def list_classes(model: Model[Any], run: Path, split: Manifest) -> list[str]:
    """The names of the classes that a run's classifier scores, in their order; none for other models. Runs of earlier
    releases do not say them: they are the split's. ValueError where the split has another number.
    """
    if not isinstance(model, Classifier | EncoderClassifier):
        return []
    names = told_label_names(run) or split.label_names
    if len(names) != model.config.classes:
        raise ValueError(
            f"{split} has {len(names)} classes, and the model {model.config.classes}; name the split it trained on"
        )
    return list(map(str, names))


def read_lines(kind: RawKind) -> str:
    """The lines of a card that read raw samples, with their settings."""
    code = (CARDS / f"{kind.card}.py").read_text().partition('"""\n\n')[2]
    for name, value in kind.settings.items():
        code, changed = re.subn(
            rf"^{name}(: [^=]*)? = .*$", rf"{name}\1 = {value!r}", code, count=1, flags=re.MULTILINE
        )
        assert changed, name
    return code.rstrip()


PIXELS = {
    "picture": f'''
mean, std = torch.tensor({IMAGENET_MEAN}), torch.tensor({IMAGENET_STD})


def to_values(images):
    """The pixels that the model reads, float32 (B, 3, SIZE, SIZE), of files or of uint8 (H, W, 3) of any size."""
    return ((torch.from_numpy(read_pictures(images)) / 255 - mean) / std).permute(0, 3, 1, 2)''',
    "clip": f'''
mean, std = torch.tensor({IMAGENET_MEAN}), torch.tensor({IMAGENET_STD})


def to_values(videos):
    """The pixels that the model reads, float32 (B, FRAMES, 3, SIZE, SIZE), of files or of uint8 (T, H, W, 3)."""
    return ((torch.from_numpy(read_clips(videos)) / 255 - mean) / std).permute(0, 1, 4, 2, 3)''',
    "sound": '''

def to_values(sounds):
    """The spectrograms that the model reads, float32 (B, 1, FRAMES, BINS), of files or pairs of samples and rate."""
    return read_sounds(sounds)[:, None]''',
}
"""The lines that make values of samples, by the name of those that read them."""


def define(kind: RawKind | None, classes: Sequence[str], plural: str = "") -> tuple[str, str]:
    """The head of the function that a card defines, and its docstring."""
    plural = plural or (kind.plural if kind else "inputs")
    if classes:
        return f"def scores({plural}):", '"""The score of each class, float32 (B, C), in the order of `classes`."""'
    return (
        f"def features({plural}):",
        f'"""The mean of the last states of the tokens of each of some {plural}: float32 (B, D)."""',
    )


def to_hf(model: Model[Any], recipe: Recipe[Any], kind: RawKind | None, classes: Sequence[str]) -> Way:
    found = counterpart(model)
    if kind is None:
        raise ValueError(NO_LINES.format(type(recipe.data).__name__))
    if classes:
        found = with_classes(found, classes)

    def write(folder: Path) -> None:
        if isinstance(kind, RawTexts):
            vocabulary = int(found.config["vocab_size"])
            if kind.facts.vocabulary > vocabulary:
                raise ValueError(
                    f"the tokenizer of this split has {kind.facts.vocabulary:,} ids, and the model {vocabulary:,}; "
                    "give the split that it trained on"
                )
            more = write_tokenizer(folder, kind)
            replace(found, config={**found.config, **more}).write(folder)
            return
        found.write(folder)
        _write_json(folder / _processor_file(found), _processor(recipe, found))

    options = "".join(f", {name}={value!r}" for name, value in found.options.items())
    load = f'model = {found.encoder}.from_pretrained("."{options}).eval()'
    if classes:
        load += "\nclasses = [model.config.id2label[n] for n in range(model.config.num_labels)]"
    head, about = define(kind, classes)
    reader = f"transformers.{found.name}"
    if isinstance(kind, RawTexts):
        card, own = _text_card(found, load, head, about, classes), ""
    else:
        card, own = _hf_card(found, kind, load, head, about, classes), _hf_processor(kind, found)
    call = f"{reader}.from_pretrained(FOLDER)"
    return Way(reader=reader, call=call, write=write, card=card, own=own, classes=tuple(classes))


def _text_card(found: Counterpart, load: str, head: str, about: str, classes: Sequence[str]) -> str:
    if classes:
        result = "        return model(**inputs).logits"
    else:
        result = """        states = model(**inputs).last_hidden_state
    mask = inputs["attention_mask"][..., None]
    return (states * mask).sum(1) / mask.sum(1)"""
    return f"""import torch
from transformers import AutoTokenizer, {found.encoder}

tokenizer = AutoTokenizer.from_pretrained(".")
{load}


{head}
    {about}
    tokens = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
    inputs = {{name: tokens[name] for name in ("input_ids", "attention_mask")}}
    with torch.no_grad():
{result}"""


def _hf_card(found: Counterpart, kind: RawKind, load: str, head: str, about: str, classes: Sequence[str]) -> str:
    call = "".join(f", {name}={value!r}" for name, value in found.call.items())
    take = ".logits" if classes else f".last_hidden_state[:, {found.class_tokens}:].mean(1)"
    return f"""{read_lines(kind)}


import torch
from transformers import {found.encoder}

{load}{PIXELS[kind.card]}


def encode(values):
    with torch.no_grad():
        return model({found.pixels}=values{call}){take}


{head}
    {about}
    return encode(to_values({kind.plural}))"""


def _hf_processor(kind: RawKind, found: Counterpart) -> str:
    """The lines with the processor of transformers."""
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
    found = timm_of(model)
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
    head, told = define(kind, classes)
    named = '\nclasses = json.loads(open("config.json").read())["label_names"]' if classes else ""
    card = f"""{read_lines(kind)}


import json

import timm
import torch

model = timm.create_model("local-dir:.", pretrained=True).eval(){named}{PIXELS[kind.card]}


def encode(values):
    with torch.no_grad():
        return model(values)


{head}
    {told}
    return encode(to_values({kind.plural}))"""
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


def _processor_file(found: Counterpart) -> str:
    return "preprocessor_config.json" if found.pixels == "pixel_values" else "video_preprocessor_config.json"


def _processor(recipe: Recipe[Any], found: Counterpart) -> Mapping[str, object]:
    """What transformers does to pictures: the centred square at the recipe's size, and ImageNet's moments.

    Perceiver's processor crops before it resizes, as the loader does. The one that is named after V-JEPA 2 would resize
    by 256 / 224 more, so VideoMAE's is named for it.
    """
    config = recipe.data
    assert isinstance(config, VideoData | ImageData)  # what `counterpart` takes has no other data
    video = isinstance(config, VideoData)
    side = config.clip.size if isinstance(config, VideoData) else config.size
    square = {"height": side, "width": side}
    kind = {"image_processor_type": "VideoMAEImageProcessor" if video else "PerceiverImageProcessor"}
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
        "do_center_crop": True,
        "crop_size": square,
        "resample": 2 if video else 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": IMAGENET_MEAN,
        "image_std": IMAGENET_STD,
    }


def write_tokenizer(folder: Path, kind: RawTexts) -> dict[str, int]:
    """The split's tokenizer with the names of its special tokens, which adds those that stand around a text in
    training; returns their ids, for the model's config.
    """
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing

    facts = kind.facts
    tokenizer = Tokenizer.from_str(kind.definition.decode())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    begin, end = ([] if one is None else [one] for one in (facts.begin, facts.end))
    alone = tokenizer.encode("a b", add_special_tokens=False).ids
    if tokenizer.encode("a b").ids != [*begin, *alone, *end]:
        names = {one: tokenizer.id_to_token(one) for one in (*begin, *end)}
        template = [*(names[one] for one in begin), "$A", *(names[one] for one in end)]
        pair = [*template, "$B:1", *(f"{names[one]}:1" for one in end)]
        special = [(name, one) for one, name in names.items()]
        tokenizer.post_processor = TemplateProcessing(single=template, pair=pair, special_tokens=special)
    (folder / TOKENIZER_JSON).write_text(tokenizer.to_str())
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": kind.length}
    _write_json(folder / "tokenizer_config.json", {**about, **_special_names(facts, tokenizer.id_to_token)})
    roles = {"pad": facts.pad, "cls": facts.begin, "sep": facts.end, "bos": facts.begin, "eos": facts.end}
    return {f"{role}_token_id": one for role, one in roles.items() if one is not None}


def _special_names(facts: TokenizerFacts, name_of: Callable[[int], str | None]) -> dict[str, str | None]:
    """The names of special tokens, by transformers' words for them."""
    ids = {"pad": facts.pad, "unk": facts.unknown, "cls": facts.begin, "sep": facts.end, "mask": facts.mask}
    return {f"{role}_token": name_of(one) for role, one in ids.items() if one is not None}


def _write_json(path: Path, data: Mapping[str, object]) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n")
