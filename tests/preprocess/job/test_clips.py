"""Long files cut into clips: films of scenes whose begins are known, whole, in stretches and in parts of a job."""

import io
import json
import os
from fractions import Fraction
from itertools import count as count_from

import av
import cv2
import numpy as np
import pytest
import soundfile as sf
import xxhash

from maskstream.preprocess import make_shards
from maskstream.preprocess.encode.video import encoder, kept
from maskstream.preprocess.encode.video.encoder import VideoEncoder
from maskstream.preprocess.encode.video.kept import find_kept_video, open_scene_encoder
from maskstream.preprocess.encode.video.scenes import find_scenes
from maskstream.preprocess.encode.video.video import encode_video
from maskstream.preprocess.job import scan
from maskstream.preprocess.job.cutting import Cutting
from maskstream.preprocess.job.plan import plan
from maskstream.preprocess.source import Source, Span
from maskstream.shards.errors import DatasetError, ResumeError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.rejects import read_rejects
from maskstream.shards.progress import Progress
from maskstream.shards.stores.local_files import LOCK

from ...flash_and_beep import flashes, onsets, write
from ..versions.killed_forks import killed_fork
from .folder_job import FAST, contents

RATE = 25


def scene(seed, frames, width=96, height=64):
    """RGB frames: a texture of its own that moves by a pixel or two a frame."""
    rng = np.random.default_rng(seed)
    wide = cv2.resize(rng.integers(0, 256, (12, 48, 3)).astype(np.uint8), (4 * width, height))
    step = int(rng.integers(3))
    return [wide[:, (n * step) % (3 * width) :][:, :width] for n in range(frames)]


def faded(frames):
    """To black within ten frames, and 15 black ones."""
    ramp = [(one * (1 - n / 10)).astype(np.uint8) for n, one in enumerate(frames[-10:])]
    return [*frames[:-10], *ramp, *([np.zeros_like(frames[0])] * 15)]


def film(path, scenes, **options):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "ultrafast", "g": "40", **options})
        stream.height, stream.width = scenes[0][0].shape[:2]
        stream.pix_fmt, stream.codec_context.thread_count = "yuv420p", 1
        for number, picture in enumerate([one for own in scenes for one in own]):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def starts(found):
    return [(round(one.time_s * RATE), one.hard, one.black) for one in found]


def run(raw, out, **given):
    return make_shards(
        "folder", raw, out, **{"profile": FAST, "workers": 0, "as_is": True, "max_rejects": 0.5, **given}
    )


def sources(split):
    return sorted(Manifest.load(split).sources().to_pylist())


def test_cuts_are_found_to_the_frame_and_flashes_are_none(tmp_path):
    rng = np.random.default_rng(5)
    lengths = rng.integers(10, 40, 30).tolist()
    scenes = [scene(seed, n) for seed, n in enumerate(lengths)]
    for own in scenes[::3]:
        own[5:7] = [np.full_like(own[0], 255)] * 2
    found = find_scenes(film(tmp_path / "a.mp4", scenes)).starts
    true, got = set(np.cumsum(lengths)[:-1].tolist()), {at for at, hard, _ in starts(found) if hard}
    assert starts(found)[0] == (0, False, False)
    assert len(got & true) >= 0.95 * len(true)
    assert len(got & true) >= 0.95 * len(got)


def test_fades_and_black_are_told_apart(tmp_path):
    dark = [np.zeros((64, 96, 3), np.uint8)] * 20
    path = film(tmp_path / "a.mp4", [faded(scene(1, 50)), scene(2, 40), dark, scene(3, 40)])
    assert starts(find_scenes(path).starts) == [
        (0, False, False),
        (50, False, True),
        (65, True, False),
        (105, True, True),
        (125, True, False),
    ]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_stretches_find_what_the_whole_has(tmp_path, name):
    path = film(tmp_path / name, [scene(seed, 60) for seed in range(8)], bf="2")
    whole = find_scenes(path)
    parts = [find_scenes(path, first, stop) for first, stop in ((0, 7.0), (7.0, 12.0), (12.0, None))]
    assert starts(whole.starts) == [(60 * n, n > 0, False) for n in range(8)]
    assert tuple(one for part in parts for one in part.starts) == whole.starts
    assert parts[-1].last_s == whole.last_s == 479 / RATE


