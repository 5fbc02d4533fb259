"""What lists, archives and descriptions name: a source lies below ROOT, a file that is written below OUT, and nothing
is deleted that a job did not make.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskstream.preprocess import make_shards
from maskstream.preprocess.datasets import DATASETS, Dataset
from maskstream.preprocess.encode.image.encoder import ImageEncoder
from maskstream.preprocess.job.shards import find_dataset
from maskstream.preprocess.raw.tree import ArchivedFiles, open_raw_tree
from maskstream.preprocess.source import Source
from maskstream.preprocess.versions import append
from maskstream.shards.checksummed import add_checksum
from maskstream.shards.errors import DatasetError, ShardError, StoreError
from maskstream.shards.format.dataset import read_dataset_json
from maskstream.shards.reach import Reach, is_inside, is_split_name
from maskstream.shards.stores.output import LocalOutput

from ...web_server import serving
from ..job.picture_job import run
from ..raw_files import put, tar_of
from ..versions.small_splits import written

pytestmark = pytest.mark.usefixtures("cache")

PICTURE = cv2.imencode(".png", np.arange(3072, dtype=np.uint8).reshape(32, 32, 3))[1].tobytes()


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("mark", ["x.parquet!", "b.tar!"])
@pytest.mark.parametrize("up", [3, 30])
def test_an_archive_deletes_no_file_outside(tmp_path: Path, mark: str, up: int) -> None:
    root, home = tmp_path / "raw", tmp_path / "home"
    for folder in (root, home):
        folder.mkdir()
    (home / "thesis.png").write_bytes(PICTURE)
    put(root / "b.tar", tar_of({"other.png": PICTURE}))
    row = f"{mark}/{'../' * up}{home}/thesis.png"
    members = {"good.png": PICTURE, f"{mark}/q.png": PICTURE, "list.csv": f"path,label\ngood.png,x\n{row},x\n".encode()}
    put(root / "a.tar", tar_of(members))
    before = snapshot(home)
    with pytest.raises(DatasetError, match=r"1 source files are not below|cannot be used, and 1 of them are"):
        run(root, tmp_path / "out", max_rejects=0)
    assert snapshot(home) == before


def test_a_task_deletes_only_what_it_made(tmp_path: Path) -> None:
    victim = tmp_path / "thesis.doc"
    victim.write_text("precious")
    put(tmp_path / "a.tar", tar_of({"good.png": PICTURE}))
    hostile = Source(id="h", path=Path(f"{tmp_path}/a.tar!/{'../' * 30}{str(victim)[1:]}"))
    plain = Source(id="p", path=victim)
    with ArchivedFiles().at_hand() as hand:
        with pytest.raises(DatasetError, match="points outside the raw data"):
            hand.located(hostile)
        assert hand.release(hand.located(plain), None) == ()
    assert victim.read_text() == "precious"


def write_list(root: Path, dataset: str, path: str) -> None:
    if dataset == "image-folder":
        (root / "list.csv").write_text(f"path,label\ngood.png,x\n{path}.png,y\n")
    elif dataset == "video-list":
        (root / "train.csv").write_text(f"good.mp4 0\n{path}.mp4 1\n")
    elif dataset == "audio-json":
        (root / "class_labels_indices.csv").write_text("index,mid,display_name\n0,/m/a,a\n1,/m/b,b\n")
        rows = [{"wav": "good.wav", "labels": "/m/a"}, {"wav": f"{path}.wav", "labels": "/m/b"}]
        (root / "train.json").write_text(json.dumps({"data": rows}))
    else:
        write_refs(root, path)


def write_refs(root: Path, path: str, split: str = "train") -> None:
    (root / "train2014").mkdir(exist_ok=True)
    (root / "train2014" / "good.jpg").write_bytes(PICTURE)
    images = [{"id": 1, "file_name": "good.jpg"}, {"id": 2, "file_name": f"{path}.jpg"}]
    shapes = [{"id": n, "bbox": [1, 1, 5, 5], "segmentation": [[1, 1, 5, 1, 5, 5]]} for n in (1, 2)]
    listed = {"images": images, "annotations": shapes, "categories": [{"id": 1, "name": "x"}]}
    (root / "instances.json").write_text(json.dumps(listed))
    ref = {"category_id": 1, "split": split, "sentences": [{"sent": "the dog"}]}
    (root / "refs.json").write_text(json.dumps([{"ref_id": n, "ann_id": n, "image_id": n, **ref} for n in (1, 2)]))


@pytest.mark.parametrize("dataset", ["image-folder", "video-list", "audio-json", "refcoco"])
@pytest.mark.parametrize("form", ["up", "absolute", "link", "folder"])
def test_lists_and_links_lead_out_only_if_this_is_meant(tmp_path: Path, dataset: str, form: str) -> None:
    root, outside = tmp_path / "raw", tmp_path / "outside"
    for folder in (root, outside):
        folder.mkdir()
        for name in ("good.png", "good.mp4", "good.wav", "secret.png", "secret.mp4", "secret.wav", "secret.jpg"):
            if folder == outside or name.startswith("good"):
                (folder / name).write_bytes(PICTURE)
    base = root / "train2014" if dataset == "refcoco" else root
    base.mkdir(exist_ok=True)
    path = {"up": "../../outside/secret" if dataset == "refcoco" else "../outside/secret", "link": "linked"}.get(
        form, str(outside / "secret") if form == "absolute" else "there/secret"
    )
    for suffix in ("png", "mp4", "wav", "jpg") if form == "link" else ():
        (base / f"linked.{suffix}").symlink_to(outside / f"secret.{suffix}")
    if form == "folder":
        (base / "there").symlink_to(outside)
    write_list(root, dataset, path)
    with (
        open_raw_tree(root) as tree,
        pytest.raises(DatasetError, match=r"1 source files are not below .*--outside"),
    ):
        find_dataset(tree, DATASETS[dataset])
    with open_raw_tree(root, outside_root=True) as tree:
        assert sum(map(len, find_dataset(tree, DATASETS[dataset]).splits.values())) == 2


def test_absolute_paths_and_links_below_root_are_legal(tmp_path: Path) -> None:
    real, root = tmp_path / "real", tmp_path / "root"
    (real / "deep").mkdir(parents=True)
    root.symlink_to(real)
    for name in ("deep/a.mp4", "deep/b.mp4"):
        (real / name).write_bytes(PICTURE)
    (real / "c.mp4").symlink_to(real / "deep" / "a.mp4")
    for folder in (root, real):
        lines = f"{folder}/deep/a.mp4 0\n{real}/deep/b.mp4 1\ndeep/../c.mp4 1\n"
        (real / "train.csv").write_text(lines)
        with open_raw_tree(root) as tree:
            assert len(find_dataset(tree, DATASETS["video-list"]).splits["train"]) == 3


def test_a_list_in_an_archive_names_what_is_below_root(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    root.mkdir()
    (tmp_path / "out.png").write_bytes(PICTURE)
    (root / "plain.png").write_bytes(PICTURE)
    for row, legal in ((f"{root}/plain.png", True), (f"{tmp_path}/out.png", False)):
        put(root / "a.tar", tar_of({"good.png": PICTURE, "list.csv": f"path,label\ngood.png,x\n{row},x\n".encode()}))
        with open_raw_tree(root) as tree:
            if legal:
                assert len(find_dataset(tree, DATASETS["image-folder"]).splits["train"]) == 2
            else:
                with pytest.raises(DatasetError, match="not below"):
                    find_dataset(tree, DATASETS["image-folder"])


def test_a_name_that_no_file_can_have_is_missing(tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(PICTURE)
    (tmp_path / "list.csv").write_text(f"path,label\ngood.png,x\n{'x' * 300}.png,x\n")
    with open_raw_tree(tmp_path) as tree:
        (reject,) = find_dataset(tree, DATASETS["image-folder"]).missing["train"]
    assert reject.source == f"{'x' * 300}.png"


def test_a_url_has_no_outside(tmp_path: Path) -> None:
    (tmp_path / "files.txt").write_text("")
    with (
        serving(tmp_path) as server,
        pytest.raises(ValueError, match="leave out --outside-root"),
        open_raw_tree(server.url, outside_root=True),
    ):
        pass


@pytest.mark.parametrize("split", ["../../../ESCAPED", "/tmp/x", "..", ".", "", "a/b", ".records", "a\nb", "x" * 201])
def test_the_name_of_a_split_is_that_of_one_folder(tmp_path: Path, split: str) -> None:
    (tmp_path / "raw").mkdir()
    write_refs(tmp_path / "raw", "good", split)
    with pytest.raises(DatasetError, match=r"has a split named .*: use a printable name"):
        make_shards("refcoco", tmp_path / "raw", tmp_path / "deep/out", workers=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]
    with pytest.raises(DatasetError, match="has a dataset named"):
        Dataset(name=split, label_names=(), splits={}, encoder=ImageEncoder())


@pytest.mark.parametrize("what", ["dataset", "split", "rejects"])
def test_a_description_names_files_in_its_folder(tmp_path: Path, what: str) -> None:
    ours, theirs = written(tmp_path / "a", 0), written(tmp_path / "b", 100)
    info = read_dataset_json(ours)
    info.pop("xxh3_128", None)
    for name in ("dataset.json", "versions/1.json"):
        (ours / name).write_bytes(add_checksum(info | {what: "../../ESC"}))
    before = snapshot(tmp_path)
    with pytest.raises(ShardError, match=rf"{what} is '../../ESC', but it is used in file names|are not valid in"):
        append(ours, theirs)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/../../x", "..", ""])
def test_an_output_writes_and_deletes_below_its_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "x").write_text("precious")
    (tmp_path / "out").mkdir()
    output = LocalOutput(tmp_path / "out")
    for act in (
        lambda: output.publish(name, b"1"),
        lambda: output.create(name, b"1"),
        lambda: output.remove([name]),
    ):
        with pytest.raises(StoreError, match="leads outside"):
            act()
    assert (tmp_path / "x").read_text() == "precious"
    assert not is_inside(name)


def test_reach_resolves_links_and_remembers_folders(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "deep").mkdir(parents=True)
    (tmp_path / "rooted").mkdir()
    (root / "up").symlink_to("..")
    reach = Reach(root)
    inside = ("a", "deep/b", "deep/../c", "up/root/deep/x", "none/there")
    outside = ("../rooted/a", "up/a", "deep/../../x", "/etc/passwd", "..", "a\0b")
    assert [name for name in inside if not reach.has(root / name)] == []
    assert [name for name in outside if reach.has(root / name)] == []
    assert not is_split_name("ü" * 101)
    assert is_split_name("ü 1")
