"""Measures predictions of hidden patches by masked autoencoders, compared with model-free baselines, and completes
images.

Cubes are float32 (B, N, 3 * pixels) in the units of the encoder's inputs, in (c t h w) order within a cube; baselines
predict the target cubes, (B, M, 3 * pixels).
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
"""Predicts the target cubes from tokens, cubes and masks."""
POWER = 4.0
"""Exponent of the distance in `interpolate_colours`; of 2, 3, 4 and 6 the best on the sample clips."""
FRAME_PX = 4.0
"""Distance of two consecutive frames of a clip in `interpolate_colours`, in pixels."""
ROUNDS = 40
RELAXATION = 1.85
"""Over-relaxation factor in `interpolate_pixels`; after 100 rounds its error on the sample clips is 0.2 % lower."""
MEAN, COPY = "the mean of the visible pixels", "a copy of the nearest visible token"
COLOURS, HARMONIC = "interpolation of the visible tokens' colours", "harmonic interpolation of the visible pixels"
SHRUNK = "a copy of the nearest visible token, shrunk towards the mean"
UNIT = "squared per-channel standard deviations (57/255)"


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchLosses:
    """Mean losses over samples.

    Attributes:
        model: Loss of the model.
        mean: Loss of predicting each patch's mean.
        nearest: Loss of copying the normalised values of the nearest visible patch.
        samples: Number of samples.
    """

    model: float
    mean: float
    nearest: float
    samples: int

    @classmethod
    def of(cls, parts: Sequence[tuple[LossPart, LossPart, LossPart]], samples: int) -> Self:
        """Average the three losses over batches.

        Args:
            parts: The three losses of each batch.
            samples: Number of samples.

        Raises:
            ValueError: `parts` is empty.
        """
        if not parts:
            raise ValueError("losses need at least one batch, got none; use a split with at least one sample")
        model, mean, nearest = (
            float(sum(float(one.total) for one in column) / sum(float(one.weight) for one in column))
            for column in zip(*parts, strict=True)
        )
        return cls(model=model, mean=mean, nearest=nearest, samples=samples)

    def score(self, of: str, patch: str = "patch") -> Score:
        """Return the model's loss with the other two as baselines.

        Args:
            of: Kind of the samples.
            patch: Name of a patch.
        """
        guesses = {f"every {patch}'s mean": self.mean, f"a copy of the nearest visible {patch}": self.nearest}
        name = f"squared error of a normalised {patch}"
        return Score(name=name, value=self.model, of=of, count=self.samples, baselines=guesses)


@torch.inference_mode()
def measure_patches(model: MaskedAutoencoder[BatchT], batches: Iterable[BatchT]) -> PatchLosses:
    """Measure the losses on batches with masks, weighting each target.

    Args:
        model: The model.
        batches: The batches.

    Raises:
        ValueError: `batches` is empty.
    """
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
    """Return the index of the nearest visible token on the grid for each target, int64 (B, M); ties go to the lowest
    index.
    """
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in mask.grid.shape), indexing="ij")
    places = torch.stack([axis.flatten() for axis in axes], dim=1)
    near = []
    for target, visible, real in zip(mask.target, mask.visible, find_seen_tokens(mask), strict=True):
        apart = (places[target][:, None] - places[visible]).square_().sum(dim=2)
        near.append(visible[apart.masked_fill_(~real, torch.inf).argmin(dim=1)])
    return torch.stack(near)


def find_seen_tokens(mask: MaskBatch) -> Tensor:
    """Return which entries of `mask.visible` have content that the encoder sees: bool (B, V)."""
    seen = mask.visible_valid
    return seen if mask.mask_token is None else seen & ~mask.mask_token.gather(1, mask.visible)


def repeat_mean(tokens: VideoTokens, cubes: Tensor, mask: MaskBatch) -> Tensor:
    """Predict the mean colour of a clip's visible pixels everywhere.

    Args:
        tokens: Tokens of the model.
        cubes: Pixels of all tokens (B, N, values).
        mask: The mask.
    """
    seen = find_seen_tokens(mask)[..., None]
    colours = _average_colours(gather_tokens(cubes, mask.visible))
    mean = (colours * seen).sum(dim=1) / seen.sum(dim=1).clamp(min=1)
    return _fill_cubes(mean[:, None].expand(-1, mask.target.shape[1], -1), tokens)


def copy_nearest(tokens: VideoTokens, cubes: Tensor, mask: MaskBatch) -> Tensor:
    """Predict a copy of the nearest visible cube.

    Args:
        tokens: Tokens of the model, unused.
        cubes: Pixels of all tokens (B, N, values).
        mask: The mask.
    """
    return gather_tokens(cubes, find_nearest_visible(mask))


def interpolate_colours(tokens: VideoTokens, cubes: Tensor, mask: MaskBatch, power: float = POWER) -> Tensor:
    """Predict pixels as the mean of visible cubes' colours, weighted by distance to their centres ** -power.

    Source: inverse distance weighting (Shepard, 1968).

    Args:
        tokens: Tokens of the model.
        cubes: Cubes of the batch.
        mask: Masks of the batch.
        power: Exponent of the distance.
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
    """Predict each hidden pixel as the weighted mean of its neighbours, 4 in its frame and 2 in time (harmonic
    interpolation).

    It is solved by over-relaxation, first for the mean colours of cubes and then, from there, for pixels.

    Args:
        tokens: Tokens of the model.
        cubes: Cubes of the batch.
        mask: Masks of the batch.
        time: Weight of the two neighbours in time.
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
    return gather_tokens(tokens.split(_relax_hidden(tokens.join(start), pixels, time)), mask.target)


GUESSES: Mapping[str, Guess] = {
    MEAN: repeat_mean,
    COPY: copy_nearest,
    COLOURS: interpolate_colours,
    HARMONIC: interpolate_pixels,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelLosses:
    """Mean squared errors over the hidden pixels, in units of the channel's standard deviation.

    Attributes:
        model: Error of the model.
        guesses: Errors of the baselines by name.
        apart: Mean squared differences between the model and the baselines that it may be mixed with.
        samples: Number of clips.
    """

    model: float
    guesses: Mapping[str, float]
    apart: Mapping[str, float]
    samples: int

    @property
    def best(self) -> str:
        """Name of the best baseline."""
        return min(self.guesses, key=lambda name: self.guesses[name])

    def score(self, of: str, name: str = "MSE of hidden pixels") -> Score:
        """Return the model's error with the baselines.

        Args:
            of: Kind of the samples.
            name: Name of the score.
        """
        return Score(name=name, value=self.model, unit=UNIT, of=of, count=self.samples, baselines=self.guesses)

    def notes(self) -> Mapping[str, float]:
        """Return the best mixture of the model and the best of these baselines, and the model's weight in it."""
        guess = min(self.apart, key=lambda name: self.guesses[name])
        return Mixture.combine_squares(self.model, self.guesses[guess], self.apart[guess]).notes(guess)

    def measure_training_loss(self) -> TrainingLoss:
        """Return the description of the recipe's loss, with the best baseline."""
        return TrainingLoss(
            name=f"The mean squared error of hidden pixels, in {UNIT}",
            baseline=self.best,
            value=self.guesses[self.best],
        )


