"""Evaluates the denoising of noised video and spectrogram patches, compared with a linear baseline."""

import torch

from maskstream.pipelines.modalities.audiovisual.data import AudioVisualData
from maskstream.shards.format.manifest import Manifest
from maskstream.train.evaluate import pairs
from maskstream.train.evaluate.evaluation import Evaluation, Score

from .model import NOISE, AudioVisualDiffusion, AudioVisualDiffusionConfig


def evaluate(model: AudioVisualDiffusion, config: AudioVisualData, data: Manifest, shown: int) -> Evaluation:
    """Evaluate as every model of video with audio, and by the errors of denoised patches.

    Args:
        model: The model, in eval mode.
        config: Data config of the run.
        data: The split.
        shown: Number of reconstructions to show.
    """
    return pairs.evaluate(model, config, data, shown, measure_denoising(config, model, data))


@torch.inference_mode()
def measure_denoising(config: AudioVisualData, model: AudioVisualDiffusion, data: Manifest) -> list[Score]:
    """Measure the errors of the denoised patches of up to 256 samples, of video and audio, at random times as in
    training.

    The baseline is the noised patch scaled by sqrt(a), where a is its fraction of signal: the best linear estimate for
    patches of mean 0 and variance 1.

    Args:
        config: Data config of the run.
        model: The model.
        data: The split.

    Raises:
        ValueError: A batch has no masks or no noise.
    """
    sums = torch.zeros(2, 3, dtype=torch.float64)
    samples = 0
    for batch in pairs.read_pairs(config, data, 16, noise=NOISE):
        for part, (made, clean, noisy) in enumerate(model.denoise(batch)):
            mask, time = (batch.audio_mask, batch.audio_time) if part else (batch.video_mask, batch.video_time)
            if mask is None or time is None:
                raise ValueError("the batch has no masks or no noise; pass both masks and noise= to the loader")
            scaled = NOISE.kept()[time].sqrt().float()[:, None, None] * noisy
            errors = [((one - clean).square().mean(dim=2) * mask.weight).sum() for one in (made, scaled)]
            sums[part] += torch.stack([*errors, mask.weight.sum()]).double()
        samples += len(batch) if batch.weight is None else int(batch.weight.sum())
    return [
        Score(
            name=f"squared error of denoised {name} patches",
            value=error,
            of="clips",
            count=samples,
            baselines={"the scaled noised patch": scaled},
        )
        for name, (error, scaled) in zip(("video", "sound"), (sums[:, :2] / sums[:, 2:]).tolist(), strict=True)
    ]


EVALUATIONS = {AudioVisualDiffusionConfig: evaluate}
