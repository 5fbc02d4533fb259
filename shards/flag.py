"""Where a setting is declared: on the field of the config that it sets, with its type, default, limits and help.

    max_rejects: Annotated[float, RunFlag("Fraction of sources that may be rejected.", min=0, max=1)] = 0.05

The command line makes an option of each such field, `--max-rejects`, and `check_fields` (limits.py) checks its type
and limits. A module that declares flags is imported by every command, so it imports nothing heavy,
and its annotations are not strings: it has no `from __future__ import annotations`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, get_args, get_origin

from .limits import Bounds

PANELS = (None, "Data", "Model", "Run", "Output")
"""The panels of `--help`, from above."""


@dataclass(frozen=True, slots=True)
class Flag(Bounds):
    """An option of the command line and the limits of its value; subclasses name the panel of `--help`.

    Attributes:
        help: Its purpose, in one sentence.
        name: The option, if it is not `--field-name`; several names are separated by spaces.
        metavar: Placeholder of the value in the help.
        parse: Converts the text of the option to the value of the field; raises ValueError.
        hidden: Hide the option in the help.
    """

    help: str
    name: str = ""
    metavar: str | None = None
    parse: Callable[[str], object] | None = None
    hidden: bool = False
    panel: ClassVar[str | None] = None


class DataFlag(Flag):
    """An option about the input data."""

    panel = "Data"


class ModelFlag(Flag):
    """An option about the model and its objective."""

    panel = "Model"


class RunFlag(Flag):
    """An option about how the command runs."""

    panel = "Run"


class OutputFlag(Flag):
    """An option about the output."""

    panel = "Output"


def read_flag(annotation: object) -> tuple[object, Flag] | None:
    """The type and the flag of an annotation; None if it has no flag."""
    kind, *notes = get_args(annotation) if get_origin(annotation) is Annotated else (None,)
    return next(((kind, note) for note in notes if isinstance(note, Flag)), None)


def split_list(text: str) -> tuple[str, ...]:
    """The words of a list with commas, such as "en,de"."""
    return tuple(word.strip() for word in text.split(",") if word.strip())
