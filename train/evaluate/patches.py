"""How well a masked autoencoder predicts hidden patches, beside guesses of them by no model; and pictures that it
completes.

Cubes are float32 (B, N, 3 * pixels) in the units of the encoder's inputs, in (c t h w) order within a cube; guesses are
of the target cubes, (B, M, 3 * pixels).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from maskstream.pipelines.masks import MaskBatch, TokenGrid
from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.modalities.image.data import ImageData
from maskstream.pipelines.stream.sampler import BatchT
from maskstream.shards.format.manifest import Manifest
from maskstream.train.core.model import LossPart, squared
from maskstream.train.nn.grid import gather_tokens
from maskstream.train.nn.masked_autoencoder import MaskedAutoencoder
from maskstream.train.nn.media_tokens import ImageTokens, VideoTokens

from .evaluation import NORMALISED, Compared, Evaluation, Mixture, Score, TrainingLoss, centred, read_shuffled

Guess = Callable[[VideoTokens, Tensor, MaskBatch], Tensor]
"""Of tokens, cubes and masks, the guesses."""
POWER = 4.0
"""Of the distance, in `interpolate_colours`: of 2, 3, 4 and 6 the best on the sample clips."""
FRAME_PX = 4.0
"""The distance of two frames that lie one after the other in a clip, as `interpolate_colours` counts it, in pixels."""
ROUNDS = 40
RELAXATION = 1.85
"""Of the over-relaxation in `interpolate_pixels`; after 100 rounds its error on the sample clips is 0.2 % lower."""
MEAN, COPY = "the mean of the visible pixels", "a copy of the nearest visible token"
COLOURS, HARMONIC = "interpolation of the visible tokens' colours", "harmonic interpolation of the visible pixels"
SHRUNK = "a copy of the nearest visible token, shrunk towards the mean"
UNIT = "squared per-channel standard deviations (57/255)"


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchLosses:
    """Mean losses on `samples` samples: the model's; that of predicting each patch's mean; and that of copying the
    normalised values of the nearest visible patch.
    """

    model: float
    mean: float
    nearest: float
    samples: int

    @classmethod
    def of(cls, parts: Sequence[tuple[LossPart, LossPart, LossPart]], samples: int) -> Self:
        """The means over batches, of each of which there are the three losses. ValueError for no batch."""
        if not parts:
            raise ValueError("losses need at least one batch, got none; take a split with a sample in it")
        model, mean, nearest = (
            float(sum(float(one.total) for one in column) / sum(float(one.weight) for one in column))
            for column in zip(*parts, strict=True)
        )
        return cls(model=model, mean=mean, nearest=nearest, samples=samples)

    def score(self, of: str, patch: str = "patch") -> Score:
        """The model's loss, to be compared with the two others. of: what the samples are."""
        guesses = {f"every {patch}'s mean": self.mean, f"a copy of the nearest visible {patch}": self.nearest}
        name = f"squared error of a normalised {patch}"
        return Score(name=name, value=self.model, of=of, count=self.samples, baselines=guesses)


@torch.inference_mode()
def measure_patches(model: MaskedAutoencoder[BatchT], batches: Iterable[BatchT]) -> PatchLosses:
    """The losses on batches with masks; each target counts by its weight. Raises ValueError if there is no batch."""
    parts: list[tuple[LossPart, LossPart, LossPart]] = []
    samples = 0
    for batch in batches:
        data, mask = model.tokens.of(batch)
        tokens = model.tokens.split(data)
        true = model.tokens.targets(gather_tokens(tokens, mask.target))
        copied = model.tokens.targets(gather_tokens(tokens, find_nearest_visible(mask)))
        (own,) = model(batch).parts.values()
        parts.append((own, squared(torch.zeros_like(true), true, mask.weight), squared(copied, true, mask.weight)))
        samples += int((mask.weight.sum(dim=1) > 0).sum())
    return PatchLosses.of(parts, samples)


def find_nearest_visible(mask: MaskBatch) -> Tensor:
    """For each target, the number of the nearest visible token on the grid, int64 (B, M); ties go to the lowest."""
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in mask.grid.shape), indexing="ij")
    places = torch.stack([axis.flatten() for axis in axes], dim=1)
    near = []
    for target, visible, real in zip(mask.target, mask.visible, find_seen_tokens(mask), strict=True):
        apart = (places[target][:, None] - places[visible]).square_().sum(dim=2)
        near.append(visible[apart.masked_fill_(~real, torch.inf).argmin(dim=1)])
    return torch.stack(near)


