"""docs/masks.md: its tables are made of schemes and schedules, whose calls build them and whose counts are drawn."""

import re
from collections import Counter
from pathlib import Path
from runpy import run_module

import numpy as np
import pytest

from maskstream.pipelines import masks
from maskstream.pipelines.masks import Draw
from maskstream.pipelines.masks.core.scheme import made_up_cues
from maskstream.pipelines.masks.table import format_schedule_table, marks, with_tables
from maskstream.pipelines.stream.rng import Place

TEXT = (Path(__file__).parents[3] / "docs" / "masks.md").read_text()
PAPERS = (
    "VideoMAE", "MGMAE", "VideoMAE V2", "MAE-ST", "Audio-MAE", "AVSiam", "DiffMAViL", "CropMAE", "MaskViT",
    "FastDiT-3D", "MeshMask", "MPM", "MAGE", "DMAE", "LMD", "Learning by Reconstruction", "Masked Spiking Transformer",
    "OneRef", "Channel-Attention Dense U-Net", "MosaicBERT", "RetroMAE", "Learning Better Masking", "PMLM",
    "Recursive ROAR", "M3AE", "MedThink", "ImagineNav", "GPT-4V",
)  # fmt: skip


def build(call):
    return eval(call.strip("`"), {"masks": masks})


schemes = pytest.mark.parametrize("scheme", masks.SCHEMES, ids=lambda scheme: scheme.call)


def test_the_tables_are_made_of_the_schemes_and_schedules():
    assert with_tables(TEXT) == TEXT, "run: python -m maskstream.pipelines.masks.table docs/masks.md"
    for name in ("schemes", "schedules"):
        with pytest.raises(ValueError, match=f"table of {name} .* at least one of them is missing"):
            with_tables(TEXT.replace(marks(name)[1], ""))


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")  # the command's module, which is run in this process
def test_the_tables_are_written_by_its_command(tmp_path, monkeypatch):
    page = tmp_path / "masks.md"
    page.write_text(
        TEXT.replace("| VideoMAE, sec. 3.3 |", "| Another |").replace("| MAGE, sec. 3.1 |\n", "| Another |\n")
    )
    monkeypatch.setattr("sys.argv", ["table", str(page)])
    run_module("maskstream.pipelines.masks.table", run_name="__main__")
    assert page.read_text() == TEXT


def test_all_28_papers_are_named():
    rows = [line.split("|")[1].strip() for line in TEXT.splitlines() if line.startswith("| ")]
    rows += re.findall(r"^- \*\*(.+?)\*\*", TEXT, re.MULTILINE)
    for paper in PAPERS:
        assert any(re.match(rf"{re.escape(paper)}(\W|$)", row) for row in rows), paper


@schemes
def test_a_call_builds_the_mask(scheme):
    assert build(scheme.call) == scheme.mask


def test_names_and_papers_are_declared_once():
    names = [scheme.name for scheme in masks.SCHEMES if scheme.name]
    assert sorted(names) == list(masks.MASKS)
    assert len({(scheme.source, scheme.title) for scheme in masks.SCHEMES}) == len(masks.SCHEMES)


@schemes
def test_so_many_tokens_stay_visible(scheme):
    """Drawn on the scheme's own grid with made-up cues; in a sample's second view where it has two."""
    cues = made_up_cues(scheme.mask.needs, scheme.grid, np.random.default_rng(0))
    draws = [Draw.of(0, 0, f"s{i}", 1, Place(row=i, rows=3), cues) for i in range(3)]
    counts = (~scheme.mask.draw(scheme.grid, draws).masked).sum(1).tolist()
    assert scheme.visible is None or counts == [scheme.visible] * 3
    assert 0 <= min(counts) <= max(counts) <= scheme.grid.size


def test_every_schedule_is_declared_once_and_its_call_builds_it():
    public = [getattr(masks, name) for name in masks.__all__]
    schedules = {thing for thing in public if isinstance(thing, type) and issubclass(thing, masks.RatioSchedule)}
    assert Counter(type(declared.schedule) for declared in masks.SCHEDULES) == Counter(
        schedules - {masks.RatioSchedule, masks.ProportionSchedule}
    )
    for declared in masks.SCHEDULES:
        assert build(declared.call) == declared.schedule
        assert masks.Random(ratio=declared.schedule) is not None
        assert {type(schedule) for _, schedule in declared.drawn} == {type(declared.schedule)}
        assert f"| `{declared.call}` | {declared.note} | {declared.source} |" in format_schedule_table()


def test_the_mask_of_your_own():
    code = re.search(r"```python\n(from dataclasses[^`]*class LeftHalf.*?)```", TEXT, re.DOTALL)[1]
    names = {}
    exec(code, names)
    batch = names["LeftHalf"]().draw(masks.TokenGrid(), [np.random.default_rng(0)])
    assert batch.visible.shape == (1, 784)
