"""Whether values have the types of the fields that they are given for: a wrong one is named where it is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from .base import Config, known_configs


def check_types(config: Config) -> None:
    """ValueError if a field of a config has a value of a type that it does not take; the message says which it takes.

    Python calls no converters as `from_dict` does: what is given is compared with the type as it is. Numbers of numpy
    are numbers, and lists are sequences; a word is no sequence of words.
    """
    hints = _hints(type(config))
    for f in fields(config):
        check_type(f"{config.kind()}({f.name}=", getattr(config, f.name), hints[f.name], ")")


def check_type(before: str, value: Any, hint: Any, after: str = "", *, remedy: str = "") -> None:
    """ValueError if a value does not have the type `hint`. before, after: stand around it in the message; remedy: what
    to do, if the message cannot tell it from the value.
    """
    if not _fits(value, hint):
        wanted = " or ".join(_words(hint))
        raise ValueError(
            f"{before}{value!r}{after}: {wanted} is wanted, got {_kind(value)}{remedy or _meant(value, hint)}"
        )


def _meant(value: Any, hint: Any) -> str:
    """What is to be given instead of a class, of the name of one, or of a word alone; "" for other values."""
    if isinstance(value, type) and _fits_class(value, hint):
        return f"; give one of it, {value.__name__}(...)"
    if not isinstance(value, str):
        return ""
    if _fits((value,), hint):
        return f"; write ({value!r},)"
    kinds = {one.kind().lower(): one.kind() for one in known_configs() if _fits_class(one, hint)}
    close = get_close_matches(value.lower(), kinds, n=1)
    return f", did you mean {kinds[close[0]]}(...)?" if close else ""


_HINTS: dict[type, dict[str, Any]] = {}


def _hints(cls: type) -> dict[str, Any]:
    """The types of a config's fields, found once."""
    return _HINTS.get(cls) or _HINTS.setdefault(cls, get_type_hints(cls))


def _fits(value: Any, hint: Any) -> bool:
    origin, args = get_origin(hint), get_args(hint)
    if isinstance(hint, TypeVar) or hint is Any:
        return True
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in args)
    if origin is Literal:
        return True  # whoever declares the words also says which are legal
    holder = origin or hint
    if holder in (None, NoneType):
        return value is None
    if not isinstance(holder, type) or getattr(holder, "_is_protocol", False):
        return True
    if holder in (int, float):
        return isinstance(value, Integral if holder is int else Real) and not isinstance(value, bool)
    if issubclass(holder, Sequence) and holder not in (str, bytes):
        return isinstance(value, Sequence) and not isinstance(value, str | bytes) and _each_fits(value, args)
    if issubclass(holder, Mapping):
        return isinstance(value, Mapping)
    return isinstance(value, holder)


def _each_fits(values: Sequence[Any], args: tuple[Any, ...]) -> bool:
    """Whether the items of a sequence fit, where all of them have one type."""
    each = [one for one in args if one is not Ellipsis]
    return len(each) != 1 or all(_fits(value, each[0]) for value in values)


def _fits_class(value: type, hint: Any) -> bool:
    """Whether a class was given where one of it is wanted."""
    return any(isinstance(one, type) and issubclass(value, one) for one in (hint, *get_args(hint)))


def _words(hint: Any) -> list[str]:
    """The types that a hint takes, in words."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return list(dict.fromkeys(word for one in args for word in _words(one)))
    if origin is Literal:
        return [repr(one) for one in args]
    holder = origin or hint
    if isinstance(holder, type) and issubclass(holder, Sequence) and holder not in (str, bytes):
        each = [one for one in args if one is not Ellipsis]
        return [f"a sequence of {' or '.join(_words(each[0]))}" if len(each) == 1 else "a sequence"]
    return ["None" if holder in (None, NoneType) else _article(getattr(holder, "__name__", str(holder)))]


def _kind(value: Any) -> str:
    """What a value is, in words."""
    return (
        "None"
        if value is None
        else f"the class {value.__name__}"
        if isinstance(value, type)
        else _article(type(value).__name__)
    )


def _article(word: str) -> str:
    return f"{'an' if word[0].lower() in 'aeio' else 'a'} {word}"
