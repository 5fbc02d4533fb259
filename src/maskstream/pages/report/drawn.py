"""Draws the examples of an evaluation."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby, islice
from typing import Any

import cv2
import numpy as np
from torch import Tensor

from maskstream.pages.figures.card import Card, Fact, Facts, Section, WordPieces, join_picture_row, label_words
from maskstream.pages.figures.figures import Figures
from maskstream.pages.figures.mesh import MeshFigures
from maskstream.pages.figures.pictures import coloured, draw_row, picture, resize
from maskstream.pages.figures.points import BOX, FADED, INK, MADE, SEEN, Colour, draw_cloud, marked, token_boxes
from maskstream.pages.figures.text import ImageTextFigures
from maskstream.pages.figures.video import VideoFigures, choose_picture_side, draw_whole_frames, join_frame_rows
from maskstream.pipelines.modalities.points.tokens import VoxelTokens, number_point_tokens, scale_to_voxels
from maskstream.preprocess.encode.text.tokenizer import load_tokenizer
from maskstream.shards.arrays import Bools, UInt8s
from maskstream.train.evaluate.evaluation import (
    Clips,
    Compared,
    Confusion,
    Example,
    Pictures,
    ShownSamples,
    Similarities,
)
from maskstream.train.papers.fastdit3d.evaluate import DenoisedClouds, Generated
from maskstream.train.papers.medthink.evaluate import Writing
from maskstream.train.papers.meshmask.evaluate import Rollouts
from maskstream.train.papers.spiking_mst.evaluate import Spiked

from .rollout_report import draw_rollout_cards

SIDE_PX, ACROSS = 96, 4
"""Side of images in sets in pixels, and number of images in a row."""
MATRIX_PX = 480
CONFUSIONS = 5
"""Number of pairs of classes to describe in words."""
STEP_PX, NEURON_PX = 10, 3
"""Width and height of a spike in pixels."""
BESIDE = 4
"""Number of generated and of real clouds shown per category."""
REACH = 2.4
"""Half width of an image of a cloud, in standard deviations of its coordinates."""


def make_sections(examples: Sequence[Example], figures: Figures[Any], names: Sequence[str]) -> tuple[Section, ...]:
    """Return a section for each title of examples.

    Args:
        examples: The examples.
        figures: Figures of their batches.
        names: Names of the labels.
    """
    made = []
    for (title, reading), several in groupby(examples, lambda one: (one.title, one.reading)):
        some = list(several)
        cards = tuple(card for one in some for card in _draw_cards(one, figures, names))
        layout = "columns"
        if isinstance(some[0], ShownSamples) and not some[0].answers:
            layout = "whole"
        if isinstance(some[0], Rollouts) or (isinstance(some[0], Compared) and some[0].wide):
            layout = "wide"
        made.append(Section(title=title, words=reading, cards=cards, layout=layout))
    return tuple(made)


def _draw_cards(one: Example, figures: Figures[Any], names: Sequence[str]) -> Iterator[Card]:
    match one:
        case Compared():
            yield from _draw_compared(one, figures)
        case Spiked():
            yield from _draw_spikes(one, figures, names)
        case ShownSamples():
            for i, row in enumerate(one.rows):
                card = figures.sample(one.batch, row)
                if one.answers:
                    card = replace(card, note=f"The model predicts {label_words(one.answers[i], names)}.", missing=())
                yield card
        case Pictures():
            for name, images in one.sets.items():
                small = resize(images.numpy(), SIDE_PX, SIDE_PX)
                items = (picture(image, f"{name} {i + 1}") for i, image in enumerate(small))
                yield Card(key=name, words="", figures=(join_picture_row(*items, across=ACROSS),))
        case Clips():
            yield from _draw_clips(one, figures)
        case Similarities():
            for name, values in one.of.items():
                words = f"{len(values)} pairs"
                yield _draw_matrix(name, values, words, f"{name}: similarity of {len(values)} clips and audio")
        case Confusion():
            yield _draw_confusion(one.of, names)
        case Writing():
            for i in range(len(one.made)):
                yield _draw_answered(figures, one, i)
        case Rollouts():
            if not isinstance(figures, MeshFigures):
                raise TypeError(f"rollouts are drawn by MeshFigures, got {type(figures).__name__}")
            yield from islice(draw_rollout_cards(figures, one.trajectories, one.made), one.shown)
        case Generated():
            yield from _draw_generated(one.made, one.real, one.label, names)
        case DenoisedClouds():
            yield from _draw_denoised(one)
        case _:
            raise TypeError(f"no page draws a {type(one).__name__}; add it to pages/report/drawn.py")


def _draw_compared(one: Compared, figures: Figures[Any]) -> Iterator[Card]:
    for i, row in enumerate(one.rows):
        if isinstance(figures, VideoFigures):
            card = figures.compared(one.batch, one.made, row, one.guess)
        else:
            card = figures.compared(one.batch, one.made, row)
        if one.errors:
            words = ", ".join(f"{name} {value:.2f}" for name, value in one.errors[i].items())
            card = replace(card, words=f"{words[0].upper()}{words[1:]}")
        yield card


def _draw_clips(one: Clips, figures: Figures[Any]) -> Iterator[Card]:
    """Draw all versions of each clip below each other."""
    if not isinstance(figures, VideoFigures):
        raise TypeError(f"clips are drawn by VideoFigures, got {type(figures).__name__}")
    side = choose_picture_side(len(one.sets) * one.times_s.numel())
    for i, key in enumerate(one.keys):
        rows = {name: draw_whole_frames(frames[i].numpy(), figures.grid, side) for name, frames in one.sets.items()}
        yield Card(key=key, words="", figures=join_frame_rows(rows, one.times_s[i].tolist()))


def _draw_matrix(name: str, of: Tensor, words: str, alt: str) -> Card:
    """Draw values (n, n): dark is low, bright is high."""
    values = of.numpy()
    low, high = float(values.min()), float(values.max())
    image = coloured(values, low, high, cv2.COLORMAP_MAGMA)
    scale = max(1, MATRIX_PX // len(values))
    large = image.repeat(scale, axis=0).repeat(scale, axis=1)
    return Card(key=name, words=words, figures=(join_picture_row(picture(large, alt, lossless=True)),))


def _draw_confusion(counts: Tensor, names: Sequence[str]) -> Card:
    """Draw the fractions of each class's samples by predicted class, and describe the most frequent confusions."""
    of = counts.sum(dim=1, keepdim=True)
    wrong = counts.clone().fill_diagonal_(0)
    most = [divmod(int(i), len(counts)) for i in wrong.flatten().argsort(descending=True, stable=True)[:CONFUSIONS]]
    told = [
        f"{int(wrong[true, said])} of {int(of[true])} {label_words(true, names)} as {label_words(said, names)}"
        for true, said in most
        if wrong[true, said]
    ]
    words = f"Most frequent mistakes: {', '.join(told)}." if told else "No mistakes."
    share = counts / of.clamp_min(1)
    return _draw_matrix("classes", share, words, f"predictions for each of {len(counts)} classes")


