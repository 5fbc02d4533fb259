"""Limits of the fields of a config, declared on their annotations and checked when the config is created.

    frames: PositiveInt = 16
    crf: Annotated[int, Bounds(min=0, max=51)] = 23
    scale: Annotated[tuple[Proportion, Proportion], ASCENDING] = (0.5, 1.0)
    start: Literal["random", "center"] = "random"

`check_fields` reads the annotations of a class once, and then runs one compiled test per field. The command line
imports this module, so it imports nothing heavy.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from inspect import isabstract
from itertools import pairwise
from math import inf
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Protocol, Union, get_args, get_origin, get_type_hints

from maskstream.shards.named import nearest

Test = Callable[[Any], bool]
_PACKAGE = __name__.split(".")[0]


class Limit(Protocol):
    """Annotation metadata that limits the values of a type."""

    def allows(self, value: Any) -> bool:
        """Return True if a value of the annotated type is allowed."""

    def describe(self) -> str:
        """Return the limit in words that follow the name of the type: "of at least 1"."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """Limits of a number.

    Attributes:
        min: Smallest allowed value.
        max: Largest allowed value.
        above: All allowed values are larger.
        below: All allowed values are smaller; infinity allows every finite number.
        multiple: All allowed values are multiples of this.
        note: Words that follow the limits in a message, such as a unit.
    """

    min: float | None = None
    max: float | None = None
    above: float | None = None
    below: float | None = None
    multiple: int | None = None
    note: str = ""

    def allows(self, value: Any) -> bool:
        """Return True if a number lies within the limits; NaN does not."""
        return (
            (self.min is None or value >= self.min)
            and (self.max is None or value <= self.max)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
            and (self.multiple is None or value % self.multiple == 0)
        )

    def describe(self) -> str:
        """Return the limits in words."""
        if self.min is not None and self.max is not None:
            parts = [f"from {self.min} to {self.max}"]
        else:
            parts = [f"of at least {self.min}"] if self.min is not None else []
            parts += [f"above {self.above}"] if self.above is not None else []
            parts += [f"of at most {self.max}"] if self.max is not None else []
        parts += [f"below {self.below}"] if self.below not in (None, inf) else []
        parts = ["that is finite"] if self.above == -inf else parts
        parts += [f"divisible by {self.multiple}"] if self.multiple is not None else []
        return " ".join([" and ".join(parts), self.note]).rstrip()


class _Ascending:
    """The numbers of a sequence are in ascending order: (low, high)."""

    def allows(self, value: Any) -> bool:
        """Return True if each number is at least the previous one."""
        return all(low <= high for low, high in pairwise(value))

    def describe(self) -> str:
        """Return the limit in words."""
        return "in ascending order"


class _Filled:
    """A sequence or text is not empty."""

    def allows(self, value: Any) -> bool:
        """Return True if there is an item."""
        return len(value) > 0

    def describe(self) -> str:
        """Return the limit in words."""
        return "that is not empty"


@dataclass(frozen=True, slots=True)
class Choices:
    """Allowed values, if they are not written as a Literal."""

    values: Sequence[Any]

    def allows(self, value: Any) -> bool:
        """Return True if the value is one of them."""
        return value in self.values

    def describe(self) -> str:
        """Return all of them."""
        return f"that is {_join([repr(one) for one in self.values])}"


@dataclass(frozen=True, slots=True)
class Valid:
    """A check that writes its own message: a function that raises raise ValueError for a value that is not allowed."""

    check: Callable[[Any], object]

    def allows(self, value: Any) -> bool:
        """Return True; ValueError for a value that is not allowed."""
        self.check(value)
        return True

    def describe(self) -> str:
        """Return no text: the function writes the message itself."""
        return ""


ASCENDING = _Ascending()
FILLED = _Filled()
PositiveInt = Annotated[int, Bounds(min=1)]
NaturalInt = Annotated[int, Bounds(min=0)]
AtLeastTwo = Annotated[int, Bounds(min=2)]
PositiveFloat = Annotated[float, Bounds(above=0, below=inf)]
NaturalFloat = Annotated[float, Bounds(min=0, below=inf)]
FiniteFloat = Annotated[float, Bounds(above=-inf, below=inf)]
Proportion = Annotated[float, Bounds(min=0, max=1)]
PositiveProportion = Annotated[float, Bounds(above=0, max=1)]
ProperProportion = Annotated[float, Bounds(min=0, below=1)]
OpenProportion = Annotated[float, Bounds(above=0, below=1)]
Interval = Annotated[tuple[PositiveProportion, PositiveProportion], ASCENDING]
PositiveInterval = Annotated[tuple[PositiveFloat, PositiveFloat], ASCENDING]


class FieldError(ValueError):
    """A field of a config has a value that is not allowed."""

    def __init__(self, name: str, reason: str, *, owner: str = "") -> None:
        super().__init__(f"{owner}{name} {reason}")
        self.name, self.reason = name, reason


_TESTS: dict[type, list[tuple[str, Any, Test]]] = {}


def check_fields(config: object, owner: str = "") -> None:
    """Check each field of a dataclass against the type and the limits of its annotation.

    Nothing is converted: numpy's numbers are numbers and lists are sequences, but a string is not a sequence of
    strings.

    Args:
        config: A dataclass instance.
        owner: Prefix of the message, such as "VideoClip: ".

    Raises:
        FieldError: A value is not allowed.
    """
    cls = type(config)
    for name, hint, test in _TESTS.get(cls) or _TESTS.setdefault(cls, _compile(cls)):
        value = getattr(config, name)
        if not test(value):
            raise FieldError(name, _explain(value, hint), owner=owner)


def check_value(name: str, value: Any, hint: Any, remedy: str = "") -> None:
    """Check one value against a type and its limits.

    Args:
        name: Name of the setting, which begins the message.
        value: Value to check.
        hint: Type, with its limits as `Annotated` metadata.
        remedy: End of the message, such as "; use 0.9", in place of a guess from the value.

    Raises:
        FieldError: The value is not allowed.
    """
    if not _make_test(hint)(value):
        raise FieldError(name, _explain(value, hint, remedy))


def _compile(cls: type) -> list[tuple[str, Any, Test]]:
    try:
        hints = get_type_hints(cls, include_extras=True)
    except NameError:  # of a class that is imported for type checkers only
        hints = {name: hint for name, hint in cls.__annotations__.items() if not isinstance(hint, str)}
    own = [(f.name, hints[f.name]) for f in fields(cls) if f.name in hints]
    tests = [(name, hint, _make_test(hint)) for name, hint in own]
    return [one for one in tests if one[2] is not _accept]


def _accept(value: Any) -> bool:
    return True


def _is_int(value: Any) -> bool:
    return type(value) is int or (isinstance(value, Integral) and not isinstance(value, bool))


def _is_float(value: Any) -> bool:
    return type(value) is float or (isinstance(value, Real) and not isinstance(value, bool))


def _make_test(hint: Any) -> Test:
    """Return the test of whether a value fits a type."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        tests = [_make_test(args[0]), *(_spare_none(one) for one in args[1:] if hasattr(one, "allows"))]
        return lambda value: all(test(value) for test in tests)
    if origin in (Union, UnionType):
        tests = [_make_test(one) for one in args]
        return _accept if _accept in tests else lambda value: any(test(value) for test in tests)
    if origin is Literal:
        return lambda value: any(type(value) is type(choice) and value == choice for choice in args)
    return _make_class_test(origin or hint, args)


