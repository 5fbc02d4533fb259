"""The Python of every page runs, page by page, on small splits at the places that the pages name. `ADJUSTED` changes
values that small splits cannot serve; of blocks with a word of `NOT_RUN` only imports from this package run.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from maskstream.shards import DatasetInfo, Sample, finish_split, json_member, write_shard

from .conftest import write_moving_texture
from .pipelines.every_modality import LOADERS, described

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
BLOCKS = {str(page.relative_to(ROOT)): BLOCK.findall(page.read_text()) for page in PAGES}
ELSEWHERE = {
    "README.md": "tests/test_readme.py",
    "docs/fields.md": "tests/examples/test_fields.py",
    "docs/flow.md": "tests/test_readme.py",
    "docs/own-parts.md": "tests/cli/test_own_parts.py",
}
"""Pages whose blocks have a test with checks of their results."""
SAMPLES = 256
SPLITS = {
    "sample": "video", "k400": "packed-video", "k400-energy": "packed-video", "mine": "video", "folder": "video",
    "audioset": "audio", "speech": "audio", "noise": "audio", "esc50": "packed-audio", "vggsound": "audiovisual",
    "imagefolder": "packed", "cylinder-flow": "mesh", "shapenet": "points", "sample-pose": "pose",
    "shakespeare": "text", "stories": "text", "vizdoom-walks": "trajectory", "tuxpaint-stamps": "image-text",
}  # fmt: skip
"""The kind of samples in each folder of data/shards that a page names."""
ADJUSTED = {"row_tokens=8192": "row_tokens=256", "row_tokens=2048": "row_tokens=128", "fps=6": "fps=2.5"}
"""Rows that small splits do not fill, and a rate that their videos of 10 frames a second do not have."""
NOT_RUN = {
    "s3://": "an object store",
    "shards/aloha": "the episodes of tests/examples/test_fields.py",
    "nvidia.dali": "a GPU",
    "torchvision": "weights from the network",
    "packed.adapters": "a batch of images, as in tests/pipelines/modalities/packed/",
    "load_hf": "weights from the network",
    "runs/": "a trained run",
    ".parquet": "features of a trained run",
    'train("': "a training run",
    "-targets": "the outputs of a teacher",
    "webdataset": "the tars of tests/examples/test_readers.py",
    "lightning": "a run, as in tests/train/",
    "decord": "another loader",
    "litdata": "another loader",
    "from streaming": "another loader",
}
"""Words of blocks that need more than a small split, and what they need; these blocks are only compiled."""


def write_splits(kind: str, folder: Path) -> None:
    """Write a split of samples that share the media of a few, as `train` and `val` of a folder."""
    raw = folder / "raw"
    raw.mkdir(parents=True)
    samples: list[Sample] = []
    for sample in LOADERS[kind].samples(raw):
        about = {"labels": ["a"], **json.loads(sample.members["json"].data)}
        described_by = json_member(about, {"motion": 0.5, "frozen_s": 0.0})
        samples.append(replace(sample, members={**sample.members, "json": described_by}))
    for name in ("train", "val"):
        split = folder / name
        split.mkdir()
        copies = [
            replace(samples[i % len(samples)], key=f"{name}{i}", source=f"{i}", label=i % 2)
            for i in range(SAMPLES if "text" in kind or "packed" in kind else SAMPLES // 4)
        ]
        info: DatasetInfo = replace(described(kind, split), split=name)
        finish_split(split, info, [write_shard(split / "t-000000.tar", copies)], [])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder in which a page runs; splits are created when a page first names them."""
    root = tmp_path_factory.mktemp("pages")
    kinds = root / "kinds"
    write_moving_texture(root / "video.mp4", seed=0, frames=80)

    def prepare(code: str) -> Path:
        for name in sorted(set(re.findall(r"data/shards/([\w-]+)/", code))):
            link = root / "data/shards" / name
            if name not in SPLITS or link.exists():
                continue
            if not (kinds / SPLITS[name]).exists():
                write_splits(SPLITS[name], kinds / SPLITS[name])
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(kinds / SPLITS[name])
        return root

    return prepare


SLOW = ("docs/video.md",)  # a forward pass of VideoMAE-B


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.slow] if page in SLOW else [])
        for page, blocks in BLOCKS.items()
        if blocks and page not in ELSEWHERE
    ],
)
def test_the_python_of_a_page_runs(page: str, place: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks of a page in turn, with the names of the blocks before."""
    monkeypatch.chdir(place("\n".join(BLOCKS[page])))
    names: dict[str, Any] = {}
    for number, code in enumerate(BLOCKS[page]):
        for shown, small in ADJUSTED.items():
            code = code.replace(shown, small)
        compiled = compile(code, f"{page}, block {number + 1}", "exec")
        if not any(word in code for word in NOT_RUN):
            exec(compiled, names)
            continue
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("maskstream"):
                exec(ast.unparse(node), {})
