"""What is measured is what was drawn, copies are found and nothing else, and a version without the rest is made."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from maskstream.cli import app
from maskstream.pipelines import image_loader
from maskstream.preprocess.curate import SIGNALS, Curated, curate, measure
from maskstream.preprocess.curate import copies as copying
from maskstream.preprocess.curate import measures as measuring
from maskstream.preprocess.curate.copies import _grouped, alike, find_copies, find_leaks, match_frames
from maskstream.preprocess.curate.kept import write_kept
from maskstream.preprocess.curate.measures import Measures
from maskstream.preprocess.curate.rules import Rule
from maskstream.preprocess.encode.video.video import PROFILES, encode_video
from maskstream.preprocess.versions import append, divide, erase, merge, remove
from maskstream.shards.errors import BusyError, MaskstreamError
from maskstream.shards.format.dataset import finish_split
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.sample import DatasetInfo, Sample
from maskstream.shards.format.writer import write_shard
from maskstream.shards.members.image import make_image_member
from maskstream.shards.members.video import video_member
from maskstream.shards.progress import Progress

from ...pipelines.every_modality import write_split
from ...splits import write_samples
from ...videos import write_frames

UInt8s = npt.NDArray[np.uint8]


def scene(seed: int, height: int = 180, width: int = 240) -> UInt8s:
    """A picture of soft and hard shapes, uint8 (H, W, 3), another for each seed."""
    rng = np.random.default_rng(seed)
    made = np.zeros((height, width, 3), np.float32)
    for cells, strength in ((3, 90), (7, 50), (17, 30), (60, 12)):
        noise = rng.normal(0, strength, (cells, cells, 3)).astype(np.float32)
        made += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(4):
        x, y = (int(rng.integers(0, side)) for side in (width, height))
        cv2.circle(made, (x, y), int(rng.integers(12, 50)), rng.uniform(-90, 90, 3).tolist(), -1)
    return np.clip(made + 128, 0, 255).astype(np.uint8)


def jpeg(pixels: UInt8s, quality: int = 92) -> bytes:
    return bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1])


def write_images(out: Path, pictures: Sequence[tuple[str, bytes, tuple[int, int]]]) -> Path:
    samples = [
        Sample(key=key, members={"jpg": make_image_member(data, width, height)}, source=key)
        for key, data, (height, width) in pictures
    ]
    out.mkdir(parents=True)
    parts = [samples[first : first + 10] for first in range(0, len(samples), 10)]
    records = [write_shard(out / f"t-{at:06d}.tar", some) for at, some in enumerate(parts)]
    info = DatasetInfo(dataset="t", split="train", modality="image", profile="image", label_names=(), settings={})
    finish_split(out, info, records, [])
    return out


def pictures_of(folder: Path, made: dict[str, UInt8s], quality: int = 92) -> Path:
    return write_images(folder, [(key, jpeg(one, quality), one.shape[:2]) for key, one in made.items()])


def with_logo(picture: UInt8s) -> UInt8s:
    made = picture.copy()
    made[8:28, -60:-10] = 255
    return made


COPIES = {
    "coded again": lambda one: cv2.imdecode(np.frombuffer(jpeg(one, 25), np.uint8), cv2.IMREAD_COLOR),
    "scaled": lambda one: cv2.resize(one, (107, 80), interpolation=cv2.INTER_AREA),
    "cropped": lambda one: one[9:-9, 12:-12],
    "brighter": lambda one: np.clip(one.astype(np.float32) * 1.15 + 8, 0, 255).astype(np.uint8),
    "with a logo": with_logo,
}


@pytest.mark.parametrize("change", list(COPIES))
def test_changed_copies_are_found_and_nothing_else(tmp_path: Path, change: str) -> None:
    scenes = [scene(seed) for seed in range(60)]
    made = {f"a{n}": one for n, one in enumerate(scenes)} | {
        f"b{n}": np.ascontiguousarray(COPIES[change](one)) for n, one in enumerate(scenes[:40])
    }
    pairs = alike(*2 * [measure(pictures_of(tmp_path / "split", made))]).tolist()
    assert pairs == [[n, 60 + n] for n in range(40)]


def test_faint_pictures_with_a_logo_are_copies_of_their_own_and_skies_of_none(tmp_path: Path) -> None:
    def with_word(picture: UInt8s) -> UInt8s:
        return np.asarray(cv2.putText(picture.copy(), "LOGO", (168, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.8, [255] * 3, 2))

    faint = [(0.13 * (scene(seed).astype(np.float32) - 128) + 90).astype(np.uint8) for seed in range(20)]
    rise = np.linspace(60, 140, 180)[:, None, None] + np.linspace(0, 8, 240)[None, :, None]
    skies = [rise + np.random.default_rng(seed).normal(0, 3, (180, 240, 3)) for seed in range(5)]
    made = {f"a{n:02d}": one for n, one in enumerate([*faint, *(sky.astype(np.uint8) for sky in skies)])}
    made |= {f"b{n:02d}": with_word(one) for n, one in enumerate(faint)}
    assert alike(*2 * [measure(pictures_of(tmp_path / "split", made))]).tolist() == [[n, 25 + n] for n in range(20)]


def test_mirrored_copies_are_found_when_asked_for(tmp_path: Path) -> None:
    scenes = [scene(seed) for seed in range(40)]
    one = measure(pictures_of(tmp_path / "one", {f"a{n}": s for n, s in enumerate(scenes)}))
    other = measure(pictures_of(tmp_path / "other", {f"a{n}": s[:, ::-1] for n, s in enumerate(scenes[:30])}))
    assert len(alike(one, other)) == 0
    assert alike(one, other, mirrored=True).tolist() == [[n, n] for n in range(30)]


def film(frames: Sequence[UInt8s], path: Path, crf: int = 23) -> Path:
    return write_frames(path, frames, form="bgr24", options={"crf": str(crf), "preset": "veryfast"})


def moving(seed: int, speed: float = 1.0, frames: int = 90) -> list[UInt8s]:
    """A camera that turns by `speed` pixels a frame."""
    whole = scene(seed, 240, 480)
    at = [round(n * speed) for n in range(frames)]
    return [whole[x // 2 : x // 2 + 128, x : x + 192] for x in at]


def clips_of(folder: Path, made: dict[str, tuple[list[UInt8s], int]]) -> Path:
    folder.mkdir()
    samples = []
    for key, (frames, crf) in made.items():
        video = encode_video(film(frames, folder.with_name("raw.mp4"), crf), PROFILES["train"])
        samples.append(Sample(key=key, members={"mp4": video_member(video.data, video.index)}, source=key))
    return write_samples(folder, samples, "video")


def test_clips_are_measured_and_their_copies_found(tmp_path: Path) -> None:
    frames = [moving(0), moving(1, 0.25), moving(2, 0.25), moving(3)]
    flat = [np.full((128, 192, 3), 5, np.uint8)] * 60
    made = {f"a{n}": (one, 20) for n, one in enumerate(frames)} | {
        "crf35": (frames[0], 35),
        "trimmed": (frames[1][25:], 23),
        "faster": ([one for n, one in enumerate(frames[2]) if n % 11], 23),
        "black": (flat, 23),
        "still": ([frames[3][0]] * 60, 23),
    }
    found = measure(clips_of(tmp_path / "clips", made))
    keys = found.manifest.keys(found.index)
    pairs = {(keys[a], keys[b]) for a, b in alike(found, found).tolist()}
    assert pairs == {("a0", "crf35"), ("a1", "trimmed"), ("a2", "faster")} | (pairs & {("a3", "still")})
    spans = {}
    for key, like in (("crf35", "a0"), ("trimmed", "a1")):
        match = match_frames(found, keys.index(key), found, keys.index(like))
        assert match is not None
        assert match.bits <= 48
        spans[key] = (match.ours_s, match.theirs_s)
    assert spans["crf35"][0] == pytest.approx(spans["crf35"][1], abs=0.4)
    assert spans["crf35"][0][1] > 2
    assert spans["trimmed"][1][1] - spans["trimmed"][0][1] == pytest.approx(25 / 30, abs=0.4)
    assert match_frames(found, keys.index("black"), found, 0) is None
    of = {key: {name: values[n] for name, values in found.signals.items()} for n, key in enumerate(keys)}
    assert (of["black"]["dark"], of["black"]["borders"], of["black"]["still"]) == (1, 1, 1)
    assert (of["still"]["still"], of["still"]["motion"] < 0.002, of["still"]["dark"]) == (1, True, 0)
    assert of["a0"]["still"] == 0
    assert of["a0"]["motion"] > 0.02
    assert of["a0"]["seconds"] == 3
    assert found.start[keys.index("black") + 1] == found.start[keys.index("black")]


def test_signals_are_what_was_drawn(tmp_path: Path) -> None:
    grey = np.full((100, 200, 3), 51, np.uint8)
    red = np.zeros((100, 200, 3), np.uint8)
    red[:, :, 2] = 200
    sharp = np.kron(np.indices((25, 50)).sum(0) % 2 * 255, np.ones((4, 4))).astype(np.uint8)[..., None].repeat(3, 2)
    boxed = np.zeros((100, 200, 3), np.uint8)
    boxed[20:-20] = 200
    pictures = {"grey": grey, "red": red, "sharp": sharp, "soft": cv2.GaussianBlur(sharp, (0, 0), 3), "boxed": boxed}
    found = measure(pictures_of(tmp_path / "split", pictures, quality=100))
    of = {key: {name: values[n] for name, values in found.signals.items()} for n, key in enumerate(pictures)}
    assert set(of["grey"]) == set(SIGNALS)
    assert of["grey"]["brightness"] == pytest.approx(0.2, abs=0.005)
    assert of["grey"]["entropy"] == 0
    assert of["grey"]["saturation"] == 0
    assert of["red"]["saturation"] == pytest.approx(1, abs=0.05)
    assert of["sharp"]["contrast"] == pytest.approx(0.5, abs=0.01)
    assert of["sharp"]["entropy"] == pytest.approx(1, abs=0.6)
    assert of["soft"]["sharpness"] < of["sharp"]["sharpness"] / 20
    assert of["boxed"]["borders"] == pytest.approx(0.4, abs=0.02)
    assert (of["grey"]["width"], of["grey"]["height"], of["grey"]["pixels"]) == (200, 100, 20_000)


@pytest.fixture(scope="module")
def twenty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty pictures: six soft ones, a pair of copies of which b is larger, one that is cut short."""
    made = {f"a{n:02d}": scene(n) for n in range(16)}
    for n in range(6):
        made[f"a{n:02d}"] = cv2.GaussianBlur(made[f"a{n:02d}"], (0, 0), 6).astype(np.uint8)
    made["b"] = cv2.resize(made["a10"], (480, 360)).astype(np.uint8)
    made["plain"] = scene(40)
    made["leaked"] = scene(41)
    samples = [(key, jpeg(one), one.shape[:2]) for key, one in made.items()]
    samples.append(("cut", jpeg(scene(42))[:2000], (180, 240)))
    return write_images(tmp_path_factory.mktemp("twenty") / "split", samples)


