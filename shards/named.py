"""Resolves names: of a table of the package, or `package.module:name`, which is imported."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any, TypeVar

PartT = TypeVar("PartT")


def named(name: str, table: Mapping[str, PartT], what: str) -> PartT:
    """The entry `name` of `table`, or the imported object if `name` is `package.module:name`.

    `what` is the noun in messages, such as "mask". Raises ValueError if there is no such entry or object.
    """
    if name in table:
        return table[name]
    if ":" in name:
        part: PartT = imported(name, what)
        return part
    raise ValueError(
        f"{name!r} is no {what}{nearest(name, list(table))}; legal are {', '.join(sorted(table))}, and "
        f"package.module:name for a {what} of your own"
    )


def imported(name: str, what: str) -> Any:
    """The object named `package.module:name`. Raises ValueError if the module or the object does not exist."""
    module, _, attribute = name.partition(":")
    try:
        found: Any = import_module(module)
    except ImportError as error:
        raise ValueError(
            f"the {what} {name!r} cannot be imported ({error}); put the folder of its package on PYTHONPATH"
        ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ValueError(f"the {what} {name!r} does not exist: {module} has no {attribute!r}")
        found = getattr(found, part)
    return found


def nearest(name: str, legal: list[str]) -> str:
    """`, did you mean 'x'?` with the most similar legal name; "" if none is similar."""
    close = get_close_matches(name, legal, n=1)
    return f", did you mean {close[0]!r}?" if close else ""
