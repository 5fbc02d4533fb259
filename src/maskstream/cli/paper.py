"""`maskstream paper`: what one paper has and others have not; and the names under which these commands stood before."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import typer

from .generate import generate_pictures, generate_texts
from .kbvqa import kbvqa
from .meshmask import meshmask
from .roar import roar
from .terminal import errors, with_local_paths

PAPERS: dict[str, Callable[..., None]] = {
    "bert": generate_texts,
    "kbvqa": kbvqa,
    "mage": generate_pictures,
    "maskvit": generate_pictures,
    "meshmask": meshmask,
    "roar": roar,
}
"""The commands, by the folder of their paper in train/papers."""
papers = typer.Typer(
    name="paper",
    no_args_is_help=True,
    help="What only one paper has: generate with its model, compare rollouts, or run its own evaluation.",
)
for _name, _command in PAPERS.items():
    papers.command(name=_name)(with_local_paths(_command))


def moved(command: Callable[..., None], before: str, now: str) -> Callable[..., None]:
    """The command under its name of the release before, which first says the new one."""

    @wraps(command)
    def former(*args: Any, **given: Any) -> None:
        errors.print(f"`maskstream {before}` is now `maskstream paper {now}`; the next release has the new name alone")
        command(*args, **given)

    return former
