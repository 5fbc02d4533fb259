"""The rule by which samples are written at all: signals of each are measured as it is encoded."""

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np

from maskstream.shards.errors import DatasetError
from maskstream.shards.members.image import IMAGE
from maskstream.shards.members.member import Member
from maskstream.shards.members.video import VIDEO

from .curation import SHARE_NAME, Rule
from .measures import MOST_FRAMES, keyframes, known_signals, looks_of, picture


@dataclass(frozen=True, slots=True)
class KeepRule:
    """Samples that meet the rule `text` are written. It compares signals with numbers, for a percentile is known only
    when all samples are. Raises ValueError for what is no such rule.
    """

    text: str

    def __post_init__(self) -> None:
        Rule(self.text)
        if shares := [name for name in self._names() if SHARE_NAME.fullmatch(name)]:
            raise ValueError(
                f"keep={self.text!r} compares with {shares[0]}, a percentile, which is not known before all "
                "samples are written; give a number, or use `maskstream curate --keep` afterwards"
            )

    def _names(self) -> list[str]:
        found = (one.id for one in ast.walk(ast.parse(self.text, mode="eval")) if isinstance(one, ast.Name))
        return list(dict.fromkeys(found))

    def why_not(self, members: Mapping[str, Member]) -> str:
        """The signals of the rule, if the sample does not meet it, else "". The sample has a picture, or a video; else
        DatasetError.
        """
        signals = measured(members)
        met, _ = Rule(self.text).apply({name: np.array([value]) for name, value in signals.items()})
        if met[0]:
            return ""
        return ", ".join(f"{name}={signals[name]:.6g}" for name in self._names()) + f", not {self.text}"


def measured(members: Mapping[str, Member]) -> dict[str, float]:
    """The signals of the picture of a sample, or of its first video, as `measure` finds them in shards."""
    own = next((one for kind in (IMAGE, VIDEO) for one in members.values() if one.kind == kind.name), None)
    if own is None:
        raise DatasetError("keep measures pictures and clips of video, but the samples have none; leave --keep out")
    is_clip = own.kind == VIDEO.name
    frames = list(islice(keyframes(own.data), MOST_FRAMES)) if is_clip else [picture(own.data)]
    seconds = int(own.facts["n_frames"]) / float(own.facts["fps"]) if is_clip else 0.0
    known = known_signals(int(own.facts["width"]), int(own.facts["height"]), len(own.data), seconds)
    return {**known, **looks_of(frames)}
