"""Compare saved settings with those at hand, field by field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any

from .base import KIND, VERSION, Config, default_of, is_list, known, plain, saved_fields, under


def differences(saved: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """The differences of two dicts, one line per field: `data.mask.ratio: saved 0.9, here 0.8`.

    The dicts may hold those of configs. Missing fields of a config have today's defaults; fields marked NOT_IDENTITY
    are ignored. A config saved by another version of its class always differs.
    """
    return list(_differences(saved, here, ""))


def _differences(saved: Any, here: Any, path: str) -> Iterator[str]:
    """The differences at `path`."""
    if isinstance(saved, Mapping) and isinstance(here, Mapping) and saved.get(KIND) == here.get(KIND):
        one, two = saved.get(VERSION, 1), here.get(VERSION, 1)
        if KIND in saved and one != two:
            yield f"{path or saved[KIND]}: saved by version {one} of {saved[KIND]}, here version {two}"
            return
        saved, here = _completed(saved), _completed(here)
        for name in dict.fromkeys((*saved, *here)):
            yield from _differences(saved.get(name, MISSING), here.get(name, MISSING), under(path, name))
    elif is_list(saved) and is_list(here) and len(saved) == len(here) and any(isinstance(v, Mapping) for v in here):
        for i, (one, two) in enumerate(zip(saved, here, strict=True)):
            yield from _differences(one, two, under(path, i))
    elif is_list(saved) and is_list(here):
        if list(saved) != list(here):
            yield f"{path}: saved {_said(saved)}, here {_said(here)}"
    elif saved != here:
        yield f"{path}: saved {_said(saved)}, here {_said(here)}"


def _said(value: Any) -> str:
    """A value in a message."""
    if value is MISSING:
        return "nothing"
    if isinstance(value, Mapping) and KIND in value:
        return f"{value[KIND]}({', '.join(f'{k}={_said(v)}' for k, v in value.items() if k not in (KIND, VERSION))})"
    return value if isinstance(value, str) else str(value)


def _completed(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """A config's dict with today's defaults for missing fields, without the fields marked NOT_IDENTITY."""
    cls = known(data[KIND], Config) if isinstance(data.get(KIND), str) else None
    if cls is None:
        return data
    counted = {f.name: f for f in saved_fields(cls, identity=True)}
    dropped = {f.name for f in fields(cls)} - set(counted)
    whole = {name: value for name, value in data.items() if name not in dropped}
    for name, f in counted.items():
        if name not in whole and (default := default_of(f)) is not MISSING:
            whole[name] = plain(default, name, defaults=False, identity=True)
    return whole