def _make_class_test(holder: Any, args: tuple[Any, ...]) -> Test:
    """Return the test of whether a value is an instance of a class; for sequences, also whether the items fit its
    arguments.
    """
    if holder is Any or not isinstance(holder, type) or Protocol in holder.__bases__:
        return _accept
    if holder in (int, float):
        return _is_int if holder is int else _is_float
    if issubclass(holder, Sequence) and holder not in (str, bytes):
        return _make_sequence_test(args)
    return lambda value: isinstance(value, Mapping if issubclass(holder, Mapping) else holder)


def _spare_none(limit: Limit) -> Test:
    return lambda value: value is None or limit.allows(value)


def _make_sequence_test(args: tuple[Any, ...]) -> Test:
    tests = [_make_test(one) for one in args if one is not Ellipsis]

    def test(values: Any) -> bool:
        if not isinstance(values, Sequence) or isinstance(values, str | bytes):
            return False
        if len(tests) > 1:
            return len(values) == len(tests) and all(fits(value) for fits, value in zip(tests, values, strict=True))
        return not tests or all(map(tests[0], values))

    return test


def _explain(value: Any, hint: Any, remedy: str = "") -> str:
    """Return the reason of an error: the allowed values, the value, and the value that was probably meant."""
    given = f"the class {value.__name__}" if isinstance(value, type) else f"{value!r:.200}"
    return f"must be {_join(_describe(hint))}, got {given}{remedy or _guess_meant(value, hint)}"