def find_seen_tokens(mask: MaskBatch) -> Tensor:
    """Which entries of `mask.visible` show the encoder their content: bool (B, V)."""
    seen = mask.visible_valid
    return seen if mask.mask_token is None else seen & ~mask.mask_token.gather(1, mask.visible)


def repeat_mean(tokens: VideoTokens, cubes: Tensor, mask: MaskBatch) -> Tensor:
    """The mean colour of a clip's visible pixels, everywhere."""
    seen = find_seen_tokens(mask)[..., None]
    colours = _average_colours(gather_tokens(cubes, mask.visible))
    mean = (colours * seen).sum(dim=1) / seen.sum(dim=1).clamp(min=1)
    return _fill_cubes(mean[:, None].expand(-1, mask.target.shape[1], -1), tokens)


def copy_nearest(tokens: VideoTokens, cubes: Tensor, mask: MaskBatch) -> Tensor:
    """A copy of the nearest visible cube."""
    return gather_tokens(cubes, find_nearest_visible(mask))


def interpolate_colours(tokens: VideoTokens, cubes: Tensor, mask: MaskBatch, power: float = POWER) -> Tensor:
    """The mean of the visible cubes' colours, weighted by distance ** -power from the pixel to their centres.

    Source: inverse distance weighting (Shepard, 1968).
    """
    colours = _average_colours(gather_tokens(cubes, mask.visible))
    centres, pixels = _places(tokens)
    seen = find_seen_tokens(mask)
    made = torch.empty(*mask.target.shape, tokens.n_inputs)
    for i in range(len(cubes)):
        apart = torch.cdist(pixels[mask.target[i]].flatten(0, 1), centres[mask.visible[i]])
        weight = apart.clamp_(min=0.5).pow_(-power) * seen[i]
        mixed = (weight @ colours[i]) / weight.sum(dim=1, keepdim=True)
        made[i] = mixed.reshape(mask.target.shape[1], -1, 3).transpose(1, 2).flatten(1)
    return made


def interpolate_pixels(tokens: VideoTokens, cubes: Tensor, mask: MaskBatch, time: float = 0.05) -> Tensor:
    """Each hidden pixel as the weighted mean of its neighbours: 4 in its frame, and 2 in time that weigh `time`.

    It is solved by over-relaxation, first for the mean colours of cubes and then, from there, for pixels.
    """
    (t, h, w), (pt, ph, pw) = tokens.grid, tokens.patch
    hidden = torch.ones(cubes.shape[:2], dtype=torch.bool).scatter_(1, mask.visible, ~find_seen_tokens(mask))
    colours, known = _average_colours(cubes), ~hidden[..., None]
    mean = (colours * known).sum(dim=1, keepdim=True) / known.sum(dim=1, keepdim=True).clamp(min=1)
    coarse = torch.where(known, colours, mean).reshape(-1, t, h, w, 3)
    plane = hidden.reshape(-1, t, h, w)
    coarse = _relax_hidden(coarse, plane, time)
    start = torch.where(known, cubes, _fill_cubes(coarse.reshape(-1, t * h * w, 3), tokens))
    pixels = plane.repeat_interleave(pt, 1).repeat_interleave(ph, 2).repeat_interleave(pw, 3)
    return gather_tokens(
        _split_into_cubes(_relax_hidden(_join_cubes(start, tokens), pixels, time), tokens), mask.target
    )


