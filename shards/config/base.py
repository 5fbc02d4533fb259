"""Base class of all settings, which converts them to plain JSON and back.

A subclass of `Config` is a `@dataclass(frozen=True, kw_only=True, slots=True)`. Its fields are plain values, Literals,
tuples, mappings of plain values and other configs. Defaults are left out, so adding a field with a default does not
change saved dicts. A changed default changes the meaning of saved dicts, so the class's `version` must then be
incremented.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from inspect import isabstract
from pathlib import Path
from sys import float_info
from types import MappingProxyType, NoneType, UnionType
from typing import Any, ClassVar, Literal, NamedTuple, Self, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from maskstream.shards.limits import check_fields
from maskstream.shards.named import imported, nearest

Json = dict[str, Any]
"""A JSON object."""
NOT_IDENTITY: Mapping[str, bool] = MappingProxyType({"not_identity": True})
"""The `metadata` of a field that does not affect the result, such as a backend."""
NOT_SAVED: Mapping[str, bool] = MappingProxyType({"not_identity": True, "not_saved": True})
"""The `metadata` of a field that contains a live object, such as a trainer's feedback; it is never saved."""
KIND, VERSION = "kind", "version"

_KNOWN: dict[tuple[str, str], type[Config]] = {}
_PACKAGE = __name__.split(".")[0] + "."
_PLAIN = (bool, int, float, str)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Base class of all settings. `version` is incremented when a default changes, and saved if it is above 1."""

    __slots__ = ()
    version: ClassVar[int] = 1

    def __init_subclass__(cls, **options: Any) -> None:
        # dataclass(slots=True) creates a class twice; the second one replaces the first here
        super().__init_subclass__(**options)
        _KNOWN[cls.__module__, cls.__name__] = cls

    def __post_init__(self) -> None:
        check_fields(self, f"{self.kind()}: ")
        self.validate()

    def validate(self) -> None:
        """Raise ValueError for values that are inconsistent with each other; the annotations limit each field by
        itself.
        """

    @classmethod
    def kind(cls) -> str:
        """The class's name in a dict: `Name` in this package, `module:Name` outside."""
        return cls.__name__ if cls.__module__.startswith(_PACKAGE) else f"{cls.__module__}:{cls.__qualname__}"

    def to_dict(self, *, defaults: bool = False, identity: bool = False) -> Json:
        """Return the settings as plain JSON. `defaults` includes fields with their default values.

        `identity` leaves out the fields marked NOT_IDENTITY. Raises ValueError for a value that JSON cannot hold.
        """
        if extra := set(getattr(self, "__dict__", {})) - {f.name for f in fields(self)}:
            raise ValueError(
                f"{self.kind()} has the attributes {', '.join(sorted(extra))}, which are not fields; make it a "
                "@dataclass(frozen=True, kw_only=True, slots=True), so that its settings can be saved and compared"
            )
        made = head(type(self))
        for f in list_saved_fields(type(self), identity=identity):
            value = getattr(self, f.name)
            if defaults or not _is_default(f, value):
                made[f.name] = plain(value, f"{self.kind()}.{f.name}", defaults=defaults, identity=identity)
        return made

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild a config from a dict written by `to_dict`: of this class, or of the subclass named by "kind".

        Raises ValueError for an unknown kind or field (naming the nearest one), a missing field, a value of a wrong
        type, or another version of the class.
        """
        return cast(Self, _build_from_dict(cls, data, ""))

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """Do the same for a dict from data, such as a split's dataset.json: no kind in it may refer to code, so nothing
        is imported.
        """
        _refuse_code(data)
        return cls.from_dict(data)


ConfigT = TypeVar("ConfigT", bound=Config)
RebuiltT = TypeVar("RebuiltT")


def rebuild(cls: type[RebuiltT], data: Any) -> RebuiltT:
    """Rebuild a dataclass that is not a config from the JSON of its `asdict`. Unknown fields are ignored.

    Raises ValueError for a missing field or a value of a wrong type.
    """
    return cast(RebuiltT, _convert_to_hint(cls, data, ""))


def known_configs() -> list[type[Config]]:
    """Return every imported config class that is not abstract, sorted by kind."""
    return sorted((one for one in _KNOWN.values() if not _is_abstract(one)), key=_find_kind)


def head(cls: type[Config]) -> Json:
    """The kind, and the version if it is above 1."""
    return {KIND: cls.kind()} | ({VERSION: cls.version} if cls.version > 1 else {})


def _is_abstract(cls: type[Config]) -> bool:
    return isabstract(cls) or ABC in cls.__bases__


def _find_kind(cls: type[Config]) -> str:
    return cls.kind()


def list_saved_fields(cls: type[Config], *, identity: bool = False) -> list[Field[Any]]:
    """Return the fields that are saved; with `identity`, without those marked NOT_IDENTITY."""
    unwanted = "not_identity" if identity else "not_saved"
    return [f for f in fields(cls) if f.init and not f.metadata.get(unwanted)]


def get_default(f: Field[Any]) -> Any:
    """A field's default, or MISSING."""
    return f.default_factory() if f.default_factory is not MISSING else f.default