@torch.inference_mode()
def measure_guesses(tokens: VideoTokens, predicted: Iterable[tuple[Tensor, MaskBatch, Tensor]]) -> PixelLosses:
    """Measure the errors of a pixel model and of all baselines.

    The shrunk copy is the best mixture of the nearest cube's copy and the mean, fitted on these clips.

    Args:
        tokens: Tokens of the model.
        predicted: For each batch the cubes (B, N, 3 * pixels), the masks, and the model's target cubes (B, M, 3 *
            pixels).

    Raises:
        ValueError: No token is hidden.
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
        raise ValueError(
            "losses need at least one clip with a hidden token, got none; use a split with at least one sample"
        )
    sums[SHRUNK] = sums[MEAN] - with_copy**2 / max(copies, 1e-12)
    error = sums.pop("model")
    return PixelLosses(
        model=error / weights,
        guesses={name: total / weights for name, total in sums.items()},
        apart={name: total / weights for name, total in apart.items()},
        samples=samples,
    )


def _relax_hidden(values: Tensor, hidden: Tensor, time: float) -> Tensor:
    """Return values (B, T, H, W, C) in which the `hidden` ones (B, T, H, W) are means of their neighbours.

    Cells of one colour of a checkerboard depend only on the other colour, so all of them are computed at once.
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
    """Return the sums of the six neighbours of cells (B, C, T, H, W), weighted by axis."""
    total = torch.zeros_like(values)
    for axis, share in enumerate(shares, start=2):
        n = values.shape[axis]
        total.narrow(axis, 0, n - 1).add_(values.narrow(axis, 1, n - 1), alpha=share)
        total.narrow(axis, 1, n - 1).add_(values.narrow(axis, 0, n - 1), alpha=share)
    return total


def _average_colours(cubes: Tensor) -> Tensor:
    """Return the mean colours (B, N, 3) of cubes."""
    return cubes.reshape(*cubes.shape[:2], 3, -1).mean(dim=3)


def _fill_cubes(colours: Tensor, tokens: VideoTokens) -> Tensor:
    """Return single-coloured cubes (B, N, 3 * pixels) of colours (B, N, 3)."""
    return colours[..., None].expand(-1, -1, -1, tokens.n_pixels).flatten(2)


def _places(tokens: VideoTokens) -> tuple[Tensor, Tensor]:
    """Return the positions in pixels of the centres of cubes (N, 3), and of all their pixels (N, pixels, 3)."""
    axes = [torch.arange(n) * step for n, step in zip(tokens.extent, (FRAME_PX, 1.0, 1.0), strict=True)]
    volume = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=3)
    pixels = tokens.split(volume[None])[0].reshape(tokens.n_tokens, 3, -1).transpose(1, 2)
    return pixels.mean(dim=1), pixels


LEVELS = "levels of 255"
MEASURED = 256
"""Maximum number of images that are measured."""
_AT_ONCE = 32
READING = (
    "The centre crop of a held-out image, the patches that the encoder saw, and these patches with the model's "
    "predictions of the others. "
) + NORMALISED


def compute_root_mean_square(made: Tensor, true: Tensor) -> float:
    """Return the root mean squared difference.

    Args:
        made: Predicted values.
        true: True values, in the same shape.
    """
    return float((made.float() - true.float()).square().mean().sqrt())


def evaluate(model: MaskedAutoencoder[ImageBatch], config: ImageData, data: Manifest, shown: int) -> Evaluation:
    """Measure the loss on centre crops of shuffled images with the recipe's masks.

    A pixel model is compared with predictions from the visible pixels, like a model of clips.

    Args:
        model: The model, in eval mode.
        config: Data config of the run.
        data: The split.
        shown: Number of reconstructions to show.
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
    """Measure the errors of a pixel model and of all baselines; an image is a clip of one frame.

    Args:
        model: The model.
        tokens: Tokens of the model.
        pictures: Batches with masks.
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
    """Return shuffled images of a split with the recipe's masks, without random crops and colours; repeated calls
    return the same images.

    Args:
        config: Settings of the data.
        data: The split.
    """
    return list(read_shuffled(centred(config), data, most=MEASURED, size=_AT_ONCE))
