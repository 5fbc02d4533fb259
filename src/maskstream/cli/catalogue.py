"""`maskstream datasets`, `recipes` and `masks`, which list them by name, and `maskstream doctor`, which lists the
environment.
"""

from __future__ import annotations

import inspect
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from ctypes.util import find_library
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, requires, version
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from maskstream.shards.flag import DataFlag
from maskstream.shards.named import nearest

from .terminal import Json, console, say, show

Name = Annotated[str | None, DataFlag("Name to describe in full [default: list all].")]
Search = Annotated[
    str | None, DataFlag("List only entries whose description contains all of these words.", metavar="WORDS")
]
if TYPE_CHECKING:
    from maskstream.train.core.model import Model
    from maskstream.train.core.recipe import Recipe

SAMPLES = "samples of "
"""First words of the groups of sample sets."""
_WIDTH = 24
"""Width of the column of names, in characters."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogueEntry:
    """An entry of a catalogue.

    Attributes:
        name: Name of the entry.
        group: Modality or paper.
        about: Description in one sentence.
        whole: Full description.
        more: Further facts by name.
    """

    name: str
    group: str
    about: str
    whole: str
    more: Mapping[str, Any] = field(default_factory=dict)

    def is_mentioning(self, words: str) -> bool:
        """Return whether the entry contains all of the words, ignoring case."""
        text = f"{self.name}\n{self.group}\n{self.whole}\n{self.more}".lower()
        return all(word in text for word in words.lower().split())


def datasets(name: Name = None, *, search: Search = None, as_json: Json = False) -> None:
    """List the datasets of `maskstream shards`, and the files that each expects below ROOT or downloads."""
    from maskstream.preprocess.datasets import BY_MODALITY, FORMER, named_dataset, sample_sets

    entries = [
        _describe_dataset(one, modality, make) for modality, some in BY_MODALITY.items() for one, make in some.items()
    ]
    entries += [
        _describe_dataset(one, f"{SAMPLES}{modality}, downloaded or generated", named_dataset(one))
        for modality, some in sample_sets().items()
        for one in some
    ]
    if name is not None and name in FORMER:
        now, setting = FORMER[name]
        raise ValueError(f"{name} is now {now} with --set {setting}; see `maskstream datasets {now}`")
    _list(entries, name, "dataset", search, as_json)


def recipes(name: Name = None, *, search: Search = None, as_json: Json = False) -> None:
    """List the recipes of `maskstream train` by paper: their size, their data, and the results of the tiny ones.

    For one recipe it prints the config, and the folder of its paper.
    """
    from maskstream.train.recipes import RECIPES

    chosen = {name: RECIPES[name]} if name in RECIPES else RECIPES
    _list([_recipe(one, make, whole=one == name) for one, make in chosen.items()], name, "recipe", search, as_json)


def masks(name: Name = None, *, search: Search = None, as_json: Json = False) -> None:
    """List the masks by name: the paper, the hidden tokens, and the call in Python (`maskstream docs masks`)."""
    from maskstream.pipelines.masks import SCHEMES

    entries = [
        CatalogueEntry(
            name=scheme.name,
            group=scheme.source,
            about=scheme.note,
            whole=f"{scheme.source}\n\n{scheme.note}\n\nIn Python: {scheme.call}",
        )
        for scheme in SCHEMES
        if scheme.name
    ]
    _list(entries, name, "mask", search, as_json)


def _describe_dataset(name: str, group: str, make: Callable[..., Any]) -> CatalogueEntry:
    """Return the entry of a dataset.

    The docstring of its file describes the data, and the docstring of its function the splits. If the function's
    docstring has several paragraphs, its first one describes the data instead, and all of it is used if the file's
    docstring is one sentence.
    """
    from maskstream.preprocess.datasets import own_settings

    function = make.func if isinstance(make, partial) else make
    described, own = inspect.cleandoc(sys.modules[function.__module__].__doc__ or ""), inspect.getdoc(function) or ""
    settings = "".join(f" (--set {key}={_find_other_value(default)})" for key, default in own_settings(make).items())
    whole = "\n\n".join(one for one in (described, own) if "\n\n" in one or "\n\n" not in own)
    whole = f"{whole}\n\nmaskstream shards {name} --root ROOT --out FOLDER{settings}"
    return CatalogueEntry(
        name=name, group=group, about=_take_first_paragraph(own if "\n\n" in own else described) + settings, whole=whole
    )


def _recipe(name: str, make: Callable[[], Recipe[Any]], *, whole: bool) -> CatalogueEntry:
    """Return the entry of a recipe, grouped by modality and paper; with `whole`, including its config."""
    recipe, said = make(), inspect.getdoc(make) or ""
    file = Path(sys.modules[make.__module__].__file__ or "")
    folder, paper = file.parent, file.parent.name
    model, modality = _model(name), recipe.data.modality
    count = sum(one.numel() for one in model.parameters() if one.requires_grad)
    more: dict[str, Any] = {
        "paper": paper,
        "file": f"train/papers/{paper}/{file.name}",
        "parameters": count,
        "data": modality,
    }
    about = f"{count / 1e6:.1f} M. {_take_first_paragraph(said)}"
    if found := _read_reached().get(name):
        more["reaches"] = found
        about += (
            f" It reaches {found['held_out']:g} on {found['data']} ({found['figure']}; {found['baseline']}: "
            f"{found['of_baseline']:g})."
        )
    config = f"{_export(model)}\n\n{json.dumps(recipe.to_dict(defaults=True), indent=2)}" if whole else ""
    group = f"{paper} ({modality}, {more['file']})"
    return CatalogueEntry(
        name=name, group=group, about=about, whole=f"{said}\n\n{folder}\n\n{config}".rstrip(), more=more
    )


@cache
def _model(name: str) -> Model[Any]:
    """Return the model of a recipe, without allocating its weights."""
    import torch

    from maskstream.train.recipes import named_recipe

    with torch.device("meta"):
        return named_recipe(name).build()


def _export(model: Model[Any]) -> str:
    """Describe the exports that `maskstream export` can write for a run of a model."""
    from maskstream.train.export.architecture import find_counterpart, has_graph, list_targets

    try:
        said = f"`maskstream export` writes it for transformers, as {find_counterpart(model).name}."
    except ValueError as error:
        said = f"`maskstream export --to hf` refuses it: {error}."
    if (timm := list_targets(model).get("timm")) is not None:
        said += f" `--to timm` writes its encoder, as {timm}."
    return f"{said} `--to torch` and `--to onnx` write its features as a graph." if has_graph(model) else said


@cache
def _read_reached() -> dict[str, dict[str, Any]]:
    """Return the results of the tiny recipes on the split `val` of their sample sets, as in docs/recipes.md."""
    from maskstream import train

    found: dict[str, dict[str, Any]] = json.loads((Path(train.__path__[0]) / "reached.json").read_bytes())
    return found


def _find_other_value(default: int | str) -> str:
    """Return an example value of a setting that differs from its default."""
    if isinstance(default, str):
        return "';'"
    return str(not default).lower() if isinstance(default, bool) else str(default + 1)


def _take_first_paragraph(text: str) -> str:
    """Return the first paragraph of a docstring, as one line."""
    return " ".join(text.split("\n\n")[0].split())


def _list(entries: Sequence[CatalogueEntry], name: str | None, what: str, search: str | None, as_json: bool) -> None:
    """Print one full entry, or all entries that match `search`, one line each, by group and name."""
    if name is not None:
        entry = next((one for one in entries if one.name == name), None)
        if entry is None:
            close = nearest(name, [one.name for one in entries])
            raise ValueError(f"{name!r} is not a {what}{close}; `maskstream {what}s` lists all")
        if as_json:
            show(asdict(entry), as_json)
        else:
            for line in entry.whole.splitlines():
                say(line)
        return
    found = [one for one in entries if one.is_mentioning(search or "")]
    if not found:
        raise ValueError(f"no {what} mentions {search!r}; `maskstream {what}s` lists all {len(entries)}")
    found.sort(key=lambda one: (one.group.startswith(SAMPLES), "video" not in one.group, one.group, one.name))
    if as_json:
        show({f"{what}s": [_describe_entry(one) for one in found]}, as_json)
    else:
        for line in _lines(found):
            say(line)


def _describe_entry(entry: CatalogueEntry) -> dict[str, Any]:
    return {"name": entry.name, "group": entry.group, "about": entry.about, **entry.more}


def _lines(entries: Sequence[CatalogueEntry]) -> Iterator[str]:
    """Yield a line per group and one per description, with all names that it applies to, cut at the edge of a
    terminal.
    """
    most = console.width if console.is_terminal else None
    for group, some in groupby(entries, key=lambda one: one.group):
        yield group
        names: dict[str, list[str]] = {}
        for one in some:
            names.setdefault(one.about, []).append(one.name)
        for about, same in names.items():
            line = f"  {', '.join(same):<{_WIDTH}}  {about}"
            yield line if most is None or len(line) <= most else f"{line[: most - 1]}…"


PACKAGES = ("torch", "numpy", "av", "opencv-python-headless", "numba", "pyarrow", "obstore", "tokenizers")
DALI = ("nvidia-dali-cuda130", "nvidia-dali-cuda120")
DRAWN = {"libEGL.so": ("EGL", "libegl1 libgl1-mesa-dri"), "libGLU.so": ("GLU", "libglu1-mesa")}
"""The libraries that draw without a screen: their names for the linker, and the Debian packages that have them."""
NEED_LIBRARIES = {"metaworld": ("libEGL.so",), "walks": ("libEGL.so", "libGLU.so")}
"""Libraries that extras need in addition to Python packages."""
PROGRAMS = {"apt-get": "datasets of Debian's packages", "npm": "datasets of npm's", "sbatch": "--executor slurm"}
"""Programs, and the parts that use them."""
_EXTRA = re.compile(r"([\w.-]+)(?:\[[^]]*\])?([^;]*);.*\bextra == ['\"]([\w.-]+)['\"]")


def doctor(*, as_json: Json = False) -> None:
    """Print the environment for a bug report: versions, devices, missing packages of each extra, and locations of
    caches.
    """
    show(facts(), as_json)


def facts() -> dict[str, str]:
    """Return facts about the environment by name. They contain no names of users or hosts, except in folders, and no
    credentials.
    """
    import av

    from maskstream.shards.format.index_cache import cache_folder

    ffmpeg = ", ".join(f"{name} {'.'.join(map(str, number))}" for name, number in sorted(av.library_versions.items()))
    dali = [f"{name} {found}" for name in DALI if (found := _version(name))]
    return {
        "maskstream": _version("maskstream") or "not installed",
        "Python": f"{platform.python_version()} ({platform.python_implementation()}), {platform.platform()}",
        "CPU": f"{platform.machine()}, {len(os.sched_getaffinity(0))} of {os.cpu_count()} cores",
        **{name: _version(name) or "not installed" for name in PACKAGES},
        "FFmpeg in av": ffmpeg,
        "DALI": ", ".join(dali) or "not installed",
        **_list_devices(),
        **{f"extra {name}": words for name, words in _list_extras()},
        **{f"program {name}": shutil.which(name) or f"not here; it is for {use}" for name, use in PROGRAMS.items()},
        "cache of indexes": _place(cache_folder()),
    }


def _list_devices() -> dict[str, str]:
    """Return the CUDA devices that torch sees, by number, and the CUDA version that torch was built with."""
    import torch

    built = torch.version.cuda
    if not torch.cuda.is_available():
        return {"CUDA": "no device" + (f"; torch is built for CUDA {built}" if built else "; torch is built without")}
    found = {}
    for number in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(number)
        found[f"cuda:{number}"] = f"{card.name}, {card.total_memory / 2**30:.0f} GiB, {card.major}.{card.minor}"
    return {"CUDA": f"torch is built for CUDA {built}", **found}


def _list_extras() -> Iterator[tuple[str, str]]:
    """Yield each extra of the package, and its missing packages with the command that installs them."""
    needed: dict[str, list[tuple[str, str]]] = {}
    for line in requires("maskstream") or ():
        if found := _EXTRA.match(line):
            package, bounds, extra = found.groups()
            needed.setdefault(extra, []).append((package, bounds.strip(" ()")))
    for extra, packages in sorted(needed.items()):
        lacking = [package for package, bounds in packages if not _is_installed(package, bounds)]
        libraries = [name for name in NEED_LIBRARIES.get(extra, ()) if find_library(DRAWN[name][0]) is None]
        words = [f"lacks {', '.join(lacking)}: pip install 'maskstream[{extra}]'"] if lacking else []
        words += [f"lacks {name}: apt-get install {DRAWN[name][1]}" for name in libraries]
        yield extra, "; ".join(words) or "there"


def _is_installed(package: str, bounds: str) -> bool:
    """Return whether a package is installed, in the version of `bounds` if they pin one."""
    found, (_, pinned, wanted) = _version(package), bounds.partition("==")
    return bool(found) and (not pinned or found == wanted or (wanted.endswith(".*") and found.startswith(wanted[:-1])))


def _version(package: str) -> str:
    """Return the installed version of a package; "" if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _place(path: Path) -> str:
    """Return a path, and whether it exists."""
    return f"{path}{'' if path.exists() else ' (not created yet)'}"