@pytest.fixture
def split(twenty: Path, tmp_path: Path) -> Path:
    return shutil.copytree(twenty, tmp_path / "split")


def test_what_does_not_stay_goes_as_a_version(split: Path, tmp_path: Path) -> None:
    exam = pictures_of(tmp_path / "exam", {"x": scene(50), "y": cv2.resize(scene(41), (120, 90)).astype(np.uint8)})
    loader = image_loader(split, batch_size=4, size=32, patch=8, seed=1, device="cpu", threads=1)
    batches = [batch.key for batch in loader]
    state = loader.state_dict()
    asked = {"keep": "sharpness>=p30", "copies": True, "against": [exam]}
    dry = curate(split, dry_run=True, **asked)  # type: ignore[arg-type]
    assert (dry.version, Manifest.load(split).version) == (None, 1)
    found = curate(split, **asked)  # type: ignore[arg-type]
    assert found.counts == dry.counts == {"rule": 6, "copy": 1, "leak": 1, "unreadable": 1}
    why = {found.measures.manifest.key(int(found.measures.index[one.place])): (one.why, one.of) for one in found.gone}
    assert why["a10"] == ("copy", "b")
    assert why["leaked"] == ("leak", f"y of {exam}")
    assert why["cut"][0] == "unreadable"
    assert {key for key, (reason, _) in why.items() if reason == "rule"} == {f"a0{n}" for n in range(6)}
    assert found.version == Manifest.load(split).version == 2
    manifest = Manifest.load(split)
    assert set(manifest.keys(manifest.removed)) == set(why)
    listed = pq.read_table(found.write_list(tmp_path / "list.parquet")).to_pydict()
    assert dict(zip(listed["key"], zip(listed["why"], listed["of"], strict=True), strict=True)) == why
    assert np.isnan(listed["sharpness"][listed["key"].index("cut")])
    again = curate(split, **asked | {"keep": "sharpness>0"})  # type: ignore[arg-type]
    assert (again.gone, again.version, len(again.measures)) == ((), None, 11)
    old = image_loader(split, batch_size=4, size=32, patch=8, seed=1, device="cpu", threads=1, version=1)
    assert [batch.key for batch in old] == batches
    for version, shown in ((2, False), (None, True)):
        new = image_loader(split, batch_size=4, size=32, patch=8, seed=1, device="cpu", threads=1, version=version)
        new.load_state_dict(state)
        assert bool({key for batch in new for key in batch.key} & set(why)) is shown


