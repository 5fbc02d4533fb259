"""Texts of evaluations: scores with their baselines, and descriptions of their data."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from maskstream.pipelines.masks import Mask
from maskstream.pipelines.modalities.audio.data import AudioData, NoisyData
from maskstream.pipelines.modalities.audiovisual.data import AudioVisualData
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.modalities.image.data import ImageData
from maskstream.pipelines.modalities.image_text.data import ImageTextData
from maskstream.pipelines.modalities.packed.data import PackedData
from maskstream.pipelines.modalities.text.data import TextData
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.train.evaluate.evaluation import Evaluation, Score


def score_facts(scores: Sequence[Score]) -> dict[str, str]:
    """Return the scores as text, each with its distance from the best baseline."""
    return {
        score_name(one): number(one.value, one.unit) + (f", {margin(one)}" if one.baselines else "") for one in scores
    }


def score_rows(found: Evaluation) -> tuple[tuple[str, str], ...]:
    """Return the baselines of all scores, and the notes, as names and values."""
    rows = [
        (f"{one.name} by {name}", number(value, one.unit))
        for one in found.scores
        for name, value in one.baselines.items()
    ]
    return (*rows, *((name, number(value, "")) for name, value in found.notes.items()))


def score_name(score: Score) -> str:
    """Return the name of a score with its number of samples."""
    return f"{score.name} of {score.count:,} {score.of}" if score.count else score.name


def number(value: float, unit: str) -> str:
    """Format a value with its unit, to four digits.

    Args:
        value: The value.
        unit: The unit; "%" formats a fraction.
    """
    return f"{value:.1%}" if unit == "%" else f"{value:.4g} {unit}".strip()


def margin(score: Score) -> str:
    """Describe the distance of a score from its best baseline: in points or decibels, else in percent."""
    best = score.baselines[score.best]
    if not best:
        return f"compared with {number(best, score.unit)} of {score.best}"
    apart, better, unit = score.value - best, (score.value < best) is score.lower_is_better, score.unit
    if unit in ("%", "dB"):  # a fraction of a fraction, or of a logarithm, has no meaning
        far, beside = (f"{100 * abs(apart):.1f} points" if unit == "%" else f"{abs(apart):.3g} dB"), number(best, unit)
    else:
        far, beside = f"{abs(apart / best):.0%}", number(best, "")
    end = "" if better else ": the model does not generalise"
    return f"{far} {'below' if apart < 0 else 'above'} {score.best} ({beside}){end}"


Row = tuple[str, tuple[str, ...]]
"""A name, and a cell for each run."""


class Cells:
    """The cells of a table, which are set by row and column; the rows of one head are adjacent."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.by_head: dict[str, dict[str, list[str]]] = {}

    def put(self, head: str, of: str, column: int, text: str) -> None:
        """Set a cell.

        Args:
            head: Row, or head of indented rows.
            of: Row below the head; "" for the head itself.
            column: Column of the run.
            text: Content of the cell.
        """
        self.by_head.setdefault(head, {}).setdefault(of, [""] * self.columns)[column] = text

    def rows(self) -> list[Row]:
        """Return all rows; rows below a head are indented."""
        none = [""] * self.columns
        return [
            (f"  {of}" if of else head, tuple(cells))
            for head, some in self.by_head.items()
            for of, cells in ({"": none} | some).items()
        ]


def list_data_facts(config: DataConfig[Any]) -> dict[str, str]:
    """Describe a sample of a recipe, and its mask."""
    match config:
        case AudioVisualData():
            words = f"{_describe_frames(config)}; audio: {config.seconds:g} s"
        case VideoData():
            words = _describe_frames(config)
        case AudioData():
            clip = config.clip
            words = f"{clip.seconds:g} s at {clip.sample_rate} Hz, {config.features.n_bins} bins"
        case NoisyData():
            clip = config.clip
            words = f"{clip.seconds:g} s at {clip.sample_rate} Hz, {config.microphones} microphones"
        case ImageData() | ImageTextData():
            words = f"{config.size} px, patches of {config.patch} px"
        case PackedData():
            native = config.native
            words = f"up to {native.most} tokens of {native.patch} px, rows of {config.row_tokens} visible ones"
        case TextData():
            words = f"up to {config.length} tokens"
        case _:
            words = ""
    masks = {one.name: getattr(config, one.name) for one in fields(config)}
    facts = {name.replace("_", " "): repr(mask) for name, mask in masks.items() if isinstance(mask, Mask)}
    return {"sample": words, **facts} if words else facts


def _describe_frames(config: VideoData | AudioVisualData) -> str:
    return f"{config.clip.frames} frames, {config.clip.spacing}, {config.clip.size} px"
