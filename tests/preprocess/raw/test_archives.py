"""Raw data in archives: the sources, and the bytes of the shards, are those of the same data unpacked."""

import gzip
import json
import os
import shutil
import tarfile
from contextlib import closing
from functools import partial

import pytest

from maskstream.preprocess import DATASETS, make_shards
from maskstream.preprocess.datasets import Dataset, in_archives
from maskstream.preprocess.job.shards import find_dataset
from maskstream.preprocess.raw.archive import Archive
from maskstream.preprocess.raw.archive_list import OpenArchives, list_members
from maskstream.preprocess.raw.file_state import DamagedFileError
from maskstream.preprocess.raw.members import ArchiveMember
from maskstream.preprocess.raw.tree import ArchivedFiles, find_archives, open_raw_tree, split_archive_path
from maskstream.preprocess.source import Source
from maskstream.shards.errors import DatasetError, OutageError

from ..encode.sounds import wave, write_sound
from ..raw_files import put, put_all, tar_of, zip_of

pytestmark = pytest.mark.usefixtures("cache")


def sources(dataset, root):
    with open_raw_tree(root) as tree:
        found = find_dataset(tree, DATASETS[dataset])
    return {
        split: [(one.id, found.label_names[one.label], split_archive_path(one.path) is not None) for one in some]
        for split, some in found.splits.items()
    }, found


def own_dataset(name, lists=None):
    """A dataset of a user: the files that `list.csv` names, of a function with any name."""

    def function(root):
        rows = (root / "list.csv").read_text().split()
        found = [Source(id=row, path=root / row, label=number % 2) for number, row in enumerate(rows)]
        return Dataset(name="own", label_names=("a", "b"), splits={"train": found})

    function.__name__ = name
    return function if lists is None else in_archives(*lists)(function)


def test_a_dataset_of_your_own_declares_that_it_may_stay_in_archives(tmp_path):
    put(tmp_path / "raw.tar", tar_of({"list.csv": b"one.mp4 two.mp4", "one.mp4": b"1", "two.mp4": b"2"}, "w:gz"))
    for listing in (own_dataset("mine", [".csv"]), partial(own_dataset("mine", [".csv"]))):
        with open_raw_tree(tmp_path) as tree:
            found = find_dataset(tree, listing)
        assert [split_archive_path(one.path) for one in found.splits["train"]] == [
            (tmp_path / "raw.tar", "one.mp4"),
            (tmp_path / "raw.tar", "two.mp4"),
        ]
    for undeclared in (own_dataset("mine"), own_dataset("k400")):  # the name of a function says nothing
        with open_raw_tree(tmp_path) as tree, pytest.raises(FileNotFoundError):
            find_dataset(tree, undeclared)


HEAD = "label,youtube_id,time_start,time_end,split\n"


def test_kinetics_parts_as_cvdf_publishes_them(tmp_path):
    put(tmp_path / "k400_targz/train/part_0.tar.gz", tar_of({"./aaaaaaaaaaa_000001_000011.mp4": b"a" * 9000}, "w:gz"))
    put(tmp_path / "k400_targz/train/part_1.tar.gz", tar_of({"./bbbbbbbbbbb_000000_000010.mp4": b"broken"}, "w:gz"))
    put(tmp_path / "k400_targz/val/part_0.tar.gz", tar_of({"./ccccccccccc_000005_000015.mp4": b"c"}, "w:gz"))
    repaired = {"replacement_for_corrupted_k400/bbbbbbbbbbb_000000_000010.mp4": b"repaired"}
    put(tmp_path / "k400_targz/replacement/replacement_for_corrupted_k400.tgz", tar_of(repaired, "w:gz"))
    rows = "yoga,aaaaaaaaaaa,1,11,train\nzumba,bbbbbbbbbbb,0,10,train\nyoga,ddddddddddd,0,10,train\n"
    put_all(tmp_path / "annotations", {"train.csv": HEAD + rows, "val.csv": f"{HEAD}zumba,ccccccccccc,5,15,val\n"})
    found, dataset = sources("k400", tmp_path)
    assert found == {
        "train": [
            ("train/aaaaaaaaaaa_000001_000011", "yoga", True),
            ("train/bbbbbbbbbbb_000000_000010", "zumba", True),
        ],
        "val": [("val/ccccccccccc_000005_000015", "zumba", True)],
    }
    assert [reject.source for reject in dataset.missing["train"]] == ["train/ddddddddddd_000000_000010"]
    path = dataset.splits["train"][1].path
    part = tmp_path / "k400_targz/replacement/replacement_for_corrupted_k400.tgz"
    assert split_archive_path(path) == (part, "replacement_for_corrupted_k400/bbbbbbbbbbb_000000_000010.mp4")
    with ArchivedFiles().at_hand() as hand:
        here = hand.located(dataset.splits["train"][1])
        state = hand.read(here.path)
        assert here.path.read_bytes() == b"repaired"
        assert (state.size_bytes, state.mtime_ns) == (8, 10**18)
        assert ArchivedFiles().is_same(path, state)
        assert hand.release(dataset.splits["train"][1], None) == (here.path,)
        assert not here.path.exists()