def test_what_was_measured_is_kept_for_each_shard(split: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = measure(split)
    files = sorted((split / ".measures").iterdir())
    assert len(files) == 2
    files[0].write_bytes(files[0].read_bytes()[:200])
    seen: list[int] = []
    real = measuring._of_sample
    monkeypatch.setattr(measuring, "_of_sample", lambda m, n, name: seen.append(n) or real(m, n, name))
    again = measure(split)
    assert len(seen) == 10
    for name in SIGNALS:
        np.testing.assert_array_equal(again.signals[name], first.signals[name])
    np.testing.assert_array_equal(again.whole, first.whole)
    assert Manifest.load(split).version == 1
    remove(split, ["a03"])
    assert len(measure(split)) == 19
    assert len(seen) == 10


def test_progress_may_be_a_function(split: Path) -> None:
    told: list[tuple[int, int]] = []
    curate(split, dry_run=True, progress=lambda done, of: told.append((done, of)))
    assert told == [(10, 20), (20, 20)]
    measure(split, progress=lambda done, of: told.append((done, of)))
    assert len(told) == 4


FORGED: dict[str, Callable[[list[dict[str, Any]]], object]] = {
    "times are cut": lambda rows: rows[0].update(times=b"123"),
    "frames are negative": lambda rows: rows[0].update(frames=-5),
    "frames are many": lambda rows: rows[0].update(frames=10**12),
    "frames are null": lambda rows: rows[0].update(frames=None),
    "frames are other": lambda rows: rows[0].update(frames=3),
    "hashes are cut": lambda rows: rows[0].update(whole=b"x" * 10),
    "windows are cut": lambda rows: rows[0].update(windows=b"x"),
    "times are not numbers": lambda rows: rows[0].update(times=np.array([np.nan] * rows[0]["frames"]).tobytes()),
    "no key": lambda rows: rows[0].update(key=None),
    "not a number": lambda rows: rows[0].update(sharpness=float("nan")),
    "too large": lambda rows: rows[0].update(sharpness=1e9),
    "too small": lambda rows: rows[0].update(motion=-0.1),
}


@pytest.mark.parametrize("is_signed", [False, True])
@pytest.mark.parametrize("change", [*FORGED, "legal"])
def test_measures_that_were_changed_are_measured_again(split: Path, change: str, is_signed: bool) -> None:
    first = measure(split)
    path = min((split / ".measures").iterdir())
    table = pq.read_table(path)
    rows = table.to_pylist()
    FORGED.get(change, lambda rows: rows[0].update(sharpness=1e-9))(rows)
    forged = pa.Table.from_pylist(rows, schema=table.schema)
    if is_signed:
        write_kept(forged, [path])
    else:
        pq.write_table(forged, path)
    again = measure(split)
    is_believed = change == "legal" and is_signed  # which no checksum can tell
    differ = ~np.isclose(again.signals["sharpness"], first.signals["sharpness"], equal_nan=True)
    assert differ.sum() == is_believed
    np.testing.assert_array_equal(again.whole, first.whole)


def test_measures_of_another_shard_and_without_a_checksum_are_measured_again(
    split: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure(split)
    one, other = sorted((split / ".measures").iterdir())
    before = one.read_bytes()
    seen: list[int] = []
    real = measuring._of_sample
    monkeypatch.setattr(measuring, "_of_sample", lambda m, n, name: seen.append(n) or real(m, n, name))
    for data in (other.read_bytes(), b"", None):
        if data is None:
            pq.write_table(pq.read_table(one).replace_schema_metadata(None), one)
        else:
            one.write_bytes(data)
        measure(split)
        assert (len(seen), one.read_bytes()) == (10, before)
        seen.clear()


def test_measures_of_a_split_that_cannot_be_written_are_in_the_cache(
    split: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKSTREAM_CACHE", str(tmp_path / "cache"))
    real = Path.mkdir

    def read_only(path: Path, *words: Any, **options: Any) -> None:
        if path.parent == split:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        real(path, *words, **options)

    monkeypatch.setattr(Path, "mkdir", read_only)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != split)
    found = curate(split, keep="sharpness>=p30", dry_run=True)
    assert not (split / ".measures").exists()
    kept = sorted((tmp_path / "cache" / "measures").iterdir())
    assert (len(kept), kept[0].parent.stat().st_mode & 0o777) == (2, 0o700)
    monkeypatch.setattr(measuring, "_of_sample", None)
    assert curate(split, keep="sharpness>=p30", dry_run=True).counts == found.counts
    erase(split, ["a03"])
    assert list(kept[0].parent.iterdir()) == []


def test_an_erasure_forgets_what_was_measured(split: Path) -> None:
    held_out = Path(divide(split, 0.3).held_out)
    measure(split)
    measure(held_out)
    assert list((split / ".measures").iterdir())
    assert not (held_out / ".measures").exists()
    erase(split, [Manifest.load(held_out).key(0)])
    assert not (split / ".measures").exists()
    assert len(measure(split)) + len(measure(held_out)) == 19


def test_rules_are_conditions_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    signals = {name: rng.uniform(0, 1, 200) for name in SIGNALS}
    signals["motion"][:3] = np.nan
    text = "motion>0.2 and not (blur_is<0.5 or 0.1<=brightness<p70)".replace("blur_is", "sharpness")
    stays, failed = Rule(text).apply(signals)
    p70 = np.percentile(signals["brightness"], 70)
    wanted = [
        m > 0.2 and not (s < 0.5 or 0.1 <= b < p70)
        for m, s, b in zip(signals["motion"], signals["sharpness"], signals["brightness"], strict=True)
    ]
    assert stays.tolist() == wanted
    assert failed["motion > 0.2"] == sum(not m > 0.2 for m in signals["motion"])
    assert [name for name, _ in Rule(text).list_thresholds(signals)] == [
        "motion",
        "sharpness",
        "brightness",
        "brightness",
    ]
    assert Rule("seconds > -1").apply(signals)[0].all()
    with pytest.raises(ValueError, match="which is too large for a float64"):
        Rule(f"seconds > {10**400}")


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("moton>0.2", r"has 'moton', which is not a signal, did you mean 'motion'\?"),
        ("motion", "has 'motion', which is not a comparison"),
        ("motion==1", "uses an operator other than"),
        ("motion>sharpness", "may only compare a signal with a number"),
        ("0<1", "may only compare a signal with a number"),
        ("__import__('os').system('x')>motion", "which is neither a signal nor a number"),
        ("motion>0.2 and", "cannot be parsed"),
        ("motion>'a'", "which is neither a signal nor a number"),
        ("(" * 500 + "motion>1" + ")" * 500, "cannot be parsed"),
    ],
)
def test_other_rules_are_refused(split: Path, rule: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        curate(split, keep=rule)
    assert not (split / ".measures").exists()


def test_a_split_is_never_emptied(split: Path) -> None:
    with pytest.raises(MaskstreamError, match=r"none of the 20 samples .* would remain, so nothing was changed"):
        curate(split, keep="width>10000")
    with pytest.raises(ValueError, match="best='pixel' is not a signal, did you mean 'pixels'"):
        curate(split, copies=True, best="pixel")
    assert Manifest.load(split).version == 1


def test_the_page_shows_what_goes(split: Path, tmp_path: Path) -> None:
    exam = pictures_of(tmp_path / "exam", {"y": cv2.resize(scene(41), (120, 90)).astype(np.uint8)})
    out = tmp_path / "page.html"
    words = ["curate", str(split), "--keep", "sharpness>=p30", "--copies", "--against", str(exam)]
    done = CliRunner().invoke(app, [*words, "--dry-run", "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.output)
    assert (told["samples"], told["stay"], told["version"]) == (20, 11, None)
    page = out.read_text()
    for title in ("Around sharpness", "Copies", "Leaks"):
        assert title in page
    assert pq.read_table(told["list"]).num_rows == 9
    plain = CliRunner().invoke(app, [*words, "--out", str(out)])
    assert "20 samples stay" in plain.output
    assert "version 2 excludes them" in plain.output
    nothing = CliRunner().invoke(app, ["curate", str(split)])
    assert nothing.exit_code == 2


def fails_at_the_end(found: Curated) -> AbstractContextManager[None]:
    """What is left to write fails when the version is there."""

    @contextmanager
    def writing() -> Iterator[None]:
        yield
        raise OSError("pulled out")

    return writing()


def fails_at_once(found: Curated) -> AbstractContextManager[None]:
    raise OSError("no room")


def test_the_same_curation_again_finds_its_version(split: Path) -> None:
    rule = {"keep": "sharpness>=p30", "copies": True}
    with pytest.raises(OSError, match="no room"):
        curate(split, **rule, writing=fails_at_once)  # type: ignore[arg-type]
    assert Manifest.load(split).version == 1
    with pytest.raises(OSError, match="pulled out"):
        curate(split, **rule, writing=fails_at_the_end)  # type: ignore[arg-type]
    assert Manifest.load(split).version == 2
    first = curate(split, **rule)  # type: ignore[arg-type]
    assert (first.version, first.repeated, first.measures.manifest.version) == (2, True, 1)
    gone = {*Manifest.load(split).keys(Manifest.load(split).removed)}
    assert {first.measures.manifest.key(int(first.measures.index[one.place])) for one in first.gone} == gone
    remove(split, [key := next(key for key in Manifest.load(split).keys(range(20)) if key not in gone)])
    for dry_run in (True, False):
        again = curate(split, **rule, dry_run=dry_run)  # type: ignore[arg-type]
        assert (again.version, again.repeated, again.counts) == (2, True, first.counts)
    other = curate(split, keep="sharpness>=p31", copies=True)
    assert (other.version, other.repeated) == (4, False)
    assert curate(split, **rule).version == 2  # type: ignore[arg-type]
    assert Manifest.load(split).version == 4
    erase(split, [key])
    erased = curate(split, **rule)  # type: ignore[arg-type]
    assert (erased.version, Manifest.load(split).version) == (2, 5)
    left_out = Manifest.load(split, version=2)
    assert {one.place for one in erased.gone} <= {*np.flatnonzero(np.isin(erased.measures.index, left_out.removed))}
    records = Manifest.load(split).info["curations"]
    assert [(one["began"], one["made"], one["asked"]["keep"]) for one in records] == [
        (1, 2, "sharpness>=p30"),
        (3, 4, "sharpness>=p31"),
    ]


def test_after_new_samples_the_same_curation_begins_with_these(split: Path, tmp_path: Path) -> None:
    assert curate(split, keep="sharpness>=p30").version == 2
    append(split, pictures_of(tmp_path / "more", {f"c{n}": scene(60 + n) for n in range(6)}))
    again = curate(split, keep="sharpness>=p30")
    assert (again.version, again.repeated, again.measures.manifest.version) == (4, False, 3)
    assert curate(split, keep="sharpness>=p30").repeated


@pytest.mark.parametrize("join", [append, lambda ours, more: merge(ours, [ours.parent / "first", more])])
@pytest.mark.parametrize("is_curated", [False, True])
def test_a_curation_of_a_split_that_grew_takes_its_share_once(
    split: Path, tmp_path: Path, is_curated: bool, join: Callable[[Path, Path], object]
) -> None:
    more = pictures_of(tmp_path / "more", {f"c{n}": scene(60 + n) for n in range(12)})
    append(whole := shutil.copytree(split, tmp_path / "whole"), more)
    curate(whole, keep="sharpness>=p30")
    at_once = {*Manifest.load(whole).removed.tolist()}
    if join is append:
        curate(split, keep="sharpness>=p30")
    else:
        curate(shutil.copytree(split, tmp_path / "first"), keep="sharpness>=p30")
        shutil.rmtree(split)
    if is_curated:
        curate(more, keep="sharpness>=p30")
    join(split, more)
    places = [one["of"] for one in Manifest.load(split).info["curations"] if "of" in one]
    assert places == ["../first"] * (join is not append) + ["../more"] * is_curated
    before = {*Manifest.load(split).removed.tolist()}
    assert before - at_once or not is_curated
    made = curate(split, keep="sharpness>=p30")
    assert {*Manifest.load(split).removed.tolist()} == before | at_once
    assert {*made.measures.index[[one.place for one in made.gone]].tolist()} == at_once - before
    version = Manifest.load(split).version
    assert curate(split, keep="sharpness>=p30").repeated == bool(at_once - before)
    assert Manifest.load(split).version == version


def test_a_merged_split_keeps_the_records_of_curations(split: Path, tmp_path: Path) -> None:
    more, out = pictures_of(tmp_path / "more", {f"c{n}": scene(60 + n) for n in range(6)}), tmp_path / "out"
    first = curate(split, keep="sharpness>=p30")
    merge(out, [split, more])
    (record,) = Manifest.load(split).info["curations"]
    assert Manifest.load(out).info["curations"] == [record | {"of": "../split"}]
    made = curate(out, keep="sharpness>=p30")
    assert (made.repeated, made.version) == (False, 2)
    left = {*Manifest.load(out).removed.tolist()}
    assert len(left) > len(first.gone)
    erase(more, ["c1"])  # which makes versions 1 and 2 unreadable
    merge(out, [split, more])
    again = curate(out, keep="sharpness>=p30")
    assert (again.repeated, again.version, Manifest.load(out).version) == (True, 2, 3)
    assert {*Manifest.load(out).removed.tolist()} == left | {21}
    assert {*again.measures.index[[one.place for one in again.gone]].tolist()} <= left
    assert [one.get("of") for one in Manifest.load(out).info["curations"]] == [None, "../split"]
    divide(split, 0.5, out=tmp_path / "held")
    curate(tmp_path / "held", keep="sharpness>=p30")
    records = Manifest.load(tmp_path / "held").info["curations"]
    erase(split, [Manifest.load(split).key(0)])
    assert Manifest.load(tmp_path / "held").info["curations"] == records


def test_a_split_that_changes_meanwhile_is_left_alone(split: Path) -> None:
    class Removes(Progress):
        def advance(self, units: float) -> None:
            remove(split, ["a03"])

    with pytest.raises(BusyError, match=r"got version 2 while version 1 was curated, so nothing was removed"):
        curate(split, keep="sharpness>=p30", progress=Removes())
    assert len(Manifest.load(split).removed) == 1


def test_more_than_half_goes_only_if_it_is_allowed(split: Path) -> None:
    said = r"13 of 20 samples of .* max_removed=0\.5 allows: 1 are unreadable, 12 do not meet 'sharpness>=p65'.*0\.65"
    with pytest.raises(MaskstreamError, match=said):
        curate(split, keep="sharpness>=p65")
    assert Manifest.load(split).version == 1
    assert len(curate(split, keep="sharpness>=p65", dry_run=True).gone) == 13
    assert curate(split, keep="sharpness>=p65", max_removed=0.65).version == 2
    assert curate(split, keep="sharpness>=p65").repeated
    with pytest.raises(ValueError, match="max_removed must be a number from 0 to 1, got 2"):
        curate(split, keep="sharpness>=p65", max_removed=2)


def test_nothing_of_others_is_overwritten(split: Path, tmp_path: Path) -> None:
    keys = Manifest.load(split).keys(range(20))
    table = write_table(tmp_path / "train.parquet", {"key": keys, "score": [1.0] * 20})
    page = tmp_path / "page.html"
    page.write_text("<p>mine</p>")
    before = table.read_bytes()
    for out, said in (
        ("train.html", "is not a curation list"),
        ("page.html", "was not written by maskstream"),
        ("other.parquet", "is the name of the page's list"),
        ("train.parquet/a.html", "cannot be overwritten"),
    ):
        words = ["curate", str(split), "--keep", "score>0.5", "--scores", str(table), "--out", str(tmp_path / out)]
        done = CliRunner().invoke(app, words)
        assert isinstance(done.exception, ValueError)
        assert said in str(done.exception)
    assert (table.read_bytes(), page.read_text(), Manifest.load(split).version) == (before, "<p>mine</p>", 1)
    assert not (split / ".measures").exists()


def test_splits_of_other_media_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"only images, clips, audio and texts can be measured; .*: no component is .*; the split contains",
    ):
        measure(write_split("pose", tmp_path))


def test_a_copy_of_a_copy_stays() -> None:
    pairs = np.array([[0, 1], [1, 2], [2, 3], [5, 6], [6, 7], [5, 7]])
    best_first = np.array([5, 6, 7, 1, 2, 0, 3, 4])
    assert _grouped(pairs, best_first) == {1: [0, 2], 5: [6, 7]}
    assert _grouped(pairs[:0], best_first) == _grouped(pairs[:0], best_first[:0]) == {}


def write_table(path: Path, columns: dict[str, object]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_scores_of_a_table_and_what_was_written_are_signals(split: Path, tmp_path: Path) -> None:
    keys = Manifest.load(split).keys(range(20))
    known = [key for key in keys if key != "cut"]
    score = {key: n / 10 for n, key in enumerate(known)}
    table = write_table(tmp_path / "scores.parquet", {"key": known, "clip_score": [score[key] for key in known]})
    found = curate(split, keep="clip_score>=0.45", scores=table, dry_run=True)
    gone = {keys[one.place]: one.why for one in found.gone}
    assert gone == {**{key: "rule" for key in known if score[key] < 0.45}, "cut": "unreadable"}
    shared = curate(split, copies=True, best="clip_score", scores=table, dry_run=True)
    assert {keys[one.place]: one.of for one in shared.gone if one.why == "copy"} == {"a10": "b"}
    assert "clip_score" in pq.read_schema(found.write_list(tmp_path / "list.parquet")).names
    for columns, said in (
        ({"key": known[:-1], "clip_score": [0.0] * 18}, rf"has no row for 1 of 20 samples, such as '{known[-1]}'"),
        ({"key": known, "motion": [0.0] * 19}, "column 'motion' cannot be a signal"),
        ({"key": known, "p10": [0.0] * 19}, "column 'p10' cannot be a signal"),
        ({"key": known, "caption": known}, "needs a numeric column besides 'key', got key, caption"),
        ({"name": known}, "needs a column 'key', got name"),
    ):
        with pytest.raises(ValueError, match=said):
            curate(split, keep="motion>=0", scores=write_table(tmp_path / "wrong.parquet", columns))
    with pytest.raises(ValueError, match=r"nowhere\.parquet does not exist"):
        curate(split, keep="motion>=0", scores=tmp_path / "nowhere.parquet")
    (tmp_path / "text.parquet").write_text("key,score")
    with pytest.raises(ValueError, match="is not a Parquet table"):
        curate(split, keep="motion>=0", scores=tmp_path / "text.parquet")


def test_copies_may_be_those_whose_features_point_the_same_way(split: Path, tmp_path: Path) -> None:
    keys = Manifest.load(split).keys(range(20))
    vectors = np.random.default_rng(0).standard_normal((20, 16)).astype(np.float32)
    vectors[keys.index("a12")] = 3 * vectors[keys.index("a13")] + 0.01
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 16)
    for part in range(2):
        rows = slice(part * 10, part * 10 + 10)
        write_table(tmp_path / f"f-0000{part}-of-00002.parquet", {"key": keys[rows], "features": lists[rows]})
    options = {"copies": True, "features": tmp_path / "f.parquet", "dry_run": True}
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for cosine in (0.98, 0.3):
        found = curate(split, cosine=cosine, **options)  # type: ignore[arg-type]
        near = {(a, b) for a in range(20) for b in range(a + 1, 20) if unit[a] @ unit[b] >= cosine}
        near |= {tuple(sorted((keys.index("a10"), keys.index("b"))))}
        for one in found.gone:
            if one.why == "copy":
                assert tuple(sorted((one.place, keys.index(one.of)))) in near
        stays = set(range(20)) - {one.place for one in found.gone}
        assert not {pair for pair in near if set(pair) <= stays}
    assert {keys[one.place] for one in curate(split, **options).gone if one.why == "copy"} >= {"a10"}  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="features= needs copies=True"):
        curate(split, keep="motion>=0", features=tmp_path / "f.parquet")
    with pytest.raises(ValueError, match="cosine must be a number above 0 and of at most 1, got 0"):
        curate(split, copies=True, cosine=0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda rows: rows.__setitem__(slice(2, 6), [None] * 4),
            r"features is null.* for 4 of 20 samples, such as 'a02'",
        ),
        (
            lambda rows: rows[3].__setitem__(1, float("nan")),
            r"features is null, NaN .* for 1 of 20 samples, such as 'a03'",
        ),
        (lambda rows: rows[3].__setitem__(1, None), "features is null, NaN or infinite for 1 of 20 samples"),
        (lambda rows: rows[3].__setitem__(1, 1e300), "features is null, NaN or infinite for 1 of 20 samples"),
        (lambda rows: rows[3].append(1.0), "has feature vectors of 4 and 5 numbers"),
        (lambda rows: [row.clear() for row in rows], "has feature vectors of 0 numbers"),
    ],
)
def test_features_that_a_sample_lacks_are_refused_by_name(split: Path, tmp_path: Path, change, said: str) -> None:  # type: ignore[no-untyped-def]
    keys = Manifest.load(split).keys(range(20))
    rows: list[list[float] | None] = np.random.default_rng(0).standard_normal((20, 4)).tolist()
    change(rows)
    table = write_table(tmp_path / "f.parquet", {"key": keys, "features": pa.array(rows, pa.list_(pa.float64()))})
    with pytest.raises(ValueError, match=said):
        curate(split, copies=True, features=table, dry_run=True)


