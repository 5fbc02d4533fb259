"""A finished split is divided without a tar being touched: no sample is lost or doubled, whatever comes after."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskstream.preprocess.job.verification import repair_split, verify_split
from maskstream.preprocess.versions import append, divide, erase, merge, remove, take_few
from maskstream.shards.errors import DatasetError
from maskstream.shards.format.dataset import finish_split, read_dataset_json
from maskstream.shards.format.inspect import inspect
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.rejects import read_rejects
from maskstream.shards.format.sample import DatasetInfo, Sample
from maskstream.shards.format.verify import verify
from maskstream.shards.format.writer import write_shard
from maskstream.shards.members.text import json_member
from maskstream.shards.stores.local import LocalStore

from ...pipelines.every_modality import MODALITIES, write_split
from ...s3_double import BUCKET, s3_double
from .killed_forks import check_every_kill
from .small_splits import contents, written


def keys(split: Path, version: int | None = None) -> list[str]:
    """The keys of the samples that are not removed."""
    found = Manifest.load(split, version=version)
    return [key for i, key in enumerate(found.keys(range(len(found)))) if not found.is_removed(i)]


def of_groups(folder: Path, groups: list[tuple[int, int]]) -> Path:
    """A split with a sample for each group and label, in shards of three."""
    folder.mkdir(parents=True)
    samples = [
        Sample(
            key=f"k{i}",
            members={"json": json_member({"speaker": group})},
            source=f"clips/{group}.mp4#{i}",
            label=label,
        )
        for i, (group, label) in enumerate(groups)
    ]
    shards = [write_shard(folder / f"t-{at:06d}.tar", samples[at : at + 3]) for at in range(0, len(samples), 3)]
    info = DatasetInfo(dataset="t", split="train", modality="image", profile="p", label_names=("a", "b", "c"))
    finish_split(folder, info, shards, [])
    return folder


@given(
    groups=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), min_size=8, max_size=40),
    share=st.sampled_from([0.1, 0.3, 0.6]),
    by=st.sampled_from(["source", "sample", "speaker"]),
    seed=st.integers(0, 3),
)
@settings(max_examples=6)
def test_the_union_is_the_split_and_no_group_is_in_both(
    tmp_path_factory: pytest.TempPathFactory, groups: list[tuple[int, int]], share: float, by: str, seed: int
) -> None:
    split = of_groups(tmp_path_factory.mktemp("divided") / "train", groups)
    whole, tars = keys(split), contents(split)
    try:
        made = divide(split, share, by=by, seed=seed)
    except DatasetError as error:
        assert "holds out none" in str(error)
        assert contents(split).keys() - {".maskstream.lock"} == tars.keys() - {".maskstream.lock"}
        return
    val = split.parent / "val"
    assert sorted([*keys(split), *keys(val)]) == sorted(whole)
    assert (made.samples, made.held_out_samples) == (len(keys(split)), len(keys(val)))
    assert not [name for name in contents(val) if name.endswith(".tar")]
    assert {name: data for name, data in contents(split).items() if name in tars and name != "dataset.json"} == {
        name: data for name, data in tars.items() if name != "dataset.json"
    }
    if by != "sample":
        of = dict(zip(whole, (group for group, _ in groups), strict=True))
        assert {of[key] for key in keys(split)}.isdisjoint(of[key] for key in keys(val))
    for one in (split, val):
        found = Manifest.load(one)
        assert verify(one).problems == []
        sources = dict(zip(found.keys(range(len(found))), found.sources().to_pylist(), strict=True))
        assert all(name.endswith(f"#{key[1:]}") for key, name in sources.items())
        read = found.store.read_many([found.member(i, "json") for i in range(len(found))])
        of_key = {f"k{i}": {"speaker": group} for i, (group, _) in enumerate(groups)}
        assert [json.loads(data) for data in read] == [of_key[found.key(i)] for i in range(len(found))]
        assert found.label.tolist() == [groups[int(key[1:])][1] for key in found.keys(range(len(found)))]
    assert keys(split, version=1) == whole


@pytest.mark.parametrize(
    "modality", [name if name == "video" else pytest.param(name, marks=pytest.mark.slow) for name in MODALITIES]
)
def test_loaders_of_each_modality_read_what_both_have(modality: str, tmp_path: Path) -> None:
    split, held = write_split(modality, tmp_path), tmp_path / "held"
    divide(split, 0.4, by="sample", out=held)
    for one in (split, held):
        assert verify(one, decode=True).problems == []
        assert inspect(one)["counts"]["samples"] == len(keys(one))
        loader = MODALITIES[modality].loader(one, batch_size=2, shuffle=False, device="cpu", threads=1)
        assert {key for batch in loader for key in batch.key} == {*keys(one)}


def test_the_same_call_again_changes_nothing_and_other_settings_are_refused(tmp_path: Path) -> None:
    split, val = written(tmp_path / "train", 0, n=20), tmp_path / "val"
    made = divide(split, 0.2)
    assert (made.version, made.samples, made.held_out_version, made.held_out_samples) == (2, 16, 1, 4)
    before = contents(tmp_path)
    assert divide(split, 0.2) == made
    assert contents(tmp_path) == before
    with pytest.raises(
        DatasetError, match=r"different settings \(share was 0.2, here 0.3\); use these, or a different --out"
    ):
        divide(split, 0.3)
    with pytest.raises(DatasetError, match=r"is held out of ../train itself; split that one"):
        divide(val, 0.5)
    with pytest.raises(DatasetError, match="cannot be its own validation split"):
        divide(split, 0.2, out=split)
    other = written(tmp_path / "b" / "train", 100)
    written(tmp_path / "b" / "val", 200)
    with pytest.raises(DatasetError, match=r"already contains a validation split that was not held out of"):
        divide(other, 0.5)
    with pytest.raises(DatasetError, match=r"has no field 'speaker' \(--val-by\); it has 'number'; also accepted are"):
        divide(other, 0.5, by="speaker", out=tmp_path / "c")
    assert sorted([*keys(split), *keys(val)]) == sorted(f"k{i}" for i in range(20))
    test = divide(split, 0.25, out=tmp_path / "test")  # a third split of what is left
    assert (test.version, test.samples, test.held_out_samples) == (3, 12, 4)
    assert sorted([*keys(split), *keys(val), *keys(tmp_path / "test")]) == sorted(f"k{i}" for i in range(20))
    assert len(keys(split, version=2)) == 16


def test_versions_of_both_go_on(tmp_path: Path) -> None:
    split, val = written(tmp_path / "train", 0, n=20), tmp_path / "val"
    remove(split, ["k3"])
    divide(split, 0.2)
    assert "k3" not in keys(val)
    assert len(keys(split)) == 15
    assert len(keys(val)) == 4
    held, kept = keys(val), keys(split)
    remove(val, held[:1])
    remove(split, kept[:1])
    with pytest.raises(ValueError, match="1 of 1 keys are not in"):
        remove(split, held[1:2])
    with pytest.raises(DatasetError, match=r"is a validation split of ../train and shares its shards; append to that"):
        append(val, written(tmp_path / "b", 100))
    append(split, written(tmp_path / "c", 200, n=20))
    assert len(keys(split)) == 14 + 20
    assert keys(val) == held[1:]
    divide(split, 0.2)
    assert {*held[1:]} < {*keys(val)}
    assert {*kept[1:]} < {*keys(split)}
    assert (len(keys(split)), len(keys(val))) == (14 + 16, 3 + 4)
    gone, other = next(key for key in keys(val) if key != held[1]), keys(split)[1]
    with pytest.raises(DatasetError, match=r"is held out of another split, and its samples are in .*train; run"):
        erase(val, [gone])
    before = {one: Manifest.load(one).fingerprint for one in (split, val)}
    assert erase(split, [gone, other]).erased == 2
    for one in (split, val):
        assert verify(one).problems == []
        assert verify_split(one, workers=0).problems == []
        assert Manifest.load(one).fingerprint == before[one]
        assert repair_split(one).repaired == []
        assert not {gone, other} & {*keys(one)}
        data = b"".join(contents(one).values())
        assert gone.encode() + b"." not in data
        assert other.encode() + b"." not in data
    assert (len(keys(split)), len(keys(val))) == (14 + 15, 3 + 3)
    with pytest.raises(DatasetError, match="have the same shards, as they were divided"):
        merge(tmp_path / "both", [split, val])
    with pytest.raises(DatasetError, match="have the same shards, as they were divided"):
        append(split, val)
    last = written(tmp_path / "d", 300)
    for one in (split, val):
        whole = tmp_path / f"all-{one.name}"
        merge(whole, [last, one])
        assert verify(whole).problems == []
        assert keys(whole) == [*keys(last), *keys(one)]
        copied = tmp_path / f"copied-{one.name}"
        shutil.copytree(last, copied)
        append(copied, one)
        assert verify(copied).problems == []
        assert keys(copied) == [*keys(last), *keys(one)]
    assert read_rejects(LocalStore(val), read_dataset_json(val)) == []
    moved = tmp_path / "moved"
    moved.mkdir()
    for one in (split, val):
        shutil.move(one, moved / one.name)
    assert verify(moved / "val").problems == []


@pytest.mark.slow
def test_killed_at_every_step_it_ends_in_the_same_samples(tmp_path: Path) -> None:
    base = written(tmp_path / "base" / "train", 0, n=20).parent
    divide(base / "train", 0.2)
    append(base / "train", written(tmp_path / "more", 100, n=20))

    def run(place: Path) -> None:
        divide(place / "train", 0.2)
        erase(place / "train", ["k1", "k100"])

    def without_locks(place: Path) -> dict[str, bytes]:
        return {name: data for name, data in contents(place).items() if not name.endswith(".lock")}

    whole = check_every_kill(base, run, steps=20, read=without_locks)
    assert verify(whole / "train").problems == []
    assert verify(whole / "val").problems == []


def test_a_run_that_was_begun_before_goes_on_with_its_samples(tmp_path: Path) -> None:
    split = write_split("image", tmp_path)
    loader = MODALITIES["image"].loader(split, batch_size=2, device="cpu", threads=1)
    batches = iter(loader)
    next(batches)
    state = loader.state_dict()
    rest = [batch.key for batch in batches]
    divide(split, 0.4, by="sample")
    again = MODALITIES["image"].loader(split, batch_size=2, device="cpu", threads=1)
    before = len(again)
    again.load_state_dict(state)
    assert [batch.key for batch in again] == rest
    assert before < len(again)


@pytest.mark.slow
def test_worker_processes_read_what_is_left(tmp_path: Path) -> None:
    split = write_split("image", tmp_path)
    divide(split, 0.4, by="sample")
    workers = MODALITIES["image"].loader(split, batch_size=2, device="cpu", workers=1)
    alone = MODALITIES["image"].loader(split, batch_size=2, device="cpu", threads=1)
    assert [batch.key for batch in workers] == [batch.key for batch in alone]
    workers.close()
    assert np.isin(list(keys(tmp_path / "val")), keys(split, version=1)).all()


def test_in_an_object_store_it_makes_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = written(tmp_path / "set" / "train", 0, n=20)
    with s3_double() as double:
        for name, value in double.env.items():
            monkeypatch.setenv(name, value)
        double.objects |= {f"set/train/{name}": data for name, data in contents(split).items()}
        made = divide(f"s3://{BUCKET}/set/train", 0.2)
        assert (made.held_out, made.samples) == (f"s3://{BUCKET}/set/val", 16)
        assert verify(f"s3://{BUCKET}/set/val").problems == []
        erase(f"s3://{BUCKET}/set/train", ["k1", "k2", "k3"])
        divide(split, 0.2)
        erase(split, ["k1", "k2", "k3"])
        here = {name: data for name, data in contents(tmp_path / "set").items() if not name.endswith(".lock")}
        assert {name.removeprefix("set/"): data for name, data in double.objects.items()} == here


def test_a_few_of_each_label_are_taken_and_the_split_keeps_them(tmp_path: Path) -> None:
    """At most N of each label, those of a small N among those of a larger one, and none that was removed or has no
    label; the split, its tars and its versions stay as they are.
    """
    groups = [(i, (0, 0, 1, -1)[i % 4]) for i in range(24)] + [(30, 2)]
    split = of_groups(tmp_path / "train", groups)
    remove(split, ["k0"])
    before, labels = contents(split), {f"k{i}": label for i, (_, label) in enumerate(groups)}
    two, four = take_few(split, 2), take_few(split, 4, out=tmp_path / "other" / "four")
    assert (two.out, two.samples) == (str(tmp_path / "few-2"), 5)
    assert contents(split) == before
    found, more = keys(Path(two.out)), keys(Path(four.out))
    assert sorted(labels[key] for key in found) == [0, 0, 1, 1, 2]
    assert sorted(labels[key] for key in more) == [0, 0, 0, 0, 1, 1, 1, 1, 2]
    assert set(found) < set(more)
    assert "k0" not in more
    assert {tuple(keys(Path(take_few(split, 2, seed=seed, out=tmp_path / str(seed)).out))) for seed in range(4)} > {
        tuple(found)
    }
    assert take_few(split, 2) == two
    assert not verify(Path(two.out)).problems


def test_few_are_refused_where_there_is_nothing_to_take(tmp_path: Path) -> None:
    split = of_groups(tmp_path / "train", [(i, -1) for i in range(4)])
    with pytest.raises(DatasetError, match="has no labelled samples; --few takes some from each label"):
        take_few(split, 2)
    with pytest.raises(ValueError, match="few must be the number of samples per label, at least 1, got 0"):
        take_few(split, 0)
    with pytest.raises(DatasetError, match="cannot be its own validation split"):
        take_few(split, 2, out=split)


def test_a_split_of_few_and_one_that_was_held_out_do_not_replace_each_other(tmp_path: Path) -> None:
    split = of_groups(tmp_path / "train", [(i, i % 2) for i in range(20)])
    few, val = Path(take_few(split, 2).out), Path(divide(split, 0.3).held_out)
    assert inspect(few)["few"] == {"each": 2, "seed": 0}
    for make in (lambda: divide(split, 0.3, out=few), lambda: take_few(split, 2, seed=1, out=few)):
        with pytest.raises(DatasetError, match=r"few-2 has 2 samples of each label by the seed 0 of .* already"):
            make()
    with pytest.raises(DatasetError, match=r"val has samples held out of .* already; choose a different folder"):
        take_few(split, 2, out=val)
