"""The code of a model card: lines of Python that compute the features, or class scores, of raw samples."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from maskstream.pipelines.modalities.video.batch import IMAGENET_MEAN, IMAGENET_STD

from .raw import RawKind

CARDS = Path(__file__).parent / "cards"
"""Python code of model cards that turns raw samples into model inputs."""
CALLS = {"picture": "read_pictures", "clip": "read_clips", "sound": "read_sounds"}
"""Function that reads a batch of raw samples, by the name of a card's file."""
_PIXELS = "((torch.from_numpy({}) / 255 - mean) / std).movedim(-1, -3)"
_VALUES = {
    "picture": ("(B, 3, SIZE, SIZE)", _PIXELS),
    "clip": ("(B, FRAMES, 3, SIZE, SIZE)", _PIXELS),
    "sound": ("(B, 1, FRAMES, BINS)", "{}[:, None]"),
}
"""Shape of the model's input, and expression that computes it from a batch, by the same names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """The export of a model to a target.

    Attributes:
        reader: Class or function that reads the folder.
        call: Code that loads the folder.
        write: Writes the model's files into a folder.
        card: Python code for the model card that defines `features`, or `scores` of a classifier.
        own: Code that defines `by_processor` with the target's image processor, which is approximate; "" without one.
        inputs: Tensors of a batch that the card's code takes; empty if it takes raw samples.
        classes: Names of a classifier's classes.
    """

    reader: str
    call: str
    write: Callable[[Path], None]
    card: str
    own: str = ""
    inputs: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()


def read_lines(kind: RawKind) -> str:
    """Return the code of a card that reads raw samples, with their settings."""
    code = (CARDS / f"{kind.card}.py").read_text().partition('"""\n\n')[2]
    for name, value in kind.settings.items():
        code, changed = re.subn(
            rf"^{name}(: [^=]*)? = .*$", rf"{name}\1 = {value!r}", code, count=1, flags=re.MULTILINE
        )
        assert changed, name
    return code.rstrip()


def format_definition(plural: str, classes: Sequence[str], more: str = "") -> str:
    """Return the head of the function that a card defines, with its docstring.

    Args:
        plural: Name of the samples.
        classes: Names of a classifier's classes.
        more: Text to append to the docstring.
    """
    if classes:
        name, about = "scores", "The score of each class, float32 (B, C), in the order of `classes`."
    else:
        name = "features"
        about = f"The mean over tokens of the last hidden states of some {plural}: float32 (B, D)."
    return f'def {name}({plural}):\n    """{about}{more}"""'


def write_card(kind: RawKind, imports: str, load: str, encode: str, classes: Sequence[str]) -> str:
    """Return the card of a model of images, clips or audio.

    Args:
        kind: Kind of raw samples.
        imports: Lines of imports.
        load: Lines that load the model.
        encode: Expression of the result, from `values`.
        classes: Names of a classifier's classes.
    """
    shape, values = _VALUES[kind.card]
    if kind.card != "sound":
        load += f"\nmean, std = torch.tensor({IMAGENET_MEAN}), torch.tensor({IMAGENET_STD})"
    return f'''{read_lines(kind)}


{imports}

{load}


def to_values({kind.plural}):
    """The model's input for some {kind.plural}: float32 {shape}."""
    return {values.format(f"{CALLS[kind.card]}({kind.plural})")}


def encode(values):
    with torch.no_grad():
        return {encode}


{format_definition(kind.plural, classes)}
    return encode(to_values({kind.plural}))'''
