"""`maskstream datasets`, `maskstream recipes` and `maskstream masks`: what there is, by name."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from ..shards.named import nearest
from .terminal import Json, console, say, show

Name = Annotated[str | None, typer.Argument(help="The one to describe whole [default: all]", show_default=False)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """What has a name: its group (a modality or a paper), a sentence about it, and all that there is to say."""

    name: str
    group: str
    about: str
    whole: str


def datasets(name: Name = None, as_json: Json = False) -> None:
    """List the datasets of `maskstream shards`: what each expects below ROOT, or what it downloads."""
    from ..preprocess.datasets import DATASETS

    _list([_dataset(one, make) for one, make in DATASETS.items()], name, "dataset", as_json)


def recipes(name: Name = None, as_json: Json = False) -> None:
    """List the recipes of `maskstream train`: the paper, and the size."""
    from ..train.recipes import RECIPES

    entries = []
    for one, make in RECIPES.items():
        whole = inspect.getdoc(make) or ""
        entries.append(Entry(name=one, group=make().data.modality, about=_first(whole), whole=whole))
    _list(entries, name, "recipe", as_json)


def masks(name: Name = None, as_json: Json = False) -> None:
    """List the masks by name: the paper, what is hidden, and the call in Python (docs/masks.md)."""
    from ..pipelines.masks import SCHEMES

    entries = [
        Entry(
            name=scheme.name,
            group=scheme.source,
            about=scheme.note,
            whole=f"{scheme.source}\n\n{scheme.note}\n\nIn Python: masks.{scheme.call}",
        )
        for scheme in sorted(SCHEMES, key=lambda scheme: scheme.name or "")
        if scheme.name
    ]
    _list(entries, name, "mask", as_json)


def _dataset(name: str, make: Callable[..., Any]) -> Entry:
    """The entry of a dataset: its file describes the data, its function the splits."""
    function = make.func if isinstance(make, partial) else make
    described = inspect.cleandoc(sys.modules[function.__module__].__doc__ or "")
    more = inspect.getdoc(function) or ""
    options = ", ".join(f"{key}={value!r}" for key, value in make.keywords.items()) if isinstance(make, partial) else ""
    about = _first(described) + (f" ({options})" if options else "")
    group = function.__module__.split(".datasets.")[-1].split(".")[0]
    return Entry(
        name=name,
        group={"folder": "video", "parquet_media": name.removeprefix("parquet-")}.get(group, group),
        about=about,
        whole=f"{described}\n\n{more}{f' Here {options}.' if options else ''}\n\n"
        f"maskstream shards {name} --root ROOT --out FOLDER",
    )


def _first(text: str) -> str:
    """The first paragraph of a docstring, as one line."""
    return " ".join(text.split("\n\n")[0].split())


def _list(entries: Sequence[Entry], name: str | None, what: str, as_json: bool) -> None:
    """Prints one entry whole, or all in short, by group and name."""
    entries = sorted(entries, key=lambda one: (one.group, one.name))
    if name is not None:
        entry = next((one for one in entries if one.name == name), None)
        if entry is None:
            close = nearest(name, [one.name for one in entries])
            raise ValueError(f"{name!r} is no {what}{close}; `maskstream {what}s` lists all")
        if as_json:
            show(asdict(entry), as_json)
        else:
            for line in entry.whole.splitlines():
                say(line)
    elif as_json:
        show({f"{what}s": [_short(one) for one in entries]}, as_json)
    else:
        console.print(_table(entries))


def _short(entry: Entry) -> dict[str, str]:
    return {"name": entry.name, "group": entry.group, "about": entry.about}


def _table(entries: Iterable[Entry]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(style="dim")
    table.add_column()
    for one in entries:
        table.add_row(escape(one.name), escape(one.group), escape(one.about))
    return table
