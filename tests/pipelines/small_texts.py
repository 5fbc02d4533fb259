"""Small samples of texts, alone and with images, by encoders that are trained on all of them."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from maskstream.preprocess.encode.image_text.encoder import ImageTextEncoder, ImageTokenEncoder
from maskstream.preprocess.encode.text.encoder import TextEncoder, TokenEncoder
from maskstream.preprocess.source import Source as Raw
from maskstream.shards.format.sample import Sample
from maskstream.shards.members.arrays import array_member
from maskstream.shards.members.member import Member
from maskstream.shards.members.text import json_member

from .small_media import SAMPLES, image_samples, sample_rows

STORY = "the quick brown fox jumped over the lazy dog and ran home while unbelievably many old birds sang"


def text_of(i: int) -> str:
    """Text `i`, of 20 words and more."""
    words = np.random.default_rng(i).choice(STORY.split(), 20 + i)
    return f"{' '.join(words)}."


@cache
def text_encoder() -> TokenEncoder:
    """An encoder whose tokenizer is trained on all texts, with a lexicon of four words."""
    sources = [Raw(id=f"{i}", path=Path(), computed=True, meta={"text": text_of(i)}) for i in range(SAMPLES)]
    with tempfile.TemporaryDirectory() as folder:
        for name, line in {"noun": "fox n", "verb": "run v", "adj": "lazy a", "adv": "home r"}.items():
            (Path(folder) / f"index.{name}").write_text(f"{line} 1 0 1 1 01\n")
        return TextEncoder(tokenizer="train:bpe:300", classes=folder).prepared({"train": sources})


def text_samples(raw: Path) -> list[Sample]:
    samples = []
    for i in range(SAMPLES):
        (raw / f"{i}.txt").write_text(text_of(i))
        made = text_encoder().encode(Raw(id=f"{i}", path=raw / f"{i}.txt"))
        members = {**made.members, "json": json_member(made.meta)}
        samples.append(Sample(key=f"s{i}", members=members, source=f"{i}", label=i % 2))
    return samples


def text_rows(batch: Any) -> list[list[Any]]:
    """Those of the rows, and the tokens of the form without padding, which has no rows."""
    mask = batch.mask
    real = [mask.target[i, : mask.n_target[i]].tolist() for i in range(len(batch))]
    arrays = (batch.tokens, batch.documents, batch.words, batch.classes, batch.lengths, mask.masked, mask.tokens)
    places = batch.unpadded.index // batch.tokens.shape[1]
    unpadded = [batch.unpadded.tokens[places == i].tolist() for i in range(len(batch))]
    return [
        [batch.key[i], int(batch.label[i]), real[i], unpadded[i], *(one[i].tolist() for one in arrays)]
        for i in range(len(batch))
    ]


def image_text_source(i: int, path: Path) -> Raw:
    """A picture with a caption, one to three questions with their answers, and a phrase with its box."""
    words = text_of(i).split()
    questions = [f"is it {word}?" for word in words[: 1 + i % 3]]
    meta = {
        "caption": text_of(i),
        "question": questions,
        "answer": [f"{word} {n}" for n, word in enumerate(words[: 1 + i % 3])],
        "rationale": f"it says {words[0]}",
        "phrase": f"the {words[0]}",
        "box": [[10, 5 + i, 20, 30]],
    }
    return Raw(id=f"{i}", path=path, meta=meta)


@cache
def image_text_encoder() -> ImageTokenEncoder:
    """An encoder whose tokenizer is trained on all texts."""
    sources = [image_text_source(i, Path()) for i in range(SAMPLES)]
    return ImageTextEncoder(tokenizer="train:wordpiece:300").prepared({"train": sources})


def image_text_samples(raw: Path) -> list[Sample]:
    image_samples(raw)
    samples = []
    for i in range(SAMPLES):
        source = image_text_source(i, raw / f"{i}.jpg")
        made = image_text_encoder().encode(source)
        members = {**made.members, "json": json_member({**source.meta, **made.meta})}
        members["segments.npy"] = segment_member(made.meta["width"], made.meta["height"], *source.meta["box"][0])
        samples.append(Sample(key=f"s{i}", members=members, source=f"{i}", label=i % 2))
    return samples


def segment_member(width: int, height: int, x: int, y: int, w: int, h: int) -> Member:
    """The segment of a phrase: its whole box."""
    shown = np.zeros((1, height, width), np.bool_)
    shown[:, y : y + h, x : x + w] = True
    return array_member(np.packbits(shown, axis=-1))


def image_text_rows(batch: Any) -> list[list[Any]]:
    """Those of the rows; targets of masks without the padding, which depends on the rest of the batch."""
    found = sample_rows(replace(batch, image_mask=None, text_mask=None))
    for i, row in enumerate(found):
        for mask in (batch.image_mask, batch.text_mask):
            row += [mask.masked[i].tolist(), mask.target[i, : mask.n_target[i]].tolist()]
        row.append(batch.text_mask.tokens[i].tolist())
    return found