GUESSES: Mapping[str, Guess] = {
    MEAN: repeat_mean,
    COPY: copy_nearest,
    COLOURS: interpolate_colours,
    HARMONIC: interpolate_pixels,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelLosses:
    """Mean squared errors over the hidden pixels of `samples` clips, in deviations: the model's, and of each guess.

    apart: the mean squared differences between the model and the guesses that it may be mixed with.
    """

    model: float
    guesses: Mapping[str, float]
    apart: Mapping[str, float]
    samples: int

    @property
    def best(self) -> str:
        """The name of the best guess."""
        return min(self.guesses, key=lambda name: self.guesses[name])

    def score(self, of: str, name: str = "MSE of hidden pixels") -> Score:
        """The model's loss beside those of the guesses. of: what the samples are."""
        return Score(name=name, value=self.model, unit=UNIT, of=of, count=self.samples, baselines=self.guesses)

    def notes(self) -> Mapping[str, float]:
        """The best mixture with the best of these guesses, and the model's share in it."""
        guess = min(self.apart, key=lambda name: self.guesses[name])
        return Mixture.combine_squares(self.model, self.guesses[guess], self.apart[guess]).notes(guess)

    def measure_training_loss(self) -> TrainingLoss:
        """That of the recipe, beside the best guess."""
        return TrainingLoss(
            name=f"The mean squared error of hidden pixels, in {UNIT}",
            baseline=self.best,
            value=self.guesses[self.best],
        )


@torch.inference_mode()
def measure_guesses(tokens: VideoTokens, predicted: Iterable[tuple[Tensor, MaskBatch, Tensor]]) -> PixelLosses:
    """The losses of a model of pixels and of all guesses; ValueError where nothing is hidden.

    predicted: of each batch, the cubes (B, N, 3 * pixels) of `tokens`, the masks, and what the model makes of the
    target cubes (B, M, 3 * pixels). The shrunk copy is the best of all mixtures of the nearest token's copy and the
    mean, found on these very clips.
    """
    sums, apart = dict.fromkeys(("model", *GUESSES), 0.0), dict.fromkeys(GUESSES, 0.0)
    with_copy, copies, weights, samples = 0.0, 0.0, 0.0, 0
    for cubes, mask, own in predicted:
        true = gather_tokens(cubes, mask.target)
        made = {"model": own} | {name: guess(tokens, cubes, mask) for name, guess in GUESSES.items()}
        for name, values in made.items():
            sums[name] += float(squared(values, true, mask.weight).total)
            if name != "model":
                apart[name] += float(squared(values, own, mask.weight).total)
        rest, step = true - made[MEAN], made[COPY] - made[MEAN]
        with_copy += float(((step * rest).mean(dim=2) * mask.weight).sum())
        copies += float((step.square().mean(dim=2) * mask.weight).sum())
        weights += float(mask.weight.sum())
        samples += int((mask.weight.sum(dim=1) > 0).sum())
    if not samples:
        raise ValueError("losses need at least one clip with a hidden token, got none; take a split with a sample")
    sums[SHRUNK] = sums[MEAN] - with_copy**2 / max(copies, 1e-12)
    error = sums.pop("model")
    return PixelLosses(
        model=error / weights,
        guesses={name: total / weights for name, total in sums.items()},
        apart={name: total / weights for name, total in apart.items()},
        samples=samples,
    )


def _relax_hidden(values: Tensor, hidden: Tensor, time: float) -> Tensor:
    """Values (B, T, H, W, C) where those that are `hidden` (B, T, H, W) are the means of their neighbours.

    Cells of one colour of a checkerboard depend only on the other colour, so they are all computed at once.
    """
    shares = (time, 1.0, 1.0)
    now = values.movedim(4, 1).clone(memory_format=torch.contiguous_format)
    share = 1 / _sum_neighbours(torch.ones(1, 1, *now.shape[2:]), shares).clamp_(min=1e-12)
    parity = sum(torch.meshgrid(*(torch.arange(n) for n in now.shape[2:]), indexing="ij")) % 2
    rates = [(hidden & (parity == colour))[:, None] * RELAXATION for colour in (0, 1)]
    for _ in range(ROUNDS):
        for rate in rates:
            now.add_(_sum_neighbours(now, shares).mul_(share).sub_(now).mul_(rate))
    return now.movedim(1, 4)


def _sum_neighbours(values: Tensor, shares: tuple[float, float, float]) -> Tensor:
    """The sums of the six neighbours of cells (B, C, T, H, W), weighted by their axis' share."""
    total = torch.zeros_like(values)
    for axis, share in enumerate(shares, start=2):
        n = values.shape[axis]
        total.narrow(axis, 0, n - 1).add_(values.narrow(axis, 1, n - 1), alpha=share)
        total.narrow(axis, 1, n - 1).add_(values.narrow(axis, 0, n - 1), alpha=share)
    return total


def _average_colours(cubes: Tensor) -> Tensor:
    """The mean colours (B, N, 3) of cubes."""
    return cubes.reshape(*cubes.shape[:2], 3, -1).mean(dim=3)


def _fill_cubes(colours: Tensor, tokens: VideoTokens) -> Tensor:
    """Cubes of one colour each, (B, N, 3 * pixels), of colours (B, N, 3)."""
    return colours[..., None].expand(-1, -1, -1, tokens.n_pixels).flatten(2)


def _join_cubes(cubes: Tensor, tokens: VideoTokens) -> Tensor:
    """Cubes (B, N, 3 * pixels) as a clip (B, T, H, W, 3)."""
    (t, h, w), (pt, ph, pw) = tokens.grid, tokens.patch
    return cubes.reshape(-1, t, h, w, 3, pt, ph, pw).permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(-1, *tokens.extent, 3)


def _split_into_cubes(volume: Tensor, tokens: VideoTokens) -> Tensor:
    """A clip (B, T, H, W, 3) as cubes (B, N, 3 * pixels)."""
    (t, h, w), (pt, ph, pw) = tokens.grid, tokens.patch
    cut = volume.reshape(-1, t, pt, h, ph, w, pw, 3).permute(0, 1, 3, 5, 7, 2, 4, 6)
    return cut.reshape(-1, tokens.n_tokens, tokens.n_inputs)


def _places(tokens: VideoTokens) -> tuple[Tensor, Tensor]:
    """The places in pixels of the centres of cubes (N, 3), and of all their pixels (N, pixels, 3)."""
    axes = [torch.arange(n) * step for n, step in zip(tokens.extent, (FRAME_PX, 1.0, 1.0), strict=True)]
    volume = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=3)
    pixels = _split_into_cubes(volume[None], tokens)[0].reshape(tokens.n_tokens, 3, -1).transpose(1, 2)
    return pixels.mean(dim=1), pixels


