"""A report's sections on point clouds: reconstructed groups, or denoised and generated clouds."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ....pipelines.modalities.points.batch import PointsBatch
from ....pipelines.modalities.points.data import PointsData
from ....pipelines.modalities.points.voxels import point_tokens, voxel_places
from ....shards.format.manifest import Manifest
from ....train.papers.fastdit3d import evaluate as voxels
from ....train.papers.fastdit3d.model import VoxelDiffusion, noise_of
from ....train.papers.fastdit3d.noise_errors import VIEWS
from ....train.papers.pointmae import evaluate as point_groups
from ....train.papers.pointmae.model import PointAutoencoder
from ...figures.card import Card, Picture, Pictures, Section, label_names
from ...figures.cloud_picture import FADED, INK, MADE, SEEN, cloud_picture, marked
from ...figures.figures import Figures
from ...figures.pictures import data_uri
from ...figures.points import cloud
from ...figures.work import Work, compared

COMPLETION = (
    "Held-out clouds. The encoder saw the orange groups; the blue groups are the model's predictions. The model knows "
    "the centres of the hidden groups, so what it predicts are the shapes around them."
)
ERRORS = (
    "How far the model's squared error of the noise on held-out clouds lies below that of a baseline, by noise level. "
    "The baseline knows only that points have mean 0 and variance 1. The largest possible margin is that of a "
    "predictor that knows the cloud itself; it is small because the noise of a single point is random."
)
REMOVAL = (
    "Held-out clouds, and the same with the noise of one time. With the mask the encoder saw only the tokens whose "
    "boxes are drawn, which hold the orange points. To the right, the noise that the model predicts was removed in a "
    "single step. This gives the mean of all clouds that are possible, so the more noise there was, the more it is "
    "blurred."
)
MAKING = (
    f"Clouds that the model generated from noise in {voxels.STEPS} steps for each category, and held-out real clouds "
    "of that category. They are the first ones, not selected."
)
BESIDE = 4
"""The number of generated and of real clouds shown per category."""
SHOWN_AT = (0.9, 0.7, 0.5, 0.3)
"""The shares of variance left in the noised clouds that are shown; the nearest ones measured are taken."""
REACH = 2.4
"""The half width of a picture, in standard deviations of a cloud's coordinates."""


def show_groups(
    config: PointsData, model: PointAutoencoder, data: str | Path, shown: int, figures: Figures[PointsBatch]
) -> Work:
    """Reconstructions of the first clouds."""
    clouds = point_groups.held_out_clouds(config, data)
    title = "Hidden groups and the model's predictions"
    section = compared(figures, clouds[0], model, title=title, words=COMPLETION, rows=shown)
    return Work(found=point_groups.held_out(config, model, clouds), sections=(section,))


def show_voxels(
    config: PointsData, model: VoxelDiffusion, data: str | Path, shown: int, figures: Figures[PointsBatch]
) -> Work:
    """Generated clouds, the errors by noise level, and denoised clouds."""
    told = voxels.held_out(config, model, data)
    names = label_names(Manifest.load(data).info)
    making = _makings(told.made, told.real, told.label, names)
    removal = _removals(model, told.batches[0], shown)
    return Work(
        found=told.found,
        sections=(
            Section(title="Generated clouds", words=MAKING, cards=making, layout="columns"),
            Section(title="Errors by noise level", words=ERRORS, numbers=told.bands),
            Section(title="Denoised clouds", words=REMOVAL, cards=removal, layout="columns"),
        ),
    )


@torch.inference_mode()
def _removals(model: VoxelDiffusion, batch: PointsBatch, shown: int) -> tuple[Card, ...]:
    (noise, time, visible), points, label = noise_of(batch), batch.points, batch.label
    kept = model.noise.kept()[time].float()
    first = torch.arange(0, len(batch), VIEWS)[:shown]
    wanted = torch.tensor([SHOWN_AT[i % len(SHOWN_AT)] for i in range(len(first))])
    views = first[:, None] + torch.arange(VIEWS)
    at = views.gather(1, (kept[views] - wanted[:, None]).abs().argmin(dim=1, keepdim=True))[:, 0]
    clean, share = points[at, :, :3], kept[at, None, None]
    noised = model.noise.noised(clean, noise[at], time[at])
    guesses = [
        (noised - (1 - share).sqrt() * model.predict(noised, time[at], label[at], seen)) / share.sqrt()
        for seen in (visible[at], None)
    ]
    cards = []
    for i, number in enumerate(at.tolist()):
        key = batch.key[number]
        with_boxes, n_seen = _seen(model, noised[i], visible[number], key)
        pictures = (
            _picture(clean[i], key, "original"),
            with_boxes,
            _picture(guesses[0][i], key, "denoised with the mask", MADE),
            _picture(guesses[1][i], key, "without a mask", MADE),
        )
        words = f"{share[i].item():.0%} of its variance is left; the mask shows {n_seen} of {len(clean[i])} points"
        cards.append(Card(key=key, words=words, figures=(Pictures(items=pictures, across=len(pictures)),)))
    return tuple(cards)


def _picture(points: Tensor, key: str, word: str, colour: tuple[int, int, int] = INK, caption: bool = True) -> Picture:
    shown = points.clamp(-REACH, REACH).numpy()
    return cloud(shown, colour, reach=REACH, alt=f"{word} of {key}", caption=word if caption else "")


def _seen(model: VoxelDiffusion, noised: Tensor, visible: Tensor, key: str) -> tuple[Picture, int]:
    """A picture of noised points (N, 3) with the boxes of visible tokens (V,), and how many points lie in them."""
    resolution, patch = model.resolution, model.patch
    places = voxel_places(noised[None], resolution)
    seen = torch.isin(point_tokens(places, resolution, patch)[0], visible).numpy()
    middle = (resolution - 1) / 2
    low = torch.stack(torch.unravel_index(visible, (model.side,) * 3), dim=1) * patch - 0.5 - middle
    cube = (places[0] - middle).numpy()
    boxes, colours = low.float().numpy(), marked(cube, seen, SEEN, FADED)
    picture = cloud_picture(cube, colours, boxes=boxes, box_side=float(patch), reach=resolution / 2)
    word = "noised, with what a mask shows"
    return Picture(uri=data_uri(picture), alt=f"{word} of {key}", caption=word), int(seen.sum())


def _makings(made: Tensor, real: Tensor, label: Tensor, names: tuple[str, ...]) -> tuple[Card, ...]:
    cards = []
    for of in sorted(set(label.tolist())):
        chosen = (label == of).nonzero()[:BESIDE, 0].tolist()
        key = names[of] if 0 <= of < len(names) else "no category"
        rows = tuple(
            Pictures(
                items=tuple(_picture(clouds[i], key, word, colour, caption=False) for i in chosen),
                across=len(chosen),
                title=word,
            )
            for word, clouds, colour in (("made", made, MADE), ("real", real, INK))
        )
        cards.append(Card(key=key, words="", figures=rows))
    return tuple(cards)
