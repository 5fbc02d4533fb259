"""The code of a model card: lines of Python that make the features, or the scores of classes, of raw samples."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from maskstream.pipelines.modalities.video.batch import IMAGENET_MEAN, IMAGENET_STD

from .raw import RawKind

CARDS = Path(__file__).parent / "cards"
"""The lines of cards that make raw samples what a model reads."""
CALLS = {"picture": "read_pictures", "clip": "read_clips", "sound": "read_sounds"}
"""The function that makes a batch of raw samples, by the name of a card's lines."""
_PIXELS = "((torch.from_numpy({}) / 255 - mean) / std).movedim(-1, -3)"
_VALUES = {
    "picture": ("(B, 3, SIZE, SIZE)", _PIXELS),
    "clip": ("(B, FRAMES, 3, SIZE, SIZE)", _PIXELS),
    "sound": ("(B, 1, FRAMES, BINS)", "{}[:, None]"),
}
"""The shape of what a model reads, and how it is made of a batch, by the same names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """How a model goes to a target. reader: what reads the folder. call: how it is called. write: writes the model's
    files into it. card: lines of Python that define `features`, or `scores` of a classifier, for the model card. own:
    lines that define `by_processor` by the target's own processor, which comes near them; "" where it has none. inputs:
    the tensors of a batch that the card takes; none where it takes raw samples. classes: of a classifier.
    """

    reader: str
    call: str
    write: Callable[[Path], None]
    card: str
    own: str = ""
    inputs: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()


def read_lines(kind: RawKind) -> str:
    """The lines of a card that read raw samples, with their settings."""
    code = (CARDS / f"{kind.card}.py").read_text().partition('"""\n\n')[2]
    for name, value in kind.settings.items():
        code, changed = re.subn(
            rf"^{name}(: [^=]*)? = .*$", rf"{name}\1 = {value!r}", code, count=1, flags=re.MULTILINE
        )
        assert changed, name
    return code.rstrip()


def format_definition(plural: str, classes: Sequence[str], more: str = "") -> str:
    """The head of the function that a card defines, with its docstring. more: of the docstring."""
    if classes:
        name, about = "scores", "The score of each class, float32 (B, C), in the order of `classes`."
    else:
        name = "features"
        about = f"The mean of the last states of the tokens of each of some {plural}: float32 (B, D)."
    return f'def {name}({plural}):\n    """{about}{more}"""'


def write_card(kind: RawKind, imports: str, load: str, encode: str, classes: Sequence[str]) -> str:
    """The card of a model of pictures, clips or sounds. imports, load: lines. encode: the result, of `values`."""
    shape, values = _VALUES[kind.card]
    if kind.card != "sound":
        load += f"\nmean, std = torch.tensor({IMAGENET_MEAN}), torch.tensor({IMAGENET_STD})"
    return f'''{read_lines(kind)}


{imports}

{load}


def to_values({kind.plural}):
    """What the model reads of each of some {kind.plural}: float32 {shape}."""
    return {values.format(f"{CALLS[kind.card]}({kind.plural})")}


def encode(values):
    with torch.no_grad():
        return {encode}


{format_definition(kind.plural, classes)}
    return encode(to_values({kind.plural}))'''
