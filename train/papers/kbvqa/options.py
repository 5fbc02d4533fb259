"""The settings of questions that need knowledge; each field says what it does."""

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
"""What each perspective asks for."""


def _read_shares(text: str) -> tuple[float, ...]:
    return tuple(map(float, split_list(text)))


@dataclass(frozen=True, kw_only=True, slots=True)
class KbvqaSettings:
    """How questions are asked. Glosses are found by the question, its choices and what the predictor answers first.

    Attributes:
        glosses: Index of the glosses; without one, no prompt gets any.
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
            raise ValueError(f"there is no perspective {unknown[0]!r}; legal are {', '.join(ASKS)}")
