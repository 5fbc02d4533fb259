"""What is of a split and lies beside it loses erased samples too, or is named with what to do."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from maskstream.preprocess.curate import Told, write_card
from maskstream.preprocess.versions import divide, erase, merge, take_few
from maskstream.preprocess.versions.card import as_text
from maskstream.shards.errors import DatasetError
from maskstream.shards.format.dataset import finish_split, read_dataset_json
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.records import RecordedTask, Records
from maskstream.shards.format.sample import TARGETS, DatasetInfo, Reject, Sample
from maskstream.shards.format.verify import verify
from maskstream.shards.format.writer import write_shard
from maskstream.shards.members.arrays import array_member
from maskstream.train.write_targets import WrittenTargets

from .killed_forks import check_every_kill
from .small_splits import contents, written
from .test_erasing import everything

SECRET = "secretsubject"
KEY, SOURCE = "k4", "s4"


def made(folder: Path) -> Path:
    """A split of which sample k4 alone has the label "secretsubject", with a split of few samples, one that is held
    out, stored targets, features and a card.
    """
    train = written(folder / "train", 0, ("x", "y", SECRET), n=12, lone=4)
    held = divide(train, 0.25, out=folder / "val")
    assert held.held_out_samples
    take_few(train, 1)
    store_targets(train, folder / "train-targets-0")
    store_targets(folder / "few-1", folder / "few-targets", rejected=True)
    features(train, folder / "features.parquet")
    pq.write_table(pa.table({"key": ["k1", KEY], "why": ["rule"] * 2, "of": [""] * 2}), folder / "curated.parquet")
    write_card(train, Told(creators=("A",)))
    write_card(folder)
    return train


def store_targets(split: Path, out: Path, *, rejected: bool = False) -> None:
    """What `maskstream targets` would write; rejected: the samples with the label had none."""
    manifest = Manifest.load(split)
    keys, labels = manifest.keys(range(len(manifest))), manifest.label.tolist()
    own = [(key, label) for key, label in zip(keys, labels, strict=True) if not (rejected and label == 2)]
    samples = [
        Sample(key=key, members={"npy": array_member(np.full((1, 1, 2), label))}, source=key, label=label)
        for key, label in own
    ]
    refused = tuple(Reject(source=key, stage="json", reason="x") for key in {*keys} - {key for key, _ in own})
    out.mkdir(parents=True)
    shard = write_shard(out / "targets-000000.tar", samples)
    settings = {TARGETS: {"fingerprint": manifest.fingerprint, "weights": "w"}}
    info = DatasetInfo(
        dataset="toy",
        split="train",
        modality=TARGETS,
        profile=TARGETS,
        label_names=tuple(manifest.info["label_names"]),
        settings=settings,
    )
    records = Records(out, WrittenTargets)
    records.begin(settings)
    records.record(RecordedTask("targets-000000.tar"), WrittenTargets(shard=shard, rejects=refused, source="0"))
    finish_split(out, info, [shard], refused)


def features(split: Path, path: Path) -> None:
    """What `maskstream embed` would write."""
    manifest = Manifest.load(split)
    keys = manifest.keys(range(len(manifest)))
    values = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(2 * len(keys), dtype=np.float32)), 2)
    about = {"weights": "w", "split": str(split), "fingerprint": manifest.fingerprint}
    pq.write_table(pa.table({"key": keys, "label": manifest.label, "features": values}, metadata=about), path)


def holds(folder: Path, *words: str) -> list[str]:
    """The files that have a word, also compressed."""
    files = everything(contents(folder))
    return sorted(name for name, data in files.items() if any(word.encode() in data for word in words))


def test_nothing_beside_a_split_names_an_erased_sample(tmp_path: Path) -> None:
    train = made(tmp_path)
    before = pq.read_table(tmp_path / "features.parquet")
    assert len({name.split("/")[0] for name in holds(tmp_path, SECRET)}) >= 5
    found = erase(train, [KEY], words=True)
    assert (found.erased, found.labels, [one[:8] for one in found.named]) == (1, 1, ["run.json"])
    beside = {Path(one).relative_to(tmp_path).as_posix() for one in found.beside}
    names = {"few-1", "val", "train-targets-0", "few-targets", "README.md", "train/README.md"}
    names |= {"curated.parquet", "features.parquet"}
    assert beside == names
    assert holds(tmp_path, SECRET, f'"{KEY}"', f"'{KEY}'", f"'{SOURCE}'") == []
    for name in ("train", "val", "few-1", "train-targets-0", "few-targets"):
        assert (verify(tmp_path / name).problems, verify(tmp_path / name).unchecked) == ([], []), name
    after = pq.read_table(tmp_path / "features.parquet")
    kept = [row for row, key in enumerate(before["key"].to_pylist()) if key != KEY]
    assert after.equals(before.take(kept), check_metadata=False)
    assert after.schema.metadata == before.schema.metadata
    targets = Manifest.load(tmp_path / "train-targets-0")
    assert KEY not in targets.keys(range(len(targets)))
    assert len(targets) == 12 - len(Manifest.load(tmp_path / "val"))
    assert contents(tmp_path) == (erase(train, [KEY], words=True), contents(tmp_path))[1]


def test_what_is_named_is_told_with_what_to_do(tmp_path: Path) -> None:
    train = made(tmp_path)
    for name in ("README.md", "croissant.json"):  # a card of a folder needs all of its splits
        (tmp_path / name).unlink()
    merge(tmp_path / "both", [train, written(tmp_path / "other", 100, ("x", "y", SECRET))])
    (tmp_path / "notes.md").write_text(f"# About {SECRET}\n")
    (tmp_path / "train/page.html").write_text("<p>a secretsubjects&#39; page of k44</p>")
    (tmp_path / "list.csv").write_text(f"key\n{KEY}\n")
    pq.write_table(pa.table({"name": ["a", f"x {SOURCE} y"]}), tmp_path / "train/list.parquet")
    found = erase(train, [KEY], words=True)
    named = [one.replace(f"{tmp_path}/", "") for one in found.named]
    assert named.pop().startswith("run.json")
    assert named == [
        "both is merged with it and cannot be read until `maskstream merge both train other` is run again",
        "train/list.parquet still names them; delete it, or recreate it",
        "list.csv still names them; delete it, or recreate it",
        "notes.md still names them; delete it, or recreate it",
    ]
    merge(tmp_path / "both", [train, tmp_path / "other"])
    assert holds(tmp_path, SECRET) == ["notes.md", "train/page.html"]


def test_names_of_labels_go_from_the_cards_of_other_splits(tmp_path: Path) -> None:
    odd = f"|日本| {SECRET}"
    train = written(tmp_path / "train", 0, ("x", "y", odd), n=12, lone=4)
    other = written(tmp_path / "other", 100, ("x", "y", odd))
    write_card(other)
    (tmp_path / "notes.md").write_text(f"# {as_text(odd)}\n")
    assert {*holds(tmp_path, SECRET)} >= {"notes.md", "other/croissant.json"}
    found = erase(train, [KEY], words=True)
    assert holds(tmp_path, SECRET) == ["notes.md"]
    assert f"{other}/README.md" in found.beside
    assert found.named[0].startswith(f"{tmp_path}/notes.md still names them")


def test_targets_of_another_split_stay(tmp_path: Path) -> None:
    train = made(tmp_path)
    store_targets(written(tmp_path / "other", 0, n=9), tmp_path / "other-targets")
    (tmp_path / "README.md").unlink()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/dataset.json").write_text("{}")
    before = contents(tmp_path / "other-targets")
    found = erase(train, [KEY])
    assert contents(tmp_path / "other-targets") == before
    assert [one.split(" ")[0] for one in found.named] == [f"{tmp_path}/damaged/dataset.json"]
    assert read_dataset_json(train)["label_names"] == ["x", "y", SECRET]


def test_targets_of_which_nothing_would_be_left_change_nothing(tmp_path: Path) -> None:
    train = made(tmp_path)
    shutil.rmtree(tmp_path / "few-targets")
    few = Manifest.load(tmp_path / "few-1")
    store_targets(tmp_path / "few-1", tmp_path / "few-targets")
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r"few-targets has no samples besides these; delete the split instead"):
        erase(train, few.keys(range(len(few))))
    assert contents(tmp_path) == before


def test_samples_are_erased_from_stored_targets_alone(tmp_path: Path) -> None:
    made(tmp_path)
    assert erase(tmp_path / "train-targets-0", [KEY]).erased == 1
    assert verify(tmp_path / "train-targets-0").ok
    with pytest.raises(DatasetError, match="is held out of another split"):
        erase(tmp_path / "few-1", [KEY])


@pytest.mark.parametrize("every", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_every_step_it_ends_in_the_same_files(every: int, tmp_path: Path) -> None:
    def run(out: Path) -> None:
        erase(out / "train", [KEY], words=True)

    made(tmp_path / "out")
    assert holds(check_every_kill(tmp_path / "out", run, steps=20, every=every), SECRET) == []
