"""Commands from functions: each parameter or config field with a `Flag` becomes an option (see shards/flag.py).

A parameter whose type is a dataclass becomes an option for each of its fields that has a flag, and receives the
dataclass. One that is not keyword-only is an argument of the command line.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, ForwardRef, Union, get_args, get_origin, get_type_hints

import typer

from maskstream.shards.flag import PANELS, Flag, read_flag
from maskstream.shards.stores.url import get_local_path, repair_spoilt_url


@dataclass(frozen=True, slots=True)
class _Setting:
    """A setting of a command: of its parameter `owner`, or of the field `name` of the dataclass that it takes."""

    name: str
    owner: str
    kind: Any
    flag: Flag
    default: Any
    is_argument: bool

    def read(self, value: Any) -> Any:
        """Convert the value that typer read; raise ValueError for a URL in place of a path, and for an integer beyond
        int64.
        """
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, int) and not -(1 << 63) <= item < 1 << 63:
                raise ValueError(f"--{self.name} {item} is out of range; pass a whole number from -2**63 to 2**63 - 1")
            if isinstance(item, Path) and (url := repair_spoilt_url(item)):
                get_local_path(url, self.name)
        if value is None and self.default is not Parameter.empty:
            return self.default
        if self.flag.parse is not None and isinstance(value, str):
            return self.flag.parse(value)
        if get_origin(self.kind) is Mapping:
            return dict(self._read_pair(text) for text in value)
        return tuple(value) if isinstance(value, list) else value

    def _read_pair(self, text: str) -> tuple[str, str]:
        name, equals, value = text.partition("=")
        if not equals:
            raise typer.BadParameter(f"{text!r} is not {self.flag.metavar}", param_hint=f"--{self.name}")
        return name, value

    def to_parameter(self) -> Parameter:
        """Return the parameter for typer."""
        flag, default = self.flag, self.default
        if isinstance(default, tuple | Mapping):
            default = ",".join(map(str, default)) or None
        shown = default not in (None, "", Parameter.empty)
        kind = str | None if flag.parse is not None else _find_kind(self.kind)
        about: dict[str, Any] = {"help": flag.help, "metavar": flag.metavar, "min": flag.min, "max": flag.max}
        about |= {"hidden": flag.hidden, "show_default": shown, "rich_help_panel": flag.panel}
        info: Any
        if self.is_argument:
            info = typer.Argument(**about | {"rich_help_panel": None})
        else:
            names = flag.name.split() or [f"--{self.name.rstrip('_').replace('_', '-')}"]
            off = f"/--no-{names[0].removeprefix('--')}" if default is True else ""
            info = typer.Option(names[0] + off, *names[1:], **about)
        return Parameter(self.name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info])


def _find_kind(annotation: Any) -> Any:
    """Return the type that typer reads for an annotation: the first of a union, and text for a string, which names a
    class that commands do not import.
    """
    if isinstance(annotation, ForwardRef):
        annotation = list[str] | None if annotation.__forward_arg__.startswith("Sequence") else str
    elif get_origin(annotation) in (Sequence, Mapping):
        annotation = list[get_args(annotation)[0]] | None  # type: ignore[misc]
    elif get_origin(annotation) in (Union, UnionType):
        first, *others = get_args(annotation)
        annotation = first | None if NoneType in others else first
    return annotation


def with_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command with an option for each setting, for typer."""
    hints = get_type_hints(command, include_extras=True)
    settings: list[_Setting] = []
    parameters: list[Parameter] = []
    for parameter in signature(command).parameters.values():
        found = list(_settings(parameter, hints[parameter.name]))
        settings += found
        if not found:
            parameters.append(parameter.replace(kind=Parameter.KEYWORD_ONLY, annotation=hints[parameter.name]))
    settings.sort(key=lambda setting: 0 if setting.is_argument else PANELS.index(setting.flag.panel))
    parameters += [setting.to_parameter() for setting in settings]

    @wraps(command)
    def called(**values: Any) -> None:
        given: dict[str, dict[str, Any]] = {}
        for setting in settings:
            given.setdefault(setting.owner, {})[setting.name] = setting.read(values.pop(setting.name))
        for owner, own in given.items():
            values[owner] = hints[owner](**own) if is_dataclass(hints[owner]) else own[owner]
        command(**values)

    called.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return called


def _settings(parameter: Parameter, hint: Any) -> Iterator[_Setting]:
    """Yield the settings of a parameter; none if it has no flag, such as typer's context."""
    if is_dataclass(hint):
        for field in fields(hint):
            if declared := read_flag(field.type):
                yield _Setting(field.name, parameter.name, *declared, _default(field), is_argument=False)
    elif declared := read_flag(hint):
        is_argument = parameter.kind is not Parameter.KEYWORD_ONLY
        yield _Setting(parameter.name, parameter.name, *declared, parameter.default, is_argument)


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return Parameter.empty if field.default is MISSING else field.default
