"""Erased samples are in no byte of a split, all others where they were, and a kill leaves a whole split."""

from __future__ import annotations

import gc
import io
import json
import tarfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import fields
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from maskstream.modalities.audio import with_usual_seconds
from maskstream.modalities.audiovisual import with_sound_of_clips
from maskstream.pipelines import Split, VideoClip, text_loader
from maskstream.pipelines.modalities.audio.data import AudioData
from maskstream.pipelines.modalities.audiovisual.data import AudioVisualData
from maskstream.pipelines.modalities.text.data import TextData
from maskstream.preprocess.job.shards import make_shards
from maskstream.preprocess.job.verification import repair_split
from maskstream.preprocess.versions import Erased, append, erase, merge, remove
from maskstream.shards.errors import DatasetError, MissingFileError, RemovedError, ShardError
from maskstream.shards.format.dataset import finish_split, read_dataset_json
from maskstream.shards.format.inspect import inspect
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.rejects import read_rejects
from maskstream.shards.format.sample import DatasetInfo, Reject, Sample
from maskstream.shards.format.verify import verify
from maskstream.shards.format.writer import write_shard
from maskstream.shards.members.text import json_member
from maskstream.shards.stores.local import LocalStore

from ...pipelines.every_modality import MODALITIES, write_split
from ...s3_double import BUCKET, s3_double
from .killed_forks import check_every_kill
from .small_splits import contents, written

PIECE = 64
QUICK = ("points", "video")
"""The modalities that the quick tests show; the slow ones show all."""


