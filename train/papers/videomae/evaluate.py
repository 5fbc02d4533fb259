"""Evaluates the reconstruction of masked video clips: of VideoMAE, VideoMAE V2, MGMAE and MAE-ST."""

from collections.abc import Iterable
from dataclasses import replace

import torch

from maskstream.pipelines.augment import CenterCrop
from maskstream.pipelines.masks import PartDecoded
from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.shards.format.manifest import Manifest
from maskstream.train.evaluate.evaluation import (
    NORMALISED,
    Compared,
    Evaluation,
    ShownSamples,
    read_batches,
    read_shuffled,
)
from maskstream.train.evaluate.patches import (
    UNIT,
    Guess,
    PixelLosses,
    interpolate_pixels,
    measure_guesses,
    measure_patches,
)
from maskstream.train.nn.grid import gather_tokens
from maskstream.train.nn.masked_autoencoder import MaskedAutoencoder, VideoAutoencoderConfig
from maskstream.train.nn.media_tokens import VideoTokens

MEASURED = 64
"""Maximum number of clips that are measured."""
LEAST = 24
"""Minimum number of clips that are measured: for a small split, other moments of its samples."""
_AT_ONCE = 8
READING = (
    "The encoder saw only the bright tokens of the second row. In the rows below they are pasted from the original, "
    "and the others are predictions. "
)
UNPREDICTED = " Grey tokens were neither shown nor predicted."
GUESSED = (
    "The third row is the best prediction that needs no training: each hidden pixel is the mean of its neighbours, in "
    "space and in time. The last row is the model's. Neither saw the hidden pixels. Errors are mean squared errors of "
    f"the hidden pixels, in {UNIT}. "
)


def evaluate(model: MaskedAutoencoder[VideoBatch], config: VideoData, data: Manifest, shown: int) -> Evaluation:
    """Measure the loss on clips of shuffled samples with the recipe's masks, and reconstruct some.

    A pixel model is compared with predictions from the visible pixels, on centre crops and on random crops.

    Args:
        model: The model, in eval mode.
        config: Data config of the run.
        data: The split.
        shown: Number of examples to show.
    """
    guides = config.mask is not None and "flow" in config.mask.needs
    plain = replace(decode_all(config), augment=CenterCrop(), flow=config.flow if guides else "dis")
    batch = next(iter(read_batches(plain, data, size=shown, samples=shown, shuffle=True)))
    with torch.inference_mode():
        made = model.reconstructed(batch)
    rows = range(min(shown, len(batch)))
    same = ShownSamples(
        title="The same clips, their masks and their motion",
        reading="" if guides else "The flow is for illustration: it is computed by DIS, and the mask does not use it.",
        batch=batch,
        rows=rows,
    )
    if not is_of_pixels(model):
        found = measure_patches(model, read_shuffled(config, data, most=MEASURED, size=_AT_ONCE))
        words = READING + NORMALISED + explain_unpredicted(batch)
        drawn = Compared(title="Reconstructions", reading=words, batch=batch, made=made, rows=rows)
        return Evaluation(scores=(found.score("clips"),), examples=(drawn, same))
    centres, crops = (measure_clips(model, read_clips(config, data, random_crops=random)) for random in (False, True))
    guess, errors = compare_with(interpolate_pixels, model, batch)
    return Evaluation(
        scores=(
            centres.score("centre crops"),
            crops.score("clips", "MSE of hidden pixels in random crops"),
        ),
        notes=centres.notes(),
        examples=(
            Compared(
                title="Reconstructions",
                reading=READING + GUESSED + explain_unpredicted(batch),
                batch=batch,
                made=made,
                rows=rows,
                guess=guess,
                errors=[{"error": own, "interpolation error": other} for own, other in errors],
            ),
            same,
        ),
        loss=crops.measure_training_loss(),
    )


def explain_unpredicted(batch: VideoBatch) -> str:
    """Return an explanation of grey tokens if a batch has tokens that are neither visible nor predicted, else ""."""
    mask = batch.mask
    absent = mask is not None and int(mask.target_valid.sum()) < int(mask.masked.sum())
    return UNPREDICTED if absent else ""


def is_of_pixels(model: MaskedAutoencoder[VideoBatch]) -> bool:
    """Return whether the model predicts pixels, which can be compared with predictions from other pixels."""
    return isinstance(model.tokens, VideoTokens) and model.tokens.target == "pixels"


def decode_all(config: VideoData) -> VideoData:
    """Return the config with one view in true colours, in which every hidden token is predicted."""
    mask = config.mask
    return replace(config, views=1, colour=None, mask=mask.mask if isinstance(mask, PartDecoded) else mask)


def read_clips(config: VideoData, data: Manifest, *, random_crops: bool = False) -> list[VideoBatch]:
    """Return batches of LEAST to MEASURED clips of a split, the same number for each sample; repeated calls return the
    same batches.

    Args:
        config: Data config of the run.
        data: The split.
        random_crops: Whether to use the recipe's random crops instead of centre crops.
    """
    n = min(len(data), MEASURED)
    shown = decode_all(config if random_crops else replace(config, augment=CenterCrop()))
    rounds = -(-LEAST // n)
    return list(read_batches(shown, data, size=min(n, _AT_ONCE), samples=n, shuffle=True, rounds=rounds))


@torch.inference_mode()
def measure_clips(model: MaskedAutoencoder[VideoBatch], clips: Iterable[VideoBatch]) -> PixelLosses:
    """Measure the errors of a pixel model and of all baselines (see `measure_guesses`).

    Args:
        model: The model.
        clips: Batches with masks.
    """
    tokens = _compare_pixel_tokens(model)
    found = (tokens.of(batch) for batch in clips)
    return measure_guesses(
        tokens,
        (
            (tokens.inputs(tokens.split(data)), mask, model.predict(data, mask.visible, mask.target))
            for data, mask in found
        ),
    )


@torch.inference_mode()
def compare_with(
    guess: Guess, model: MaskedAutoencoder[VideoBatch], batch: VideoBatch
) -> tuple[VideoBatch, list[tuple[float, float]]]:
    """Compare a pixel model with a baseline.

    Args:
        guess: The baseline.
        model: The model.
        batch: Batch with masks.

    Returns:
        The batch with its target cubes replaced by the baseline's, and the errors of model and baseline for each clip.

    Raises:
        ValueError: The model does not predict pixels.
    """
    tokens = _compare_pixel_tokens(model)
    data, mask = tokens.of(batch)
    cubes = tokens.inputs(tokens.split(data))
    true, guessed = gather_tokens(cubes, mask.target), guess(tokens, cubes, mask)
    errors = [
        ((made - true).square().mean(dim=2) * mask.weight).sum(dim=1) / mask.weight.sum(dim=1).clamp(min=1e-12)
        for made in (model.predict(data, mask.visible, mask.target), guessed)
    ]
    return tokens.completed(batch, guessed), list(zip(*(error.tolist() for error in errors), strict=True))


def _compare_pixel_tokens(model: MaskedAutoencoder[VideoBatch]) -> VideoTokens:
    if not isinstance(model.tokens, VideoTokens) or model.tokens.target != "pixels":
        raise ValueError("pixel baselines need a model that predicts pixels; use target='pixels'")
    return model.tokens


EVALUATIONS = {VideoAutoencoderConfig: evaluate}
