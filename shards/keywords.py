"""Functions whose keyword arguments are the fields of a config, so that no field is declared twice."""

import re
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import wraps
from inspect import cleandoc, signature
from typing import (
    Annotated,
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    Protocol,
    TypeVar,
    cast,
    get_args,
    get_origin,
    overload,
)

from .flag import read_flag
from .named import nearest

A = TypeVar("A")
B = TypeVar("B")
D = TypeVar("D")
E = TypeVar("E")
A_contra = TypeVar("A_contra", contravariant=True)
B_contra = TypeVar("B_contra", contravariant=True)
ConfigT = TypeVar("ConfigT")
ConfigT_contra = TypeVar("ConfigT_contra", contravariant=True)
ResultT = TypeVar("ResultT")
ResultT_co = TypeVar("ResultT_co", covariant=True)
FieldsP = ParamSpec("FieldsP")
WithConfig = ParamSpec("WithConfig")
WithFields = ParamSpec("WithFields")


class TakesFields(Protocol[WithConfig, WithFields, ResultT_co]):
    """A function whose last argument is a config, or keyword arguments that are the config's fields."""

    @overload
    def __call__(self, *args: WithConfig.args, **kwargs: WithConfig.kwargs) -> ResultT_co: ...
    @overload
    def __call__(self, *args: WithFields.args, **kwargs: WithFields.kwargs) -> ResultT_co: ...


class MayLeaveOut(Protocol[A_contra, B_contra, ConfigT_contra, FieldsP, ResultT_co]):
    """The same for a function whose second argument is optional."""

    @overload
    def __call__(self, first: A_contra, second: B_contra | None, config: ConfigT_contra, /) -> ResultT_co: ...
    @overload
    def __call__(
        self, first: A_contra, second: B_contra | None = None, /, *args: FieldsP.args, **kwargs: FieldsP.kwargs
    ) -> ResultT_co: ...


class takes_fields(Generic[FieldsP, ConfigT]):  # noqa: N801
    """Decorate a function so that its last parameter, a config, can be passed as keyword arguments.

    @takes_fields(JobOptions)
    def make_shards(dataset: str, root: Path, out: Path, options: JobOptions) -> JobReport: ...

    make_shards("k400", root, out, max_rejects=0.1)
    make_shards("k400", root, out, JobOptions(max_rejects=0.1))
    """

    def __init__(self, config: Callable[FieldsP, ConfigT]) -> None:
        self.config: Any = config

    @overload
    def __call__(
        self, function: Callable[[A, ConfigT], ResultT]
    ) -> TakesFields[[A, ConfigT], Concatenate[A, FieldsP], ResultT]: ...
    @overload
    def __call__(
        self, function: Callable[[A, B | None, ConfigT], ResultT]
    ) -> MayLeaveOut[A, B, ConfigT, FieldsP, ResultT]: ...
    @overload
    def __call__(
        self, function: Callable[[A, B, D, ConfigT], ResultT]
    ) -> TakesFields[[A, B, D, ConfigT], Concatenate[A, B, D, FieldsP], ResultT]: ...
    @overload
    def __call__(
        self, function: Callable[[A, B, D, E, ConfigT], ResultT]
    ) -> TakesFields[[A, B, D, E, ConfigT], Concatenate[A, B, D, E, FieldsP], ResultT]: ...
    def __call__(self, function: Callable[..., Any]) -> Any:
        *leading, last = signature(function).parameters.values()
        names = {parameter.name for parameter in leading}
        settings = signature(self.config).parameters

        @wraps(function)
        def called(*args: Any, **given: Any) -> Any:
            first, rest = args[: len(leading)], args[len(leading) :]
            chosen = {name: given.pop(name) for name in [*given] if name not in names}
            if rest and isinstance(rest[0], self.config):
                chosen[last.name], rest = rest[0], rest[1:]
            config = chosen.pop(last.name, None)
            if unknown := [name for name in chosen if name not in settings]:
                raise TypeError(self._explain_unknown(unknown[0], function.__name__, [*names, *settings]))
            config = self.config(*rest, **chosen) if config is None else replace(config, **chosen)
            return function(*first, **given, **{last.name: config})

        bare = [one.replace(annotation=_strip_notes(one.annotation)) for one in settings.values()]
        shown = sorted([*leading, *bare], key=lambda parameter: parameter.kind)
        called.__signature__ = signature(function).replace(parameters=shown)  # type: ignore[attr-defined]
        if function.__doc__:
            entry = re.compile(rf"^    (?:\*\*)?{last.name}: .*\n(?: {{5,}}.*\n)*", re.MULTILINE)
            called.__doc__ = entry.sub(lambda _: describe_fields(self.config), cleandoc(function.__doc__) + "\n")
        return called

    @overload
    def in_method(
        self, function: Callable[[A, B, D, E, ConfigT], ResultT]
    ) -> Callable[Concatenate[A, B, D, E, FieldsP], ResultT]: ...
    @overload
    def in_method(
        self, function: Callable[[A, B, ConfigT], ResultT]
    ) -> Callable[Concatenate[A, B, FieldsP], ResultT]: ...
    @overload
    def in_method(self, function: Callable[[A, ConfigT], ResultT]) -> Callable[Concatenate[A, FieldsP], ResultT]: ...
    def in_method(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same for a method, whose type only has the keyword arguments."""
        called: Callable[..., Any] = self(function)
        return called

    def _explain_unknown(self, name: str, function: str, allowed: Sequence[str]) -> str:
        hint = getattr(self.config, "ELSEWHERE", {}).get(name) or nearest(name, [*allowed])
        return f"{function}() has no parameter {name!r}{hint}; allowed: {', '.join(allowed)}"


def _strip_notes(annotation: object) -> object:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def describe_fields(config: type) -> str:
    """Format the fields of a dataclass as entries of the section "Args:" of a docstring.

    The text of a field is its entry under "Attributes:" in the docstring of its class, or the help of its command-line
    option.
    """
    entries: dict[str, str] = {}
    for cls in reversed(config.__mro__):
        _, _, section = cleandoc(vars(cls).get("__doc__") or "").partition("\nAttributes:\n")
        written = dict(re.findall(r"^    (\w+): ((?:.*\n?)(?:^ {8}.*\n?)*)", section, re.MULTILINE))
        for name, annotation in vars(cls).get("__annotations__", {}).items():
            found = read_flag(annotation)
            if text := written.get(name) or (found[1].help if found else ""):
                entries[name] = f"    {name}: {text.rstrip()}\n"
    return "".join(entries.get(f.name, "") for f in fields(config) if f.init)


def narrow(config: type[ResultT], wider: object, **changed: object) -> ResultT:
    """Build a config from the fields that another config shares with it.

    Args:
        config: Class of the config, a dataclass.
        wider: Config with fields of the same names, and possibly others.
        **changed: Fields with other values.
    """
    own = {f.name: getattr(wider, f.name) for f in fields(cast(Any, config)) if f.init and hasattr(wider, f.name)}
    return config(**(own | changed))