def secret(folder: Path, n: int = 9) -> Path:
    """A split of n samples of random text, whose rejects name a source too."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(n)
    samples = [
        Sample(
            key=f"key/person-{i:04d}",
            members={"json": json_member({"text": rng.bytes(600).hex()}), "b.json": json_member({"n": i})},
            source=f"source of person {i:04d}.mp4:0-7",
            label=i % 2,
        )
        for i in range(n)
    ]
    records = [write_shard(folder / f"toy-{at // 3:06d}.tar", samples[at : at + 3]) for at in range(0, n, 3)]
    rejects = [
        Reject(source=samples[1].source, stage="open", reason="it was broken once"),
        Reject(source="other", stage="open", reason=f"same as {samples[1].source}"),
        Reject(source="third", stage="open", reason="x"),
    ]
    info = DatasetInfo(dataset="toy", split="train", modality="image", profile="p", label_names=("x", "y"))
    finish_split(folder, info, records, rejects)
    return folder


def everything(files: dict[str, bytes]) -> dict[str, bytes]:
    """The bytes of files and of what is compressed in them."""
    found = dict(files)
    for name, data in files.items():
        if name.endswith(".parquet"):
            with pq.ParquetFile(io.BytesIO(data)) as file:
                table = file.read(use_threads=False)
                words = [repr(table.to_pylist()), repr(table.schema.metadata), repr(file.metadata.to_dict())]
            dictionaries = [repr(c.dictionary) for col in table.columns for c in col.chunks if hasattr(c, "dictionary")]
            found[f"{name} decoded"] = "\n".join([*words, *dictionaries]).encode()
    return found


def traces(files: dict[str, bytes], members: list[bytes], words: list[str]) -> list[str]:
    """The files that hold a 64-byte piece of a member, or a word."""
    pieces = {member[at : at + PIECE] for member in members for at in range(len(member) - PIECE + 1)}
    pieces = {piece for piece in pieces if piece.strip(b"\0")}
    found = []
    for name, data in everything(files).items():
        named = any(word.encode() in data or word in name for word in words)
        if named or any(data[at : at + PIECE] in pieces for at in range(len(data) - PIECE + 1)):
            found.append(name)
    return sorted(found)


def of_samples(split: Path, keys: list[str]) -> tuple[list[bytes], list[str]]:
    """The members of samples, and their keys and sources."""
    manifest = Manifest.load(split)
    sources = manifest.sources().to_pylist()
    members, words = [], list[str]()
    for key in keys:
        i = manifest.keys(range(len(manifest))).index(key)
        words += [key, sources[i]]
        there = [name for name, component in manifest.components.items() if component.offset[i]]
        members += [manifest.store.read(*manifest.member(i, name)) for name in there]
    return members, words


def test_nothing_is_left_in_any_file_of_any_version(tmp_path: Path) -> None:
    split, other = secret(tmp_path / "a"), tmp_path / "b"
    written(other, 100)
    before = Manifest.load(split)
    remove(split, ["key/person-0004"])
    append(split, other)
    keys = ["key/person-0001", "key/person-0002", "key/person-0007", "k103"]
    members, words = of_samples(split, keys)
    assert len(traces(contents(split), members, words)) > 8
    assert erase(split, keys) == Erased(version=4, erased=4)
    assert traces(contents(split), members, words) == []
    assert verify(split).problems == []
    assert sorted(path.name for path in split.glob("*.tar")) == [
        "toy-000000.e4.tar",
        "toy-000001.tar",
        "toy-000002.e4.tar",
        "toy-000003.tar",
        "toy-000004.e4.tar",
    ]
    for version, samples, removed in ((1, 9, [1, 2, 7]), (2, 9, [1, 2, 4, 7]), (3, 15, [1, 2, 4, 7, 12])):
        found = Manifest.load(split, version=version)
        assert (len(found), found.removed.tolist(), found.version) == (samples, removed, version)
        assert [reject.source for reject in read_rejects(LocalStore(split), found.info)][-1] == "third"
    assert Manifest.load(split, version=1).fingerprint == before.fingerprint
    after = Manifest.load(split)
    assert (after.version, after.removed.tolist()) == (4, [1, 2, 4, 7, 12])
    for i in range(15):
        if i in (1, 2, 7, 12):
            assert (after.sources()[i].as_py(), after.label[i], after.key(i)[:7]) == ("", -1, "erased/")
            with pytest.raises(RemovedError):
                after.member(i, "json")
        elif i < 9:
            assert after.key(i) == before.key(i)
            where = [before.member(i, name) for name in before.components]
            now = [after.store.read(after.shard_name(i), offset, size) for _, offset, size in where]
            assert [json.loads(data) for data in now]
    assert inspect(split)["counts"]["removed"] == 5
    assert erase(split, keys[:1]) == Erased(version=4, erased=0, unknown=("key/person-0001",))
    members, words = of_samples(split, ["key/person-0000"])
    assert erase(split, ["key/person-0000"]) == Erased(version=5, erased=1)
    assert traces(contents(split), members, words) == []
    assert (split / "toy-000000.e5.tar").exists()
    assert not (split / "toy-000000.e4.tar").exists()
    assert verify(split).problems == []
    whole = written(tmp_path / "c", 200)
    append(whole, split)
    assert verify(whole).problems == []
    assert Manifest.load(whole).removed.tolist() == [6, 7, 8, 10, 13, 18]


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves the closing of files to the collector
def test_other_readers_pass_over_them(tmp_path: Path) -> None:
    import webdataset

    split = secret(tmp_path / "a")
    keys = Manifest.load(split).keys(range(9))
    with tarfile.open(split / "toy-000001.tar") as tar:
        places = {member.offset_data: member.size for member in tar}
    erase(split, keys[3:5])
    urls = sorted(map(str, split.glob("*.tar")))
    read = [sample["__key__"] for sample in webdataset.WebDataset(urls, shardshuffle=False)]
    gc.collect()
    assert read == keys[:3] + keys[5:]
    with tarfile.open(split / "toy-000001.e2.tar") as tar:
        assert {member.offset_data: member.size for member in tar} == places
        assert [member.name for member in tar][:5] == ["__erased__"] * 4 + [f"{keys[5]}.json"]
        assert not tar.extractfile(tar.next() or tar.getmembers()[0]).read().strip(b"\0")  # type: ignore[union-attr]
    assert (split / "toy-000001.e2.idx").read_text().startswith("v1.2 1\n")


def test_what_cannot_be_erased_changes_nothing(tmp_path: Path) -> None:
    split, other, out = secret(tmp_path / "a"), written(tmp_path / "b", 100), tmp_path / "out"
    merge(out, [split, other])
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r"1 of 2 keys are not in .*: 'nobody'"):
        erase(split, ["nobody", "key/person-0001"])
    with pytest.raises(ValueError, match="delete the split instead"):
        erase(split, Manifest.load(split).keys(range(9)))
    with pytest.raises(DatasetError, match=r"its samples are in .*/b; run `maskstream erase` there"):
        erase(out, ["k101"])
    assert contents(tmp_path) == before
    erase(other, ["k101"])
    with pytest.raises(ShardError, match="samples were erased from it; rerun the `maskstream merge`"):
        Manifest.load(out)
    fingerprint = read_dataset_json(out)["fingerprint"]
    merge(out, [split, other])
    assert (Manifest.load(out).removed.tolist(), Manifest.load(out).fingerprint) == ([10], fingerprint)
    assert verify(out).problems == []
    assert "k101" not in str(everything(contents(out)))
    with open(split / "toy-000000.tar", "r+b") as file:
        file.seek(700)
        file.write(b"!")
    now = contents(split)
    with pytest.raises(ShardError, match=r"toy-000000.tar has changed since it was written"):
        erase(split, ["key/person-0001"])
    assert contents(split) == now


@pytest.mark.parametrize(
    "kind", [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in MODALITIES]
)
def test_a_run_resumes_exactly_for_all_other_samples(kind: str, tmp_path: Path) -> None:
    folder, modality = write_split(kind, tmp_path), MODALITIES[kind]
    settings = {"batch_size": 4, "device": "cpu", "threads": 1, "seed": 5, "rank": 0, "world_size": 1}
    with closing(modality.loader(folder, **settings)) as before:
        state, shown = before.state_dict(), before.order.epoch(0).tolist()
        rows = list(chain.from_iterable(map(modality.rows, before)))
    gone = shown[-1]
    members, words = of_samples_of(folder, gone)
    erase(folder, [Manifest.load(folder).key(gone)])
    assert traces(contents(folder), members, words) == []
    assert verify(folder, decode=True).problems == []
    inspect(folder)
    with closing(modality.loader(folder, **settings)) as after:
        after.load_state_dict(json.loads(json.dumps(state)))
        found = list(chain.from_iterable(map(modality.rows, after)))
        assert after.stats()["bad"] == 0
    same = [str(new) == str(old) for old, new in zip(rows, found, strict=True)]
    assert [index for index, equal in zip(shown, same, strict=True) if not equal] == [gone] * shown.count(gone)


def test_texts_are_packed_as_before(tmp_path: Path) -> None:
    folder, data = write_split("text", tmp_path), TextData(length=32, packing="pack")
    one = data.rows(Split.open(folder, "text", device="cpu")).packing
    erase(folder, Manifest.load(folder).keys([2, 5]))
    other = data.rows(Split.open(folder, "text", device="cpu")).packing
    for field in fields(one):
        assert np.array_equal(getattr(one, field.name), getattr(other, field.name)), field.name
    with closing(text_loader(folder, length=32, packing="pack", device="cpu", batch_size=2)) as loader:
        assert list(loader)
        assert loader.stats()["bad"] == 0


@pytest.mark.parametrize(
    ("kind", "seconds"),
    [
        ("audio", lambda manifest: with_usual_seconds(manifest, AudioData()).clip.seconds),
        (
            "audiovisual",
            lambda manifest: with_sound_of_clips(manifest, AudioVisualData(clip=VideoClip(frames=4))).seconds,
        ),
    ],
)
def test_what_a_page_shows_of_a_split_is_told_by_the_other_samples(
    kind: str, seconds: Callable[[Manifest], float], tmp_path: Path
) -> None:
    folder = write_split(kind, tmp_path)
    before = seconds(Manifest.load(folder))
    erase(folder, Manifest.load(folder).keys([0]))
    assert 0 < seconds(Manifest.load(folder)) <= before + 1


def of_samples_of(split: Path, i: int) -> tuple[list[bytes], list[str]]:
    manifest = Manifest.load(split)
    there = [name for name, component in manifest.components.items() if component.offset[i]]
    members = [manifest.store.read(*manifest.member(i, name)) for name in there]
    others = {
        manifest.store.read(*manifest.member(j, name))
        for j in range(len(manifest))
        for name, component in manifest.components.items()
        if j != i and component.offset[j]
    }
    shared = {other[at : at + PIECE] for other in others for at in range(len(other) - PIECE + 1)}
    own = [m[at : at + PIECE] for m in members for at in range(len(m) - PIECE + 1)]
    words = [manifest.key(i), manifest.sources()[i].as_py()]
    return [piece for piece in own if piece not in shared], [word for word in words if len(word) > 5]


def test_a_loader_that_reads_meanwhile_gets_no_wrong_bytes(tmp_path: Path) -> None:
    split = secret(tmp_path / "a")
    before = Manifest.load(split)
    ranges = {i: before.member(i, "json") for i in range(9)}
    whole = {i: before.store.read(*ranges[i]) for i in (0, 1, 2)}
    erase(split, ["key/person-0001", "key/person-0007"])
    assert before.store.read(*ranges[1]) == whole[1]
    with pytest.raises(MissingFileError, match=r"toy-000002.tar cannot be opened .No such file"):
        before.store.read(*ranges[7])
    assert Manifest.load(split).store.read(*ranges[0]._replace(name="toy-000000.e2.tar")) == whole[0]


def test_in_an_object_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = secret(tmp_path / "a")
    with s3_double() as double:
        for name, value in double.env.items():
            monkeypatch.setenv(name, value)
        double.objects |= {f"set/{name}": data for name, data in contents(here).items()}
        members, words = of_samples(here, ["key/person-0004"])
        assert erase(f"s3://{BUCKET}/set", ["key/person-0004"]) == Erased(version=2, erased=1)
        assert verify(f"s3://{BUCKET}/set").problems == []
        erase(here, ["key/person-0004"])
        assert {name.removeprefix("set/"): data for name, data in double.objects.items()} == contents(here)
    assert traces(contents(here), members, words) == []


def test_records_of_a_job_are_scrubbed_and_still_describe_the_split(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    for i in range(8):
        (raw / "abc"[i % 2]).mkdir(parents=True, exist_ok=True)
        (raw / "abc"[i % 2] / f"person{i:02d}.png").write_bytes(_png(i))
    (raw / "a" / "broken.png").write_bytes(b"no image")
    make_shards("image-folder", raw, tmp_path / "out", workers=0, samples_per_shard=3, max_rejects=0.5)
    split = tmp_path / "out" / "train"
    manifest = Manifest.load(split)
    gone = next(i for i, name in enumerate(manifest.sources().to_pylist()) if "person03" in name)
    key = manifest.key(gone)
    members, _ = of_samples(split, [key])
    words = [key, "person03"]
    assert any(name.startswith(".records") for name in traces(contents(split), members, words))
    erase(split, [key])
    assert traces(contents(split), members, words) == []
    assert verify(split).problems == []
    for path in split.glob("*.idx"):
        path.write_bytes(b"")
    assert repair_split(split).beyond == []
    assert verify(split).problems == []
    assert erase(split, [Manifest.load(split).key((gone + 1) % 8)]).erased == 1
    assert verify(split).problems == []


def _png(i: int) -> bytes:
    import cv2

    pixels = np.random.default_rng(i).integers(0, 255, (40, 48, 3), np.uint8)
    return bytes(cv2.imencode(".png", pixels)[1])


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_every_step_it_ends_in_the_same_files(every: int, tmp_path: Path) -> None:
    keys = ["key/person-0001", "key/person-0007", "k103"]
    first = secret(tmp_path / "first")
    append(first, written(tmp_path / "other", 100))
    members, words = of_samples(first, keys)

    def check(split: Path) -> None:
        assert Manifest.load(split).version in (2, 3)
        assert len(Manifest.load(split)) == 15
        assert len(Manifest.load(split, version=1)) == 9  # whatever is written already

    whole = check_every_kill(first, lambda split: erase(split, keys), steps=12, every=every, after_kill=check)
    assert traces(contents(whole), members, words) == []
    assert verify(whole).problems == []