def _draw_spikes(one: Spiked, figures: Figures[Any], names: Sequence[str]) -> Iterator[Card]:
    """Draw images with the spikes of each kind of neuron."""
    for i, row in enumerate(one.rows):
        card = figures.sample(one.batch, row)
        rasters = {
            f"{kind}: {float(marks[i].float().mean()):.1%}": _draw_raster(marks[i].numpy())
            for kind, marks in one.spikes.items()
        }
        words = "Time runs to the right; the fraction of steps with a spike is below each."
        energy = Fact(name="Energy of its spikes", value=f"{one.energy_nj[i]:,.0f} nJ")
        yield replace(
            card,
            figures=(*card.figures, draw_row(rasters, card.key, title="Spikes", words=words, across=3, lossless=True)),
            note=f"The network predicts {label_words(one.answers[i], names)}.",
            facts=(Facts(items=(energy,)),),
            missing=(),
        )


def _draw_raster(marks: Bools) -> UInt8s:
    """Draw spikes (neurons, steps), dark on light."""
    large = np.kron(marks, np.ones((NEURON_PX, STEP_PX), np.bool_)).astype(np.bool_)
    return np.where(large[..., None], np.array([29, 78, 216]), np.array([238, 240, 245])).astype(np.uint8)


def _draw_answered(figures: Figures[Any], one: Writing, i: int) -> Card:
    """Draw the card of a question with true and written texts."""
    if not isinstance(figures, ImageTextFigures):
        raise TypeError(f"answers need ImageTextFigures, got {type(figures).__name__}")
    card = figures.sample(replace(one.batch, text_mask=None, image_mask=None), i)
    texts, true, made = [], one.true[i], one.made[i]
    for role, ids in true.items():
        texts.append(_words(figures, ids, f"The {role}"))
        if role in made:
            other = "" if made[role] == ids else ", another"
            texts.append(_words(figures, made[role], f"The {role} written by the model{other}"))
    return replace(card, figures=(*card.figures, *texts), missing=(), words="", label=None)


def _words(figures: ImageTextFigures, ids: Sequence[int], title: str) -> WordPieces:
    said = load_tokenizer(figures.text.tokenizer).decode(list(ids)) or "nothing"
    return WordPieces(pieces=tuple((word, "", True) for word in said.split()), title=title)


def _draw_generated(made: Tensor, real: Tensor, label: Tensor, names: Sequence[str]) -> Iterator[Card]:
    for of in sorted(set(label.tolist())):
        chosen = (label == of).nonzero()[:BESIDE, 0].tolist()
        key = names[of] if 0 <= of < len(names) else "no category"
        rows = tuple(
            join_picture_row(*(picture(_draw_cloud(clouds[i], colour), f"{word} of {key}") for i in chosen), title=word)
            for word, clouds, colour in (("made", made, MADE), ("real", real, INK))
        )
        yield Card(key=key, words="", figures=rows)


def _draw_denoised(one: DenoisedClouds) -> Iterator[Card]:
    tokens, half = VoxelTokens(resolution=one.resolution, patch=one.patch), one.resolution / 2
    for i, key in enumerate(one.keys):
        places = scale_to_voxels(one.noised[i][None], one.resolution)
        visible = np.isin(np.arange(tokens.grid.size), one.visible[i].numpy())
        seen = visible[number_point_tokens(places, one.resolution, one.patch)[0].numpy()]
        colours, boxes = marked(seen, SEEN, FADED), token_boxes(tokens, (visible, BOX))
        shown = {
            "original": _draw_cloud(one.clean[i], INK),
            "noised, with visible tokens": draw_cloud((places[0] - half).numpy(), colours, reach=half, **boxes),
            "denoised with the mask": _draw_cloud(one.masked[i], MADE),
            "without a mask": _draw_cloud(one.whole[i], MADE),
        }
        share = f"{float(one.kept[i]):.0%} of its variance is left"
        words = f"{share}; the mask shows {int(seen.sum())} of {len(one.clean[i])} points"
        yield Card(key=key, words=words, figures=(draw_row(shown, key),))


def _draw_cloud(points: Tensor, colour: Colour) -> UInt8s:
    return draw_cloud(points.clamp(-REACH, REACH).numpy(), colour, reach=REACH)