def _strip_limits(hint: Any) -> Any:
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) in (Union, UnionType):
        return Union[tuple(map(_strip_limits, get_args(hint)))]  # noqa: UP007
    return hint


def _guess_meant(value: Any, hint: Any) -> str:
    """Return a suggestion for a class, the name of a class, a single word, or an object that only resembles the class
    needed; "" for other values.
    """
    hint = _strip_limits(hint)
    options = (hint, *map(_strip_limits, get_args(hint)))
    classes = [one for one in options if isinstance(one, type)]
    if isinstance(value, type) and any(issubclass(value, one) for one in classes):
        return f"; pass an instance, {value.__name__}(...)"
    if not isinstance(value, str):
        return _suggest_base(type(value), classes)
    if _make_test(hint)((value,)):
        return f"; write ({value!r},)"
    choices = [one for each in options if get_origin(each) is Literal for one in get_args(each)]
    if choices:
        return nearest(value, [one for one in choices if isinstance(one, str)])
    kinds = {one.__name__.lower(): one.__name__ for one in _subclasses(classes)}
    close = get_close_matches(value.lower(), kinds, n=1)
    return f", did you mean {kinds[close[0]]}(...)?" if close else ""


def _suggest_base(cls: type, classes: Iterable[type]) -> str:
    base = next(filter(isabstract, classes), None)
    if base is None or cls.__module__.split(".")[0] in ("builtins", _PACKAGE):
        return ""
    return f"; make {cls.__name__} a subclass of {base.__module__}.{base.__name__}"


def _subclasses(classes: Iterable[type]) -> Iterable[type]:
    for cls in classes:
        if cls.__module__ != "builtins":
            yield cls
            yield from _subclasses(cls.__subclasses__())


def _describe(hint: Any) -> list[str]:
    """Return the values that a type accepts in words, one string per alternative."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _describe_limited(*args)
    if origin in (Union, UnionType):
        return list(dict.fromkeys(words for one in args for words in _describe(one)))
    if origin is Literal:
        return [repr(one) for one in args]
    holder = origin or hint
    if isinstance(holder, type) and issubclass(holder, Sequence) and holder not in (str, bytes):
        each = [_join(_describe(one)) for one in args if one is not Ellipsis]
        if len(each) < 2:
            return ["a sequence" + "".join(f" (each {one})" for one in each)]
        return [f"({', '.join(each)})"]
    usual = {None: "None", NoneType: "None", int: "an integer", float: "a number", str: "a string", bool: "a bool"}
    return [usual.get(holder) or _add_article(getattr(holder, "__name__", str(holder)))]


def _describe_limited(hint: Any, *marks: Any) -> list[str]:
    limits = "".join(f" {words}" for one in marks if hasattr(one, "allows") and (words := one.describe()))
    *others, last = _describe(hint)
    if last == "None" and others:
        return [f"{one}{limits}" for one in others] + [last]
    return [*others, last + limits]


def _join(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]


def _add_article(word: str) -> str:
    return f"{'an' if word[0].lower() in 'aeio' else 'a'} {word}"
