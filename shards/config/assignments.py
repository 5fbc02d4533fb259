"""Change fields of a config by path, as `--set` does."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING
from itertools import pairwise
from typing import Any, get_args, get_type_hints

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
    list_saved_fields,
    plain,
)

_HINTS: dict[type, dict[str, Any]] = {}


def _find_hints(cls: type) -> dict[str, Any]:
    """The types of a config's fields, looked up only once."""
    return _HINTS.get(cls) or _HINTS.setdefault(cls, get_type_hints(cls))


def with_set(config: ConfigT, assignments: Sequence[str], *, where: str = "") -> ConfigT:
    """Return a copy of the config with changed fields: `with_set(recipe, ["model.depth=6", "mask.ratio=0.8"])`.

    A path starts at the top, or is the unique end of a longer path. A value is parsed as JSON; if that fails, it is a
    string. `mask.kind=Tube` replaces the config with another kind and its defaults. All fields are set before the
    config is built, so dependent fields can change together. Raises ValueError for a path that is unknown or ambiguous;
    the message ends with `where`, which locates all paths (by default the names at the top).
    """
    whole = config.to_dict(defaults=True)
    where = where or f"{config.kind()} has {', '.join(f.name for f in list_saved_fields(type(config))) or 'no fields'}"
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"{assignment!r} is not an assignment; write path=value, such as mask.ratio=0.8")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        _put(whole, _found(whole, path.strip(), where), value)
    return type(config).from_dict(whole)


def _list_paths(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Return all paths that can be set in a complete dict."""
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
    """Return the full path of an abbreviated one. Raises ValueError if there is none, or several."""
    parts, places = tuple(path.split(".")), list(_list_paths(whole, ()))
    if parts in places:
        return parts
    fit = [place for place in places if place[-len(parts) :] == parts]
    if len(fit) == 1:
        return fit[0]
    if fit:
        raise ValueError(f"{path!r} is ambiguous: {', '.join('.'.join(place) for place in fit)}; pass the full path")
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
    """Return the class of configs that a field of a config's dict accepts."""
    cls = known(str(at.get(KIND)), Config) if isinstance(at, Mapping) else None
    hint = None if cls is None else _find_hints(cls).get(name)
    fit = [one for one in (hint, *get_args(hint)) if isinstance(one, type) and issubclass(one, Config)]
    return fit[0] if len(fit) == 1 else Config


def _collect_defaults(cls: type[Config]) -> Json:
    """Return the dict of a class's defaults, without the fields that have none."""
    made = head(cls)
    for f in list_saved_fields(cls):
        if (default := get_default(f)) is not MISSING:
            made[f.name] = plain(default, f.name, defaults=True, identity=False)
    return made