def _is_default(f: Field[Any], value: Any) -> bool:
    return (default := get_default(f)) is not MISSING and bool(value == default)


def plain(value: Any, path: str, *, defaults: bool, identity: bool) -> Any:
    """A field's value as JSON."""
    if isinstance(value, Config):
        return value.to_dict(defaults=defaults, identity=identity)
    if value is None or isinstance(value, _PLAIN):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(k): plain(v, f"{path}.{k}", defaults=defaults, identity=identity) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [plain(v, f"{path}.{i}", defaults=defaults, identity=identity) for i, v in enumerate(value)]
    if isinstance(value, frozenset):
        return sorted(value)
    raise ValueError(
        f"{path} is a {type(value).__name__}, which cannot be saved; use plain values, tuples or configs (frozen "
        "dataclasses)"
    )


def known(kind: str, base: type[Config]) -> type[Config] | None:
    """Return the imported subclass of `base` with this kind; None if there is none."""
    fit = [one for one in _KNOWN.values() if one.kind() == kind and issubclass(one, base)]
    if len(fit) > 1:
        raise ValueError(
            f"several classes have the name {kind}, in {', '.join(sorted(one.__module__ for one in fit))}; "
            "rename all but one"
        )
    return fit[0] if fit else None


def find_class(kind: str, base: type[Config], path: str) -> type[Config]:
    """Return the subclass of `base` with this kind, which is imported if necessary. Raises ValueError if there is
    none.
    """
    cls = known(kind, base)
    if cls is None and ":" in kind:
        found = imported(kind, f"kind of {path}" if path else "kind")
        if isinstance(found, type) and issubclass(found, base):
            cls = found
        else:
            raise ValueError(f"{_at(path)}{kind} is not a kind of {base.__name__}; use a subclass of {base.__name__}")
    if cls is None:
        legal = [one.kind() for one in known_configs() if issubclass(one, base)]
        raise ValueError(
            f"{_at(path)}{kind!r} is not a kind of {base.__name__}{nearest(kind, legal)}; expected "
            f"{''.join(f'{one}, ' for one in legal)}{'or ' if legal else ''}package.module:Name for your own class"
        )
    return cls


def _refuse_code(data: Any) -> None:
    """Raise ValueError for a kind, at any depth, that names a module."""
    left = [data]
    while left:
        one = left.pop()
        if isinstance(one, Mapping):
            if isinstance(kind := one.get(KIND), str) and ":" in kind:
                raise ValueError(
                    f"saved data refers to the class {kind!r}; only commands and configs that you write "
                    "yourself may refer to code"
                )
            left += one.values()
        elif is_list(one):
            left += one


def _build_from_dict(base: type[Config], data: Any, path: str) -> Config:
    """Create the config that a dict describes."""
    if not isinstance(data, Mapping):
        raise ValueError(f"{_at(path)}got {data!r}; a {base.__name__} is an object with its kind and fields")
    if KIND not in data and (_is_abstract(base) or base is Config):
        raise ValueError(f'{_at(path)}the object has no kind; add "kind" with the name of a {base.__name__}')
    kind = data.get(KIND, base.kind())
    if not isinstance(kind, str):
        raise ValueError(f"{_at(path)}got the kind {kind!r}; a kind must be a name")
    cls = base if kind == base.kind() else find_class(kind, base, path)
    if _is_abstract(cls):
        raise ValueError(f"{_at(path)}{kind} is abstract; use one of its subclasses")
    if (version := data.get(VERSION, 1)) != cls.version:
        raise ValueError(
            f"{_at(path)}saved by version {version} of {kind}, but this is version {cls.version}: its "
            "defaults have changed, so the saved settings now mean something different; use the version that "
            "saved them, or start over"
        )
    own = list_saved_fields(cls)
    names = [f.name for f in own]
    for name in data:
        if name not in (KIND, VERSION, *names):
            raise ValueError(
                f"{_at(path)}{kind} has no field {name!r}{nearest(name, names)}; its fields are "
                f"{', '.join(names) or 'none'}"
            )
    return cast(Config, _fill_fields(cls, own, data, path))


