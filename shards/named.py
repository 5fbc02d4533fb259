"""Resolve names: entries of a table in the package, or `package.module:name`, which is imported."""

import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from typing import Any, TypeVar

PartT = TypeVar("PartT")
_SHOWN = 4


class UnimportableError(ValueError):
    """The module of a name cannot be imported here."""


def named(name: str, table: Mapping[str, PartT], what: str) -> PartT:
    """Return an entry of a table, or import an object.

    Args:
        name: Key of the table, or `package.module:name`.
        table: Known entries.
        what: Noun for messages, such as "mask".

    Raises:
        ValueError: The entry or object does not exist.
    """
    if name in table:
        return table[name]
    if ":" in name:
        part: PartT = imported(name, what)
        return part
    hint = nearest(name, list(table)) or _suggest_mentions(name, table)
    raise ValueError(
        f"{name!r} is not a known {what}{hint}; expected {', '.join(sorted(table))}, or "
        f"package.module:name for your own {what}"
    )


def imported(name: str, what: str) -> Any:
    """Import an object.

    Args:
        name: `package.module:name`.
        what: Noun for messages, such as "mask".

    Raises:
        UnimportableError: The module cannot be imported.
        ValueError: The module has no such object.
    """
    module, _, attribute = name.partition(":")
    try:
        found: Any = import_module(module)
    except ImportError as error:
        raise UnimportableError(
            f"the {what} {name!r} cannot be imported ({error}); add the folder of its package to PYTHONPATH"
        ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            held = _held(found)
            raise ValueError(
                f"the {what} {name!r} does not exist: {found.__name__} has no {part!r}{nearest(part, held)}; it has "
                f"{', '.join(held) or 'no public names'}"
            )
        found = getattr(found, part)
    return found


def _held(found: Any) -> list[str]:
    """Return the public names that a module, or a class, defines itself."""
    return [
        name
        for name, value in vars(found).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == found.__name__
    ]


def nearest(name: str, legal: list[str]) -> str:
    """Return `, did you mean 'x'?` with the most similar allowed name, or one with this prefix; "" if there is none."""
    close = get_close_matches(name, legal, n=1) or [one for one in legal if name and one.startswith(name)]
    return f", did you mean {close[0]!r}?" if close else ""


def _suggest_mentions(name: str, table: Mapping[str, Any]) -> str:
    """`, did you mean 'x' or 'y'?` with the entries whose docstring mentions the name (kinetics); "" if none does."""
    word = re.compile(rf"\b{re.escape(name)}\b", re.IGNORECASE)
    found = [
        repr(key) for key, part in table.items() if word.search(getattr(_unwrap_partial(part), "__doc__", None) or "")
    ]
    return f", did you mean {' or '.join(found[:_SHOWN])}?" if found else ""


def _unwrap_partial(part: Any) -> Any:
    """Return the function of a partial function, and other objects unchanged."""
    return part.func if isinstance(part, partial) else part


def list_few(names: Sequence[str], show: Callable[[str], str] = str) -> str:
    """Return the first three of some names, for a message."""
    return ", ".join(map(show, names[:3])) + (", ..." if len(names) > 3 else "")