LEVELS = "levels of 255"
MEASURED = 256
"""The largest number of images that are measured."""
_AT_ONCE = 32
READING = (
    "The centre crop of a held-out picture, the patches that the encoder saw, and these patches with the model's "
    "predictions of the others. "
) + NORMALISED


def compute_root_mean_square(made: Tensor, true: Tensor) -> float:
    """The root mean squared difference."""
    return float((made.float() - true.float()).square().mean().sqrt())


def evaluate(model: MaskedAutoencoder[ImageBatch], config: ImageData, data: Manifest, shown: int) -> Evaluation:
    """The loss on centre crops of shuffled pictures with the recipe's masks, and reconstructions of some.

    A model of pixels is compared with guesses from the visible pixels, as that of clips.
    """
    pictures = collect_held_out_pictures(config, data)
    first = pictures[0]
    with torch.inference_mode():
        made = model.reconstructed(first)
    drawn = Compared(
        title="Reconstructions", reading=READING, batch=first, made=made, rows=range(min(shown, len(first)))
    )
    if isinstance(model.tokens, ImageTokens) and model.tokens.target == "pixels":
        pixels = measure_pixels(model, model.tokens, pictures)
        return Evaluation(
            scores=(pixels.score("pictures"),),
            notes=pixels.notes(),
            examples=(drawn,),
            loss=pixels.measure_training_loss(),
        )
    return Evaluation(scores=(measure_patches(model, pictures).score("pictures"),), examples=(drawn,))


@torch.inference_mode()
def measure_pixels(
    model: MaskedAutoencoder[ImageBatch], tokens: ImageTokens, pictures: Iterable[ImageBatch]
) -> PixelLosses:
    """The losses of a model of pixels on batches with masks, and those of all guesses: a picture is a clip of a frame.

    tokens: the model's.
    """
    grid = TokenGrid(axes=("t", "h", "w"), shape=(1, *tokens.grid), patch=(1, *tokens.patch))
    clip = VideoTokens(grid, "pixels")

    def predicted() -> Iterator[tuple[Tensor, MaskBatch, Tensor]]:
        for image, mask in map(tokens.of, pictures):
            made = model.predict(image, mask.visible, mask.target)
            yield (
                clip.inputs(clip.split(image[:, None])),
                mask,
                made.reshape(*made.shape[:2], -1, 3).transpose(2, 3).flatten(2),
            )

    return measure_guesses(clip, predicted())


def collect_held_out_pictures(config: ImageData, data: Manifest) -> list[ImageBatch]:
    """Shuffled images of the split with the recipe's masks, without random crops and colours; the same each time."""
    return list(read_shuffled(centred(config), data, most=MEASURED, size=_AT_ONCE))