def test_something_something_in_joined_parts_with_lists_in_a_zip(tmp_path):
    videos = {f"20bn-something-something-v2/{n}.webm": os.urandom(5000) for n in range(1, 9)}
    whole = put(tmp_path / "whole.tar.gz", tar_of(videos, "w:gz"))
    data, size = whole.read_bytes(), whole.stat().st_size // 3 + 1
    whole.unlink()
    for n in range(3):
        (tmp_path / f"20bn-something-something-v2-{n:02d}").write_bytes(data[n * size : (n + 1) * size])
    entries = [{"id": str(n), "template": f"Putting [{'a' if n % 2 else 'b'}]"} for n in range(1, 9)]
    lists = {
        "labels/labels.json": json.dumps({"Putting a": "0", "Putting b": "1"}).encode(),
        "labels/train.json": json.dumps(entries[:5]).encode(),
        "labels/validation.json": json.dumps(entries[5:]).encode(),
    }
    put(tmp_path / "20bn-something-something-download-package-labels.zip", zip_of(lists))
    found, dataset = sources("ssv2", tmp_path)
    assert [(name, label) for name, label, _ in found["train"]] == [
        (str(n), f"Putting {'a' if n % 2 else 'b'}") for n in range(1, 6)
    ]
    assert len(found["val"]) == 3
    with ArchivedFiles().at_hand() as hand:
        for source in dataset.splits["val"]:
            here = hand.located(source)
            hand.read(here.path)
            assert here.path.read_bytes() == videos[f"20bn-something-something-v2/{source.id}.webm"]
    (tmp_path / "20bn-something-something-v2-01").unlink()
    with pytest.raises(DatasetError, match=r"20bn-something-something-v2-01 is missing, but later parts exist"):
        sources("ssv2", tmp_path)


def test_vggsound_as_it_is_packed(tmp_path):
    inside = "scratch/shared/beegfs/hchen/train_data/VGGSound_final/video"
    put(tmp_path / "vggsound_00.tar.gz", tar_of({f"{inside}/---g-f_I2yQ_000001.mp4": b"1"}, "w:gz"))
    put(tmp_path / "vggsound_01.tar.gz", tar_of({f"{inside}/--0PQM4-hqg_000030.mp4": b"2"}, "w:gz"))
    (tmp_path / "vggsound.csv").write_text(
        "---g-f_I2yQ,1,people marching,test\n--0PQM4-hqg,30,waterfall burbling,train\n"
    )
    assert sources("vggsound", tmp_path)[0] == {
        "train": [("--0PQM4-hqg_000030", "waterfall burbling", True)],
        "val": [("---g-f_I2yQ_000001", "people marching", True)],
    }


