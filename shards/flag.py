"""Flags: settings are declared on the field of the config that they set, with type, default, limits and help.

    max_rejects: Annotated[float, RunFlag("Fraction of sources that may be rejected.", min=0, max=1)] = 0.05

The command line creates an option for each such field, `--max-rejects`, and `check_fields` (limits.py) checks its type
and limits. A module that declares flags is imported by every command, so it imports nothing heavy, and its annotations
must not be strings: it has no `from __future__ import annotations`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, get_args, get_origin

from .limits import Bounds

PANELS = (None, "Data", "Model", "Run", "Output")
"""The panels of `--help`, from top to bottom."""


@dataclass(frozen=True, slots=True)
class Flag(Bounds):
    """An option of the command line and the limits of its value; subclasses define the panel of `--help`.

    Attributes:
        help: Purpose of the option, in one sentence.
        name: Name of the option, if it is not `--field-name`; several names are separated by spaces.
        metavar: Placeholder of the value in the help.
        parse: Converts the option's text to the field's value; raises ValueError.
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
    """Return the type and the flag of an annotation; None if it has no flag."""
    kind, *notes = get_args(annotation) if get_origin(annotation) is Annotated else (None,)
    return next(((kind, note) for note in notes if isinstance(note, Flag)), None)


def split_list(text: str) -> tuple[str, ...]:
    """Return the words of a comma-separated list, such as "en,de"."""
    return tuple(word.strip() for word in text.split(",") if word.strip())