def test_a_file_becomes_the_clips_of_its_scenes(tmp_path, monkeypatch):
    """In one run and in parts that find scenes each for themselves and for others; a broken file costs no other."""
    monkeypatch.setattr(scan, "STRETCH_S", 4.0)
    (tmp_path / "raw").mkdir()
    film(tmp_path / "raw/a.mp4", [scene(1, 50), scene(2, 20), scene(3, 130), faded(scene(4, 60)), scene(5, 40)])
    film(tmp_path / "raw/b.mkv", [scene(6, 60)])
    (tmp_path / "raw/c.mp4").write_bytes((tmp_path / "raw/a.mp4").read_bytes()[:3000])
    how = {"clips": "scenes", "min_clip": 1, "max_clip": 4, "samples_per_shard": 2}
    run(tmp_path / "raw", tmp_path / "one", **how)
    split = tmp_path / "one/train"
    wanted = ["a.mp4:0-2", "a.mp4:2.8-5.4", "a.mp4:5.4-8", "a.mp4:8-10.4", "a.mp4:11-", "b.mkv:0-"]
    assert sources(split) == sorted(wanted)
    manifest = Manifest.load(split)
    frames = {own: manifest.video(n, "mp4").n_frames for n, own in enumerate(manifest.sources().to_pylist())}
    assert [frames[one] for one in wanted] == [50, 65, 65, 60, 40, 60]
    assert [(one.source, one.stage) for one in read_rejects(manifest.store, manifest.info)] == [("c.mp4", "open")]
    for number in (3, 1, 2):
        run(tmp_path / "raw", tmp_path / "parts", part=(number, 3), **how)
    run(tmp_path / "raw", tmp_path / "parts", finish=True, **how)
    assert contents(tmp_path / "parts") == contents(tmp_path / "one")
    with pytest.raises(ResumeError, match="clips"):
        run(tmp_path / "raw", tmp_path / "one", **how | {"min_clip": 0.5})


class Stops(Progress):
    """Interrupts the run when so many units of a phase are done, or before any is."""

    phase_name = ""

    def __init__(self, at="scenes", left=2):
        self.at, self.left = at, left

    def phase(self, name, total, done=0, unit="sources"):
        self.phase_name = name
        if (name, self.left) == (self.at, 0):
            raise KeyboardInterrupt

    def advance(self, units):
        self.left -= self.phase_name == self.at
        if (self.phase_name, self.left) == (self.at, 0):
            raise KeyboardInterrupt


@pytest.mark.slow
def test_an_interrupted_run_looks_at_no_stretch_again_and_worker_processes_write_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(scan, "STRETCH_S", 2.0)
    (tmp_path / "raw").mkdir()
    film(tmp_path / "raw/a.mp4", [scene(n, 60) for n in range(4)])
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "raw", tmp_path / "out", clips="scenes", progress=Stops())
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out/.clips").iterdir()}
    assert [name.partition("-")[0] for name in sorted(kept)] == ["files", "scenes"]
    run(tmp_path / "raw", tmp_path / "out", clips="scenes")
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out/.clips").iterdir()}
    assert len(after) == 5
    assert kept.items() <= after.items()
    run(tmp_path / "raw", tmp_path / "other", clips="scenes", workers=2)
    assert contents(tmp_path / "other") == contents(tmp_path / "out")
    assert sources(tmp_path / "out/train") == ["a.mp4:0-2.4", "a.mp4:2.4-4.8", "a.mp4:4.8-7.2", "a.mp4:7.2-"]


class Clips:
    """Keeps the clips of scenes: all of each scene."""

    def __init__(self):
        self.found = {}

    def spans(self, begin_s, stop_s, *, is_last):
        return [Span(start_s=begin_s, stop_s=None if is_last else stop_s)]

    def has(self, span):
        return False

    def put(self, span, data):
        self.found[span] = data


