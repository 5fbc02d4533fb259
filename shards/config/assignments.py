"""Change fields of a config by path, as `--set` does."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from difflib import get_close_matches
from inspect import isabstract
from itertools import pairwise
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from maskstream.shards.named import nearest

from .base import (
    KIND,
    VERSION,
    Config,
    ConfigT,
    Json,
    find_class,
    get_default,
    head,
    is_list,
    known,
    known_configs,
    list_saved_fields,
    plain,
)


def check_types(config: Config) -> None:
    """ValueError if a field of a config has a value of a type that it does not take; the message says which it takes.

    Python calls no converters as `from_dict` does: what is given is compared with the type as it is. Numbers of numpy
    are numbers, and lists are sequences; a word is no sequence of words.
    """
    hints = _find_hints(type(config))
    for f in fields(config):
        check_type(f"{config.kind()}({f.name}=", getattr(config, f.name), hints[f.name], ")")


def check_type(before: str, value: Any, hint: Any, after: str = "", *, remedy: str = "") -> None:
    """ValueError if a value does not have the type `hint`. before, after: stand around it in the message; remedy: what
    to do, if the message cannot tell it from the value.
    """
    if not _is_fitting(value, hint):
        wanted = " or ".join(_words(hint))
        raise ValueError(
            f"{before}{value!r}{after}: {wanted} is wanted, got {_kind(value)}{remedy or _suggest_value(value, hint)}"
        )


def _suggest_value(value: Any, hint: Any) -> str:
    """What is to be given instead of a class, of the name of one, of a word alone, or of an object of a class that only
    looks like the one that is wanted; "" for other values.
    """
    if isinstance(value, type) and _is_right_class(value, hint):
        return f"; give one of it, {value.__name__}(...)"
    if not isinstance(value, str):
        bases = [one for one in (hint, *get_args(hint)) if isinstance(one, type) and isabstract(one)]
        own = "" if type(value).__module__ == "builtins" else type(value).__name__
        return f"; make {own} a subclass of {bases[0].__module__}.{bases[0].__name__}" if bases and own else ""
    if _is_fitting((value,), hint):
        return f"; write ({value!r},)"
    kinds = {one.kind().lower(): one.kind() for one in known_configs() if _is_right_class(one, hint)}
    close = get_close_matches(value.lower(), kinds, n=1)
    return f", did you mean {kinds[close[0]]}(...)?" if close else ""


_HINTS: dict[type, dict[str, Any]] = {}


def _find_hints(cls: type) -> dict[str, Any]:
    """The types of a config's fields, found once."""
    return _HINTS.get(cls) or _HINTS.setdefault(cls, get_type_hints(cls))


def _is_fitting(value: Any, hint: Any) -> bool:
    origin, args = get_origin(hint), get_args(hint)
    if isinstance(hint, TypeVar) or hint is Any:
        return True
    if origin in (Union, UnionType):
        return any(_is_fitting(value, one) for one in args)
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
    return len(each) != 1 or all(_is_fitting(value, each[0]) for value in values)


def _is_right_class(value: type, hint: Any) -> bool:
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
    return ["None" if holder in (None, NoneType) else _choose_article(getattr(holder, "__name__", str(holder)))]


def _kind(value: Any) -> str:
    """What a value is, in words."""
    return (
        "None"
        if value is None
        else f"the class {value.__name__}"
        if isinstance(value, type)
        else _choose_article(type(value).__name__)
    )


def _choose_article(word: str) -> str:
    return f"{'an' if word[0].lower() in 'aeio' else 'a'} {word}"


def with_set(config: ConfigT, assignments: Sequence[str], *, where: str = "") -> ConfigT:
    """A copy of the config with changed fields: `with_set(recipe, ["model.depth=6", "mask.ratio=0.8"])`.

    A path starts at the top, or is the unique end of a path. A value is JSON, or else a string. `mask.kind=Tube`
    replaces the config by another kind with its defaults. All fields are set before the config is built, so fields that
    depend on each other can change together. Raises ValueError for a path that is unknown, and says `where` all are (by
    default the names at the top), or that is ambiguous.
    """
    whole = config.to_dict(defaults=True)
    where = where or f"{config.kind()} has {', '.join(f.name for f in list_saved_fields(type(config))) or 'no fields'}"
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"{assignment!r} sets nothing; write path=value, such as mask.ratio=0.8")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        _put(whole, _found(whole, path.strip(), where), value)
    return type(config).from_dict(whole)


def _list_paths(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """All paths that can be set in a complete dict."""
    if path:
        yield path
    if isinstance(value, Mapping):
        names = dict.fromkeys(value)
        if isinstance(value.get(KIND), str) and (cls := known(value[KIND], Config)):
            names |= dict.fromkeys(f.name for f in list_saved_fields(cls))
        for name in names:
            if name != VERSION:
                yield from _list_paths(value.get(name), (*path, name))
    elif is_list(value):
        for i, one in enumerate(value):
            if isinstance(one, Mapping):
                yield from _list_paths(one, (*path, str(i)))
    elif value is None and path[-1:] != (KIND,):
        yield (*path, KIND)


def _found(whole: Json, path: str, where: str) -> tuple[str, ...]:
    """The full path that `path` names. Raises ValueError if there is none, or if it is ambiguous."""
    parts, places = tuple(path.split(".")), list(_list_paths(whole, ()))
    if parts in places:
        return parts
    fit = [place for place in places if place[-len(parts) :] == parts]
    if len(fit) == 1:
        return fit[0]
    if fit:
        raise ValueError(f"{path!r} is ambiguous: {', '.join('.'.join(place) for place in fit)}; give the full path")
    ends = dict.fromkeys(".".join(place[-len(parts) :]) for place in places)
    above = {place[-1]: None for place in places if len(parts) > 1 and place[:-1][-len(parts) + 1 :] == parts[:-1]}
    legal = f"; {'.'.join(parts[:-1])} has {', '.join(above)}" if above else ""
    raise ValueError(f"there is no field {path!r} to set{nearest(path, list(ends))}{legal}; {where}")


def _put(whole: Json, place: tuple[str, ...], value: Any) -> None:
    """Set a value at a path. A new kind comes with its defaults."""
    at: Any = whole
    for name, after in pairwise(place):
        here = at[int(name)] if isinstance(at, list) else at.get(name)
        if after == KIND and (not isinstance(here, dict) or here.get(KIND) != value):
            here = _collect_defaults(find_class(str(value), _find_base(at, name), ".".join(place[:-1])))
            if isinstance(at, list):
                at[int(name)] = here
            else:
                at[name] = here
        at = here
    if isinstance(at, list):
        at[int(place[-1])] = value
    elif place[-1] != KIND or len(place) == 1:
        at[place[-1]] = value


def _find_base(at: Any, name: str) -> type[Config]:
    """The class of configs that a field of a config's dict takes."""
    cls = known(str(at.get(KIND)), Config) if isinstance(at, Mapping) else None
    hint = None if cls is None else _find_hints(cls).get(name)
    fit = [one for one in (hint, *get_args(hint)) if isinstance(one, type) and issubclass(one, Config)]
    return fit[0] if len(fit) == 1 else Config


def _collect_defaults(cls: type[Config]) -> Json:
    """The dict of a class's defaults, without the fields that have none."""
    made = head(cls)
    for f in list_saved_fields(cls):
        if (default := get_default(f)) is not MISSING:
            made[f.name] = plain(default, f.name, defaults=True, identity=False)
    return made