@pytest.mark.parametrize("form", ["train.tar", "train.tar.gz", "train.zip"])
def test_shards_of_archives_are_those_of_unpacked_files(tmp_path, form):
    unpacked, packed = tmp_path / "unpacked", tmp_path / "packed"
    for n, name in enumerate(("train/low/1.wav", "train/low/2.wav", "train/high/3.wav", "val/low/4.wav")):
        (unpacked / name).parent.mkdir(parents=True, exist_ok=True)
        write_sound(unpacked / name, wave(4800, seed=n), 16000, "pcm_s16le")
    files = {str(path.relative_to(unpacked)): path.read_bytes() for path in sorted((unpacked / "train").rglob("*.wav"))}
    packed.mkdir()
    shutil.copytree(unpacked / "val", packed / "val")
    archive = zip_of(files) if form.endswith(".zip") else tar_of(files, "w:gz" if form.endswith("gz") else "w")
    (packed / form).write_bytes(archive)
    made = partial(make_shards, "audio-folder", workers=0, samples_per_shard=2)
    made(unpacked, tmp_path / "a")
    made(packed, tmp_path / "b")
    tars = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.tar"))
    assert [str(tar) for tar in tars] == [
        "train/audio-folder-000000.tar",
        "train/audio-folder-000001.tar",
        "val/audio-folder-000000.tar",
    ]
    for tar in tars:
        assert (tmp_path / "a" / tar).read_bytes() == (tmp_path / "b" / tar).read_bytes()
    again = made(packed, tmp_path / "b")
    assert {split.state for split in again.splits.values()} == {"already finished"}
    (tmp_path / "b/train/audio-folder-000001.tar").unlink()
    assert made(packed, tmp_path / "b", repair=True).n_sources == 1  # the shard that is lost, and no other


def test_a_compressed_tar_is_read_whole_once(tmp_path, cache, monkeypatch):
    path = put(tmp_path / "a.tar.gz", tar_of({f"{n}.mp4": bytes([n]) * 1000 for n in range(5)}, "w:gz"))
    members = list_members(path)
    assert [member.name for member in members.values()] == [f"{n}.mp4" for n in range(5)]
    assert len(list((cache / "archives").glob("*.gzindex"))) == 1
    monkeypatch.setattr(Archive, "contents", lambda _: pytest.fail("it is listed again"))
    opened = OpenArchives()
    opened.copy(path, "3.mp4", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"\3" * 1000
    monkeypatch.undo()
    monkeypatch.setenv("MASKSTREAM_CACHE", str(cache))
    put(path, tar_of({"other.mp4": b"12"}, "w:gz"))
    os.utime(path, ns=(1, 1))
    with pytest.raises(OutageError, match=r"a\.tar\.gz no longer contains '3\.mp4'"):
        opened.copy(path, "3.mp4", None)
    opened.close()


def tar_with(path, **facts):
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo(facts.pop("name", "a.mp4"))
        for key, value in facts.items():
            setattr(info, key, value)
        tar.fileobj.write(info.tobuf())  # addfile wants the bytes, from Python 3.13 on
    return path


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"name": "../a.mp4"}, "may lie outside its folder"),
        ({"name": "/etc/a.mp4"}, "may lie outside its folder"),
        ({"name": "x\\a.mp4"}, "may lie outside its folder"),
        ({"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, "is a link or not a regular file"),
        ({"type": tarfile.LNKTYPE, "linkname": "b.mp4"}, "is a link or not a regular file"),
        ({"type": tarfile.FIFOTYPE}, "is a link or not a regular file"),
        ({"size": 1 << 37}, "declares 137438953472 bytes, but only 10240 bytes are left in the file"),
        ({"size": 10**6}, "is damaged, or not an archive"),
    ],
)
def test_hostile_tars_are_refused(tmp_path, facts, says):
    with pytest.raises(DatasetError, match=says):
        list_members(tar_with(tmp_path / "a.tar", **facts))


def test_hostile_and_damaged_archives_are_refused(tmp_path):
    good = put(tmp_path / "a.tar.gz", tar_of({"a.mp4": os.urandom(50_000)}, "w:gz")).read_bytes()
    flipped = bytearray(good)
    flipped[30_000] ^= 1
    for n, data in enumerate((good[:-20_000], good[:-4], bytes(flipped), b"no archive", gzip.compress(b"no tar"))):
        (tmp_path / f"{n}.tgz").write_bytes(data)
        with pytest.raises(DatasetError, match=rf"{n}\.tgz is damaged, or not an archive .*; download it again"):
            list_members(tmp_path / f"{n}.tgz")
    path = put(tmp_path / "a.zip", zip_of({"../a.mp4": b"1"}))
    with pytest.raises(DatasetError, match="may lie outside"):
        list_members(path)
    data = bytearray(put(path, zip_of({"a.mp4": os.urandom(5000)})).read_bytes())
    data[2500] ^= 1
    path.write_bytes(data)
    with (
        closing(OpenArchives()) as archives,
        pytest.raises(DamagedFileError, match=r"is damaged in a\.zip \(Bad CRC-32"),
    ):
        archives.copy(path, "a.mp4", None)
    says = r"does not contain 'a\.mp4' as listed"
    with closing(Archive(tmp_path / "a.tar.gz")) as archive, pytest.raises(OutageError, match=says):
        archive.copy(ArchiveMember("a.mp4", 60_000_000, 0, 512), None)