def test_scores_that_a_sample_lacks_are_refused_by_name(split: Path, tmp_path: Path) -> None:
    keys = Manifest.load(split).keys(range(20))
    scores = [None, float("nan"), *np.linspace(0, 1, 17).tolist(), None]  # the last sample cannot be decoded
    table = write_table(tmp_path / "s.parquet", {"key": keys, "score": scores, "other": [1.0] * 20})
    assert curate(split, keep="other>0", scores=table, dry_run=True).counts == {"unreadable": 1}
    with pytest.raises(ValueError, match=r"score is null, NaN or infinite for 2 of 20 samples, such as 'a00'"):
        curate(split, keep="not score<0.1", scores=table, dry_run=True)
    twice = write_table(tmp_path / "t.parquet", {"key": [*keys, "a03"], "score": [0.5] * 21})
    with pytest.raises(ValueError, match="has 1 repeated keys, such as 'a03'"):
        curate(split, keep="score>0", scores=twice, dry_run=True)


@pytest.mark.parametrize("many", [False, True])
def test_features_give_the_groups_that_all_pairs_together_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: bool
) -> None:
    found = measure(pictures_of(tmp_path / "split", {"a": scene(0)}))
    own = made_of(found, np.ones(300, np.int64), 60, 0)
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((300, 3)).astype(np.float32)
    vectors[::7] = 0
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
    order = rng.permutation(300)[:290]
    near = np.argwhere(np.triu(vectors @ vectors.T >= 0.97, 1))
    pairs = np.concatenate([alike(own, own), near])
    if not many:
        monkeypatch.setattr(copying, "_AT_ONCE", 16)
    got = find_copies(own, order, False, vectors, 0.97)
    assert got == _grouped(pairs[np.isin(pairs, order).all(1)], order)
    assert sum(map(len, got.values())) > 150