def _fill_fields(cls: type[Any], own: Sequence[Field[Any]], data: Mapping[str, Any], path: str) -> Any:
    """Create an instance from the class's own fields in the data."""
    hints = _find_hints(cast(Hashable, cls))
    values = {f.name: _convert_to_hint(hints[f.name], data[f.name], under(path, f.name)) for f in own if f.name in data}
    if missing := [f.name for f in own if f.name not in values and get_default(f) is MISSING]:
        raise ValueError(f"{_at(path)}{cls.__name__} needs {', '.join(missing)}")
    return cls(**values)


@cache
def _find_hints(cls: Hashable) -> dict[str, Any]:
    """The types of the fields."""
    return get_type_hints(cls)


def _convert_to_hint(hint: Any, value: Any, path: str) -> Any:
    """Convert a JSON `value` to a value of the type `hint`. Raises ValueError if it has another type."""
    if hint is Any or (type(value) is hint and hint in _PLAIN):
        return value
    origin, args = get_origin(hint), get_args(hint)
    if isinstance(hint, TypeVar):
        return _convert_to_hint(hint.__bound__ or Any, value, path)
    if origin in (Union, UnionType):
        return _convert_to_union(args, value, path)
    if origin is Literal:
        if any(value == legal and type(value) is type(legal) for legal in args):
            return value
        raise ValueError(f"{_at(path)}expected {', '.join(map(repr, args))}, got {value!r}")
    holder = origin or hint
    if isinstance(holder, type):
        if issubclass(holder, Config):
            return _build_from_dict(holder, value, path)
        if is_dataclass(holder) or issubclass(holder, Mapping):
            return _convert_object(holder, args, value, path)
        if holder not in (str, bytes) and issubclass(holder, Sequence | frozenset):
            return _convert_sequence(holder, args, value, path)
    return _convert_plain(holder, value, path)


def _convert_object(holder: type, args: tuple[Any, ...], value: Any, path: str) -> Any:
    if not isinstance(value, Mapping):
        raise ValueError(f"{_at(path)}expected an object, got {value!r}")
    if is_dataclass(holder):
        return _fill_fields(holder, fields(holder), value, path)
    of = args[1] if len(args) == 2 else Any
    return {str(k): _convert_to_hint(of, v, under(path, k)) for k, v in value.items()}


def _convert_plain(holder: Any, value: Any, path: str) -> Any:
    if holder is Path and isinstance(value, str):
        return Path(value)
    if holder is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) <= float_info.max:
        return float(value)
    if isinstance(holder, type) and isinstance(value, holder) and (holder is bool or not isinstance(value, bool)):
        return value
    wanted = "null" if holder in (None, NoneType) else getattr(holder, "__name__", str(holder))
    raise ValueError(f"{_at(path)}expected a value of type {wanted}, got {value!r:.80}")


def _convert_to_union(args: tuple[Any, ...], value: Any, path: str) -> Any:
    """Return the value as the first type that accepts it unchanged, or else as the first that accepts it at all."""
    if value is None and NoneType in args:
        return None
    errors: list[ValueError] = []
    made: list[Any] = []
    for arg in args:
        try:
            made.append(_convert_to_hint(arg, value, path))
        except ValueError as error:
            errors.append(error)
    for one in made:
        if type(one) is type(value):
            return one
    if made:
        return made[0]
    if isinstance(value, Mapping) and (of := [e for a, e in zip(args, errors, strict=True) if _is_config(a)]):
        raise of[0]
    wanted = " or ".join("null" if a is NoneType else getattr(get_origin(a) or a, "__name__", str(a)) for a in args)
    raise ValueError(f"{_at(path)}expected {wanted}, got {value!r}")


def _is_config(hint: Any) -> bool:
    holder = get_origin(hint) or hint
    return isinstance(holder, type) and issubclass(holder, Config)


