"""docs/masks.md: every call works, has the name and the count that its row says, and no name is left out."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from maskstream.pages.gallery import SCHEMES
from maskstream.pipelines import masks

TEXT = (Path(__file__).parents[3] / "docs" / "masks.md").read_text()
PAPERS = (
    "VideoMAE", "MGMAE", "VideoMAE V2", "MAE-ST", "Audio-MAE", "AVSiam", "DiffMAViL", "CropMAE", "MaskViT",
    "FastDiT-3D", "MeshMask", "MPM", "MAGE", "DMAE", "LMD", "Learning by Reconstruction", "Masked Spiking Transformer",
    "OneRef", "Channel-Attention Dense U-Net", "MosaicBERT", "RetroMAE", "Learning Better Masking", "PMLM",
    "Recursive ROAR", "M3AE", "MedThink", "ImagineNav", "GPT-4V",
)  # fmt: skip


def rows():
    """The cells of each row of the two tables of schemes."""
    cells = [[c.strip() for c in line.split("|")[1:-1]] for line in TEXT.splitlines() if line.startswith("|")]
    return [c for c in cells if len(c) == 9 and c[1].startswith("`")]


def build(call):
    return eval(call.strip("`"), {"masks": masks})


CALLS = [row for row in rows() if row[1].startswith("`masks.")]


def test_all_28_papers_have_a_row():
    first = [row[0].strip("*") for row in rows()]
    for paper in PAPERS:
        assert any(re.match(rf"{re.escape(paper)}(\W|$)", cell) for cell in first), paper


@pytest.mark.parametrize("row", CALLS, ids=lambda row: row[0])
def test_a_call_builds_what_its_name_and_the_gallery_have(row):
    built = build(row[1])
    name = row[2].strip("`")
    if name:
        assert built == masks.MASKS[name]()
    shown = [s.mask() for s in SCHEMES] + [make() for make in masks.MASKS.values()]
    assert built in shown


def test_every_name_is_documented():
    assert {row[2].strip("`") for row in CALLS} - {""} == set(masks.MASKS)


@pytest.mark.parametrize("row", [row for row in CALLS if row[7].isdecimal()], ids=lambda row: row[0])
def test_so_many_tokens_stay_visible(row):
    axes, shape = row[6].split(": ")
    grid = masks.TokenGrid(
        axes=tuple(axes.split()), shape=tuple(map(int, shape.split())), patch=(2, 16, 16)[-len(axes.split()) :]
    )
    cues = masks.Cues(flow=np.zeros((15, 28, 28, 2), np.float32))
    place = masks.Draw(rng=np.random.default_rng(0)).place
    batch = build(row[1]).draw(grid, [masks.Draw.of(0, 0, f"s{i}", 0, place, cues) for i in range(3)])
    assert (~batch.masked).sum(1).tolist() == [int(row[7])] * 3


def test_the_laws_of_the_table_are_ratios():
    laws = re.findall(r"^\| (?:a number, )?`(masks\.\w+\([^`]*\))` \|", TEXT.split("## Laws")[1], re.MULTILINE)
    assert {type(build(law)).__name__ for law in laws} == {
        name for name in masks.__all__ if isinstance(thing := getattr(masks, name), type)
        and issubclass(thing, masks.Law) and thing not in (masks.Law, masks.RatioLaw)
    }  # fmt: skip
    for law in laws:
        assert masks.Random(ratio=build(law)) is not None


def test_the_mask_of_your_own():
    code = re.search(r"```python\n(@dataclass.*?)```", TEXT, re.DOTALL)[1]
    names = {"dataclass": dataclass, "masks": masks, "np": np, "ClassVar": ClassVar}
    exec(code, names)
    batch = names["LeftHalf"]().draw(masks.TokenGrid(), [np.random.default_rng(0)])
    assert batch.visible.shape == (1, 784)