def test_collapsed_features_are_named(split: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = Manifest.load(split).keys(range(20))
    rng = np.random.default_rng(0)
    for spread, warned in ((1.0, 0), (0.01, 1)):
        rows = (1 + rng.normal(0, spread, (20, 16))).tolist()
        table = write_table(tmp_path / "f.parquet", {"key": keys, "features": rows})
        curate(split, copies=True, features=table, dry_run=True)
        assert caplog.text.count("f.parquet: 100 % of all pairs of samples have a cosine of 0.98 or more") == warned


def made_of(found: Measures, counts: npt.NDArray[np.int64], kinds: int, seed: int) -> Measures:
    """Measures of samples of so many frames, each a span of one of `kinds` films, some of whose bits differ."""
    rng, frames = np.random.default_rng(seed), int(counts.sum())
    films = rng.integers(0, 256, (kinds, 16, 64), dtype=np.uint8)
    begins = np.repeat(rng.integers(0, 4, len(counts)), counts)
    start = np.concatenate([[0], np.cumsum(counts)])
    at = begins + np.arange(frames) - np.repeat(start[:-1], counts)
    hashes = films[np.repeat(rng.integers(kinds, size=len(counts)), counts), at]
    bits = rng.random((frames, 1)) * 0.12
    whole, mirrored = (hashes ^ np.packbits(rng.random((frames, 512)) < bits, axis=1) for _ in range(2))
    windows = np.repeat(hashes[:, None, :32], 11, axis=1) ^ np.packbits(rng.random((frames, 11, 256)) < 0.12, axis=2)
    return replace(
        found,
        index=np.arange(len(counts)),
        components=["jpg"] * len(counts),
        start=start,
        times=at * 0.125,
        whole=whole,
        windows=windows,
        mirrored=mirrored,
    )


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("most", [1, 9])
def test_of_many_copies_only_what_stays_is_compared(tmp_path: Path, most: int, mirrored: bool) -> None:
    found = measure(pictures_of(tmp_path / "split", {"a": scene(0)}))
    rng = np.random.default_rng(1)
    own = made_of(found, rng.integers(1, most + 1, 300), 20, 0)
    theirs = made_of(found, rng.integers(1, most + 1, 50), 20, 0)
    order = rng.permutation(300)[:290]
    pairs = alike(own, own, mirrored=mirrored)
    left = pairs[np.isin(pairs, order).all(1)]
    assert 150 < len(left) < 300 * 299 / 4
    assert find_copies(own, order, mirrored) == _grouped(left, order)
    some, among = order[:30], np.sort(order[:200])
    met = np.isin(pairs, some).any(1) & np.isin(pairs, among).all(1)
    np.testing.assert_array_equal(alike(own, own, mirrored=mirrored, ours=some, among=among), pairs[met])
    leaks = alike(own, theirs, mirrored=mirrored)
    assert dict(find_leaks(own, theirs, range(300), mirrored)) == dict(leaks[::-1].tolist())
    met = np.isin(leaks[:, 0], some) & (leaks[:, 1] < 20)
    among = np.arange(20)
    np.testing.assert_array_equal(alike(own, theirs, mirrored=mirrored, ours=some, among=among), leaks[met])


def test_a_hundred_thousand_equal_pictures_are_one_group(tmp_path: Path) -> None:
    found = measure(pictures_of(tmp_path / "split", {"a": scene(0)}))
    own = replace(
        found,
        index=np.arange(100_000),
        components=["jpg"] * 100_000,
        start=np.arange(100_001),
        times=np.zeros(100_000),
        **{name: np.repeat(getattr(found, name), 100_000, axis=0) for name in ("whole", "windows", "mirrored")},
    )
    assert find_copies(own, np.arange(100_000)[::-1], False) == {99_999: [*range(99_999)]}
    assert [*find_leaks(own, replace(own, whole=own.whole.copy()), range(100_000), False)] == [
        (place, 0) for place in range(100_000)
    ]


def test_windows_of_pictures_among_clips_are_compared_as_those_of_pictures(tmp_path: Path) -> None:
    found = measure(pictures_of(tmp_path / "split", {"a": scene(0)}))
    own = made_of(found, np.array([1, 1, 3, 3]), 1, 0)
    whole = np.random.default_rng(2).integers(0, 256, own.whole.shape, dtype=np.uint8)
    windows = np.zeros_like(own.windows)
    for frame, other in ((0, 1), (2, 5), (3, 6), (4, 7)):
        windows[other, 0] = whole[frame, :32] ^ np.packbits(np.arange(256) < 35)
    own = replace(own, whole=whole, windows=windows, times=np.array([0, 0, *2 * [0, 0.125, 0.25]]))
    assert alike(own, own).tolist() == [[2, 3]]
    pictures = replace(own, start=np.arange(9), index=np.arange(8), components=["jpg"] * 8)
    assert alike(pictures, pictures).tolist() == []
