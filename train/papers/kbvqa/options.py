"""The settings of knowledge-based visual question answering."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from maskstream.shards.flag import ModelFlag, RunFlag, split_list
from maskstream.shards.limits import check_fields

if TYPE_CHECKING:
    from .glosses import Glosses

ASKS: Mapping[str, str] = {
    "commonsense": "Answer by common sense, with one word or a short phrase.",
    "knowledge": "Recognise what the picture shows, and use what you know of it. Answer with one word or a short "
    "phrase.",
    "rationale": "Answer with one word or a short phrase, and then give the reason in one sentence, in this form:\n"
    "Answer: ...\nRationale: ...",
}
"""Instruction of each perspective."""


def _read_shares(text: str) -> tuple[float, ...]:
    return tuple(map(float, split_list(text)))


@dataclass(frozen=True, kw_only=True, slots=True)
class KbvqaSettings:
    """The settings of the prompts. Glosses are retrieved by the question, its choices and the predictor's first answer.

    Attributes:
        perspectives: Perspectives to ask in.
        shots: Number of solved examples in a prompt, in one composite image.
        glosses: Index of the glosses; None for prompts without glosses.
        passages: Number of glosses in a prompt.
        hidden: Fractions of patches to hide in further runs.
        seed: Seed of questions, examples and hidden patches.
    """

    perspectives: Annotated[
        Sequence[str], ModelFlag("Perspectives, separated by commas.", metavar="NAMES", parse=split_list)
    ] = tuple(ASKS)
    shots: Annotated[int, ModelFlag("Examples before a question, in one composite image.", min=0)] = 0
    glosses: "Glosses | None" = None
    passages: Annotated[int, ModelFlag("With --wordnet: glosses per prompt.", min=1)] = 3
    hidden: Annotated[
        Sequence[float],
        ModelFlag(
            "Fractions of the image patches to hide in further runs, separated by commas.",
            metavar="FRACTIONS",
            parse=_read_shares,
        ),
    ] = ()
    seed: Annotated[int, RunFlag("Random seed (questions, examples, hidden patches).")] = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if unknown := [one for one in self.perspectives if one not in ASKS]:
            raise ValueError(f"unknown perspective {unknown[0]!r}; choose from {', '.join(ASKS)}")
