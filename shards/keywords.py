"""Functions whose keyword arguments are the fields of a config, so that none is declared twice."""

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from inspect import signature
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

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
    """A function whose last argument is a config, or keyword arguments that are its fields."""

    @overload
    def __call__(self, *args: WithConfig.args, **kwargs: WithConfig.kwargs) -> ResultT_co: ...
    @overload
    def __call__(self, *args: WithFields.args, **kwargs: WithFields.kwargs) -> ResultT_co: ...


class MayLeaveOut(Protocol[A_contra, B_contra, ConfigT_contra, FieldsP, ResultT_co]):
    """The same for a function whose second argument may be left out."""

    @overload
    def __call__(self, first: A_contra, second: B_contra | None, config: ConfigT_contra, /) -> ResultT_co: ...
    @overload
    def __call__(
        self, first: A_contra, second: B_contra | None = None, /, *args: FieldsP.args, **kwargs: FieldsP.kwargs
    ) -> ResultT_co: ...


class takes_fields(Generic[FieldsP, ConfigT]):  # noqa: N801
    """Decorator: the last parameter of the function, a config, may be given as keyword arguments.

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

        @wraps(function)
        def called(*args: Any, **given: Any) -> Any:
            chosen = {name: given.pop(name) for name in [*given] if name not in names}
            config = chosen.pop(last.name, None) if len(args) <= len(leading) else args[-1]
            config = self.config(**chosen) if config is None else replace(config, **chosen)
            return function(*args[: len(leading)], **given, **{last.name: config})

        settings = signature(self.config).parameters.values()
        called.__signature__ = signature(function).replace(parameters=[*leading, *settings])  # type: ignore[attr-defined]
        return called

    def take_init_fields(
        self, function: Callable[[A, B, D, E, ConfigT], None]
    ) -> Callable[Concatenate[A, B, D, E, FieldsP], None]:
        """The same for an `__init__`, which takes keyword arguments only."""
        called: Callable[Concatenate[A, B, D, E, FieldsP], None] = self(function)
        return called