def kept_of(path, begin_s=0.0, stop_s=None):
    clips = Clips()
    with open_scene_encoder(path, FAST, clips) as frames:
        find_scenes(path, begin_s, stop_s, frames)
    return clips.found


@pytest.mark.parametrize(
    ("name", "gops"),
    [
        ("a.mp4", {}),
        ("a.mkv", {"sc_threshold": "0", "bf": "3"}),
        ("a.mp4", {"x264-params": "b-pyramid=normal:bframes=3"}),
    ],
)
def test_clips_that_are_encoded_while_scenes_are_found_are_those_of_their_spans(tmp_path, name, gops):
    """Also of stretches that begin and end within scenes, which are left to others, as is what is black."""
    dark = [np.zeros((64, 96, 3), np.uint8)] * 20
    path = film(tmp_path / name, [scene(1, 50), scene(2, 40), dark, scene(3, 60), scene(4, 30)], **{"g": "250"} | gops)
    assert [one.start_s for one in kept_of(path, 1.0, 5.0)] == [2.0]
    found = kept_of(path)
    assert [(one.start_s, one.stop_s) for one in found] == [(0, 2), (2, 3.6), (4.4, 6.8), (6.8, None)]
    for span, data in found.items():
        (tmp_path / "kept").write_bytes(data)
        kept = find_kept_video(Source(id="a", path=path, span=span, kept=tmp_path / "kept"))
        assert repr(kept) == repr(encode_video(path, FAST, span))
        assert kept.data == encode_video(path, FAST, span).data
    (tmp_path / "kept").write_bytes(data[:-1])
    assert find_kept_video(Source(id="a", path=path, kept=tmp_path / "kept")) is None
    (tmp_path / "kept").write_bytes(data)
    os.utime(path, ns=(0, 0))
    assert find_kept_video(Source(id="a", path=path, kept=tmp_path / "kept")) is None


def test_no_clip_is_kept_that_might_have_other_bytes(tmp_path, monkeypatch):
    """Where decoders do not start afresh at keyframes or that is not known, and of more frames than are held."""
    scenes = [scene(1, 50), scene(2, 50)]
    assert not kept_of(
        film(tmp_path / "open.mp4", scenes, **{"g": "20", "x264-params": "open-gop=1:bframes=2:b-adapt=0"})
    )
    assert not kept_of(film(tmp_path / "a.ts", scenes))
    path = film(tmp_path / "a.mp4", scenes)
    damaged = bytearray(path.read_bytes())
    at = damaged.index(b"mdat") + 3000
    damaged[at : at + 400] = bytes(400)
    (tmp_path / "b.mp4").write_bytes(damaged)
    assert not kept_of(tmp_path / "b.mp4")
    assert len(kept_of(path)) == 2
    monkeypatch.setattr(kept, "MOST_BYTES", 40 * 96 * 64 * 3 // 2)
    assert not kept_of(path)


def test_a_run_goes_on_with_the_clips_that_are_kept(tmp_path, monkeypatch):
    """Of two that are kept, one is damaged; that and the one of two stretches are encoded from the file."""
    monkeypatch.setattr(scan, "STRETCH_S", 4.0)
    (tmp_path / "raw").mkdir()
    film(tmp_path / "raw/a.mp4", [scene(1, 60), scene(2, 60), scene(3, 80)])
    run(tmp_path / "raw", tmp_path / "whole", clips="scenes")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "raw", tmp_path / "out", clips="scenes", progress=Stops("encode", 0))
    first, second = (tmp_path / "out/.clips").glob("clip-*")
    first.write_bytes(second.read_bytes()[:-1])
    encoded, real = [], encoder.encode_video
    monkeypatch.setattr(
        encoder, "encode_video", lambda *given, **more: encoded.append(given[2]) or real(*given, **more)
    )
    run(tmp_path / "raw", tmp_path / "out", clips="scenes")
    assert len(encoded) == 2
    assert Span(start_s=2.4, stop_s=4.8) in encoded
    assert contents(tmp_path / "whole") == contents(tmp_path / "out")