def test_members_of_the_same_name(tmp_path):
    """The last of a tar counts, as where it is unpacked; what is unpacked counts more; other sizes are refused."""
    twice = tmp_path / "train.tar"
    newer = {"train/a/1.wav": b"newer", "train/b/2.wav": b"2", "._hidden.wav": b"", "__MACOSX/x.wav": b""}
    put(twice, tar_of([("train/a/1.wav", b"old"), *newer.items()]))
    assert {name: member.size_bytes for name, member in list_members(twice).items()} == {
        "train/a/1.wav": 5,
        "train/b/2.wav": 1,
    }
    (tmp_path / "train/b").mkdir(parents=True)
    (tmp_path / "train/b/2.wav").write_bytes(b"2")
    assert sources("audio-folder", tmp_path)[0] == {
        "train": [("train/a/1.wav", "a", True), ("train/b/2.wav", "b", False)]
    }
    (tmp_path / "train/b/2.wav").write_bytes(b"another")
    with pytest.raises(DatasetError, match=r"train\.tar!/train/b/2\.wav and a file that is unpacked have the same"):
        sources("audio-folder", tmp_path)


def test_data_that_are_unpacked_elsewhere_are_doubtful(tmp_path):
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        (tmp_path / label / f"{label}.wav").write_bytes(label.encode())
    put(tmp_path / "all.tar.gz", tar_of({"all/a/a.wav": b"a", "all/b/b.wav": b"b"}, "w:gz"))
    with pytest.raises(DatasetError, match=r"a/a\.wav exists both unpacked and in .*all\.tar\.gz!/all/a/a\.wav"):
        make_shards("audio-folder", tmp_path, tmp_path / "out", workers=0)


def test_archives_are_found_behind_links_and_once(tmp_path):
    put(tmp_path / "far/part_0.tar", tar_of({"a.wav": b"1"}))
    put(tmp_path / "raw/train/x/part_1.tgz", tar_of({"b.wav": b"1"}, "w:gz"))
    put(tmp_path / "raw/.hidden/part_2.tar", tar_of({"c.wav": b"1"}))
    (tmp_path / "raw/train/deep").mkdir()
    for name in ("set-00", "set-01", "notes-10", "readme.gz"):
        (tmp_path / "raw/train/deep" / name).touch()
    (tmp_path / "raw/linked").symlink_to(tmp_path / "far")
    (tmp_path / "raw/again").symlink_to(tmp_path / "far")
    (tmp_path / "raw/train/round").symlink_to(tmp_path / "raw")
    found, has_rows = find_archives(tmp_path / "raw")
    names = ["again/part_0.tar", "train/deep/set-00", "train/x/part_1.tgz"]
    assert ([path.relative_to(tmp_path / "raw").as_posix() for path in found], has_rows) == (names, False)
    (tmp_path / "raw/train/x/t.parquet").touch()
    assert find_archives(tmp_path / "raw") == (found, True)
    assert find_archives(tmp_path / "none") == ((), False)


def test_archives_in_which_there_is_nothing_are_named(tmp_path):
    for name in "abcd":
        put(tmp_path / f"{name}.tar", tar_of({"notes.txt" if name < "c" else f"{name}.txt": b"x"}))
    with open_raw_tree(tmp_path) as tree, pytest.raises(DatasetError) as told:
        find_dataset(tree, DATASETS["image-folder"])
    assert f"{tmp_path} contains no image" in str(told.value)
    assert str(told.value).endswith("(a.tar, b.tar, c.tar, ... count as unpacked)")
