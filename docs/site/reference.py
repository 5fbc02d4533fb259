"""The reference: pages of the public names of each package, grouped by the folders that define them."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))
from docstrings import Tables, first_sentence

PACKAGES: dict[str, dict[str, tuple[str, ...]]] = {
    "pipelines": {
        "Video": ("modalities.video",),
        "Clips and their decoder": ("modalities.video.clip", "modalities.video.clip_decoder"),
        "Audio": ("modalities.audio",),
        "Audio clips and batches": ("modalities.audio.batch", "modalities.audio.reader"),
        "Audio features and augmentation": (
            "modalities.audio.spectrogram",
            "modalities.audio.rows",
            "augment.sound",
            "shards.media.fbank",
        ),
        "Video with audio": ("modalities.audiovisual",),
        "Images": ("modalities.image", "augment.diffusion"),
        "Images with text": ("modalities.image_text",),
        "Text": ("modalities.text",),
        "Point clouds": ("modalities.points",),
        "Meshes": ("modalities.mesh",),
        "Poses": ("modalities.pose",),
        "Trajectories": ("modalities.trajectory",),
        "Packed rows": ("modalities.packed",),
        "Loaders": ("stream.loader", "modalities.split", "modalities.fields"),
        "Mixtures": ("modalities.mixture", "stream.mix", "stream.weights"),
        "Masks and flow of a batch": ("flow", "masks"),
    },
    "masks": {
        "Mask and token grid": ("core",),
        "Ratios, mask inputs and schemes": ("core.ratio", "core.draw", "core.scheme"),
        "Ratio schedules": ("schedules",),
        "Random tokens, tubes and frames": ("patterns.random", "patterns.frames", "patterns.strips"),
        "Blocks": ("patterns.block", "patterns.multi_block", "patterns.target_blocks"),
        "Masks from motion, energy and scores": (
            "patterns.motion_guided",
            "patterns.energy",
            "patterns.top_scores",
            "patterns.curriculum",
        ),
        "Masks made of masks": ("patterns.dual", "patterns.views", "patterns.padded"),
        "Poses, meshes and point clouds": ("patterns.joints", "patterns.shapes"),
        "Masks for text": ("text",),
        "Words and scores of text": ("text.words", "text.feedback", "text.by_class"),
        "Collate functions and lists of masks": ("collate", "schemes"),
    },
    "flow": {
        "Flow sources": ("source", "choice", "lk", "raft", "ofa"),
        "Flow fields and files": ("base", "codec", "dis", "picture"),
    },
    "augment": {
        "Crops and transforms": (),
    },
    "shards": {
        "Read a split": ("format.manifest", "format.component"),
        "Inspect, verify and read files": ("format.inspect", "format.verify", "media.video_index", "stores.base"),
        "Write shards": ("format.writer", "format.records", "format.sample", "format.dataset", "stores.local_files"),
        "Members of a sample": ("members",),
        "Errors": ("errors",),
    },
    "preprocess": {
        "Encoders": ("encode",),
        "Datasets and jobs": ("datasets", "executors", "foreign", "job"),
    },
    "train": {
        "Recipes and training": ("recipes", "core.recipe", "core.results", "core.weights", "finetune_run"),
        "Training loop and hooks": ("core",),
    },
}
"""The pages of each package, and the folders and files whose public names a page shows."""
ROOT = Path(__file__).parents[2]
_UNDER = {"masks": "pipelines", "flow": "pipelines", "augment": "pipelines"}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages of each package below its page in the navigation."""
    assert config.nav is not None
    for group in config.nav:
        for heading, entries in group.items():
            group[heading] = [_expand(entry) for entry in entries]
    return config


def _expand(entry: object) -> object:
    name = entry.split("/")[1] if isinstance(entry, str) and entry.startswith("reference/") else ""
    if name not in PACKAGES:
        return entry
    return {_path(name): [entry, *({title: _page(name, title)} for title in PACKAGES[name])]}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    for name in PACKAGES:
        for page, text in write_package(name).items():
            files.append(File.generated(config, page, content=text))
    return files


def write_package(name: str) -> dict[str, str]:
    """The text of each page of a package."""
    package = load()[_path(name).removeprefix("maskstream.")]
    assert isinstance(package, griffe.Module)
    shown: dict[str, list[str]] = {title: [] for title in PACKAGES[name]}
    for public in sorted(map(str, package.exports or ())):
        if not public.startswith("__") and not package[public].is_module:
            shown[_find_title(name, package[public].canonical_path)].append(public)
    index = [
        f"# {_path(name)}",
        "",
        f"::: {_path(name)}",
        "    options: {members: false, show_root_heading: false}",
        "",
    ]
    pages = {}
    for title, names in shown.items():
        page = _page(name, title)
        index += ["", f"## [{title}]({Path(page).name})", "", "| name | description |", "| --- | --- |"]
        for public in names:
            docstring = package[public].docstring
            sentence = first_sentence(docstring.value).replace("|", "\\|") if docstring else ""
            index.append(f"| [`{public}`][{_path(name)}.{public}] | {sentence} |")
        directives = [f"::: {_path(name)}.{public}\n" for public in names]
        pages[page] = "\n".join([f"# {title}", "", f"Import from `{_path(name)}`.", "", *directives])
    return {f"reference/{name}/index.md": "\n".join(index), **pages}


@cache
def load() -> griffe.Module:
    """The package with completed docstrings."""
    extensions = griffe.load_extensions("dataclasses", Tables)
    package = griffe.load("maskstream", extensions=extensions, search_paths=[ROOT / "src"], resolve_aliases=True)
    assert isinstance(package, griffe.Module)
    return package


def _find_title(name: str, path: str) -> str:
    """The page of a public name, by the longest prefix of the path that defines it."""
    inside = path.removeprefix(f"{_path(name)}.").removeprefix("maskstream.")
    prefixes = [(prefix, title) for title, paths in PACKAGES[name].items() for prefix in paths or [""]]
    fitting = [
        (len(prefix), title) for prefix, title in prefixes if f"{inside}.".startswith(f"{prefix}." if prefix else "")
    ]
    if not fitting:
        raise ValueError(f"{path} is on no page of the reference; add its folder to PACKAGES[{name!r}]")
    return max(fitting)[1]


def _path(name: str) -> str:
    return ".".join(["maskstream", *([_UNDER[name]] if name in _UNDER else []), name])


def _page(name: str, title: str) -> str:
    return f"reference/{name}/{title.lower().replace(',', '').replace(' ', '-')}.md"