def test_files_are_cut_after_seconds_and_by_a_list(tmp_path):
    (tmp_path / "raw").mkdir()
    film(tmp_path / "raw/a.mp4", [scene(1, 60)])
    run(tmp_path / "raw", tmp_path / "every", clips="1s", min_clip=0.4)
    assert sources(tmp_path / "every/train") == ["a.mp4:0-1", "a.mp4:1-2", "a.mp4:2-"]
    (tmp_path / "list.csv").write_text("path,start,end,caption\na.mp4,0.2,1,one\na.mp4,1.5,2,two\n")
    run(tmp_path / "raw", tmp_path / "listed", clips=str(tmp_path / "list.csv"))
    manifest = Manifest.load(tmp_path / "listed/train")
    texts = [json.loads(bytes(manifest.store.read_many([manifest.member(n, "json")])[0])) for n in range(2)]
    assert {(one["source"], one["caption"], one["n_frames"]) for one in texts} == {
        ("a.mp4:0.2-1", "one", 20),
        ("a.mp4:1.5-2", "two", 12),
    }
    (tmp_path / "list.csv").write_text("path,start,end\nother.mp4,0.2,1\n")
    with pytest.raises(DatasetError, match=r"list\.csv lists 1 files that folder does not contain"):
        run(tmp_path / "raw", tmp_path / "other", clips=str(tmp_path / "list.csv"))


def test_sound_stays_in_step(tmp_path):
    """Each clip has its flash and its beep at one time."""
    (tmp_path / "raw").mkdir()
    write(tmp_path / "raw/a.mp4", (20, 80))
    make_shards(
        "audiovisual-folder", tmp_path / "raw", tmp_path / "out", clips="2s", workers=0, profile=FAST, as_is=True
    )
    manifest = Manifest.load(tmp_path / "out/train")
    for n, at in enumerate(manifest.sources().to_pylist()):
        names = ("mp4", "flac", "json")
        data = {name: bytes(manifest.store.read_many([manifest.member(n, name)])[0]) for name in names}
        with av.open(io.BytesIO(data["mp4"])) as container:
            frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        shown = flashes(frames, np.arange(len(frames)) / RATE)
        heard = onsets(*sf.read(io.BytesIO(data["flac"]))) + json.loads(data["json"])["audio_start_s"]
        assert shown == pytest.approx([{"a.mp4:0-2": 0.8, "a.mp4:2-": 1.2}[at]])
        assert heard == pytest.approx(shown, abs=0.01)


def test_sounds_are_cut_at_pauses(tmp_path):
    """In the noise of a room; a pause is half a second or more, of which a tenth stays at each side."""
    rate, rng = 8000, np.random.default_rng(0)
    loud, room = (lambda s, level=level: rng.normal(0, level, round(s * rate)) for level in (0.1, 0.0005))
    (tmp_path / "raw").mkdir()
    sf.write(tmp_path / "raw/a.wav", np.concatenate([loud(3), room(1), loud(4), room(0.3), loud(3), room(2)]), rate)
    sf.write(tmp_path / "raw/b.flac", np.concatenate([room(2), loud(0.5), room(0.7), loud(2.4)]), rate)
    sf.write(tmp_path / "raw/c.wav", np.zeros(3 * rate), rate)

    def cut(out, **given):
        how = {"clips": "silence", "workers": 0, "as_is": True, **given}
        make_shards("audio-folder", tmp_path / "raw", tmp_path / out, **how)
        return sources(tmp_path / out / "train")

    assert cut("out") == ["a.wav:0-3.1", "a.wav:3.9-11.4", "b.flac:3.1-"]
    assert cut("short", max_clip=5, min_clip=0.6) == [
        *("a.wav:0-3.1", "a.wav:3.9-7.65", "a.wav:7.65-11.4"),
        *("b.flac:1.9-2.6", "b.flac:3.1-"),
    ]
    manifest = Manifest.load(tmp_path / "out/train")
    (place,) = [n for n, one in enumerate(manifest.sources().to_pylist()) if one.startswith("b.flac")]
    (data,) = manifest.store.read_many([manifest.member(place, "flac")])
    whole = sf.read(tmp_path / "raw/b.flac")[0]
    np.testing.assert_array_equal(sf.read(io.BytesIO(bytes(data)))[0], whole[round(3.1 * rate) :])
    film(tmp_path / "raw/d.mp4", [scene(0, 30)])
    with pytest.raises(DatasetError, match="cuts audio, but folder is video; leave out --clips"):
        run(tmp_path / "raw", tmp_path / "films", clips="silence")