def _convert_sequence(holder: type, args: tuple[Any, ...], value: Any, path: str) -> Any:
    if not is_list(value):
        raise ValueError(f"{_at(path)}expected a list, got {value!r}")
    if issubclass(holder, tuple) and args and args[-1] is not Ellipsis:
        if len(args) != len(value):
            raise ValueError(f"{_at(path)}expected a list of {len(args)} values, got {value!r}")
        each: Sequence[Any] = args
    else:
        each = [args[0] if args else Any] * len(value)
    made = [_convert_to_hint(hint, one, under(path, i)) for i, (hint, one) in enumerate(zip(each, value, strict=True))]
    return frozenset(made) if issubclass(holder, frozenset) else made if holder is list else tuple(made)


def is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def under(path: str, name: str | int) -> str:
    return f"{path}.{name}" if path else str(name)


def _at(path: str) -> str:
    """Return the prefix of a message about a path."""
    return f"{path}: " if path else ""


class Difference(NamedTuple):
    """Format the values of two dicts at a path."""

    path: str
    saved: str
    here: str


def differences(saved: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Return the differences of two dicts, one line per field: `data.mask.ratio: saved 0.9, here 0.8`.

    The dicts may contain configs. Missing fields of a config have today's defaults; fields marked NOT_IDENTITY
    are ignored. A config saved by another version of its class always differs.
    """
    return [f"{one.path}: saved {one.saved}, here {one.here}" for one in _list_differences(saved, here, "")]


def compare(dicts: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Compare dicts like `differences`; returns the values in each by path, {"data.mask.ratio": ("0.9", "0.8")}.

    If two dicts have configs of different classes at a path, the whole config counts as one value.
    """
    found = {one.path: None for other in dicts[1:] for one in _list_differences(dicts[0], other, "")}
    paths = [path for path in found if not any(path.startswith(f"{other}.") for other in found)]
    return {path: tuple(_say(_get_value(data, path)) for data in dicts) for path in paths}


def _get_value(data: Any, path: str) -> Any:
    """Return the value at a path of a dict."""
    for name in path.split("."):
        if isinstance(data, Mapping):
            data = _fill_defaults(data).get(name, MISSING)
        else:
            data = data[int(name)] if is_list(data) and int(name) < len(data) else MISSING
    return data


def _list_differences(saved: Any, here: Any, path: str) -> Iterator[Difference]:
    """Return the differences at `path`."""
    if isinstance(saved, Mapping) and isinstance(here, Mapping) and saved.get(KIND) == here.get(KIND):
        one, two = saved.get(VERSION, 1), here.get(VERSION, 1)
        if KIND in saved and one != two:
            yield Difference(path or saved[KIND], f"by version {one} of {saved[KIND]}", f"version {two}")
            return
        saved, here = _fill_defaults(saved), _fill_defaults(here)
        for name in dict.fromkeys((*saved, *here)):
            yield from _list_differences(saved.get(name, MISSING), here.get(name, MISSING), under(path, name))
    elif is_list(saved) and is_list(here) and len(saved) == len(here) and any(isinstance(v, Mapping) for v in here):
        for i, (one, two) in enumerate(zip(saved, here, strict=True)):
            yield from _list_differences(one, two, under(path, i))
    elif is_list(saved) and is_list(here):
        if list(saved) != list(here):
            yield Difference(path, _say(saved), _say(here))
    elif saved != here:
        yield Difference(path, _say(saved), _say(here))


def _say(value: Any) -> str:
    """Format a value for a message."""
    if value is MISSING:
        return "nothing"
    if isinstance(value, Mapping) and KIND in value:
        return f"{value[KIND]}({', '.join(f'{k}={_say(v)}' for k, v in value.items() if k not in (KIND, VERSION))})"
    return value if isinstance(value, str) else str(value)


def _fill_defaults(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a config's dict with today's defaults for missing fields, without the fields marked NOT_IDENTITY."""
    cls = known(data[KIND], Config) if isinstance(data.get(KIND), str) else None
    if cls is None:
        return data
    counted = {f.name: f for f in list_saved_fields(cls, identity=True)}
    dropped = {f.name for f in fields(cls)} - set(counted)
    whole = {name: value for name, value in data.items() if name not in dropped}
    for name, f in counted.items():
        if name not in whole and (default := get_default(f)) is not MISSING:
            whole[name] = plain(default, name, defaults=False, identity=True)
    return whole