@pytest.mark.slow
def test_pauses_are_the_same_in_parts_in_processes_and_after_kills(tmp_path):
    """Parts look at files for each other; a run that is killed at any step goes on to the same bytes."""
    rate, rng = 8000, np.random.default_rng(1)
    (tmp_path / "raw").mkdir()
    for number in range(5):
        spans = [rng.normal(0, level, round(s * rate)) for s in rng.uniform(1, 4, 4) for level in (0.1, 0.0005)]
        sf.write(tmp_path / f"raw/{number}.wav", np.concatenate(spans), rate)
    (tmp_path / "raw/bad.wav").write_bytes((tmp_path / "raw/0.wav").read_bytes()[:30])
    how = {"clips": "silence", "min_clip": 1, "as_is": True, "max_rejects": 0.5, "samples_per_shard": 3}

    def cut(out, workers=0, **given):
        return make_shards("audio-folder", tmp_path / "raw", tmp_path / out, workers=workers, **how, **given)

    cut("one")
    assert len(sources(tmp_path / "one/train")) > 12
    for count in (1, 4):
        for number in range(count, 0, -1):
            cut(f"parts-{count}", part=(number, count))
        cut(f"parts-{count}", finish=True)
        assert contents(tmp_path / f"parts-{count}") == contents(tmp_path / "one")
    cut("processes", workers=2)
    assert contents(tmp_path / "processes") == contents(tmp_path / "one")
    for kills in count_from(0):
        assert kills < 60
        if killed_fork(1 + kills // 2, lambda: cut("killed")) == 0:
            break
    assert kills >= 10
    (tmp_path / "killed/train" / LOCK).unlink()  # a killed run leaves it
    assert contents(tmp_path / "killed") == contents(tmp_path / "one")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"by": "film"}, "is not 'scenes', 'transnetv2', 'silence', a number of seconds such as '10s', or a list"),
        ({"by": "0s"}, "from 0.1s to 86400s"),
        ({"by": "10s", "max_s": 4}, "requires clips='scenes'"),
        ({"by": "a.csv", "min_s": 4}, "a list, which defines its own clips"),
        ({"by": "scenes", "min_s": 4, "max_s": 5}, "at most half of max_clip"),
    ],
)
def test_what_is_no_clip_is_refused(given, words):
    with pytest.raises(ValueError, match=words):
        Cutting(**given)


def test_pictures_have_no_clips(tmp_path):
    (tmp_path / "raw").mkdir()
    cv2.imwrite(str(tmp_path / "raw/a.png"), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(DatasetError, match="image-folder is image; leave out --clips"):
        make_shards("image-folder", tmp_path / "raw", tmp_path / "out", clips="1s", workers=0, as_is=True)
    with pytest.raises(ValueError, match="pass clips too"):
        make_shards("image-folder", tmp_path / "raw", tmp_path / "out", min_clip=1)


def test_clips_of_a_file_lie_in_neighbouring_shards_and_records_know_their_order(tmp_path):
    """`find_state_places` finds the states of a source by this order."""
    sources = [
        Source(id=f"{name}:{n}-{n + 1}", path=tmp_path / name, cut_from=name) for name in "abcd" for n in range(8)
    ]
    tasks = plan("folder", tmp_path, sources, VideoEncoder(), 8)
    assert [len({one.cut_from for one in task.sources}) for task in tasks] == [1, 1, 1, 1]
    for task in tasks:
        ids = [one.id for one in task.sources]
        assert ids == sorted(ids, key=lambda name: (xxhash.xxh3_64_intdigest(name.encode()), name)) != sorted(ids)
