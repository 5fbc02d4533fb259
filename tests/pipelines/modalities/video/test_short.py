"""Videos that are shorter than their clip: repeated, looped, left out of the order, or refused, and counted."""

import json
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from maskstream.cli import app
from maskstream.pipelines import Loader, Split, VideoClip, VideoData, masks, mix, video_loader
from maskstream.pipelines.augment import CenterCrop
from maskstream.pipelines.modalities.audiovisual.data import AudioVisualData
from maskstream.shards.errors import ResumeError
from maskstream.shards.format.manifest import Manifest

from ...contract import check_order
from .packed_videos import CLIP as LONG
from .packed_videos import VP9, assert_pixels_agree, assert_same_but_pixels, write_split

SHORT = [number for number in range(53) if number % 4 == 0]
"""The samples of `uneven` of 24 frames; the others have 29 or more."""
CLIP = VideoClip(frames=8, stride=4, size=32)  # 29 frames


def loader(split: Path, short: str, **options: Any) -> Loader[Any]:
    given = {"batch_size": 4, "device": "cpu", "threads": 2, "patch": 8, "mask": masks.Tube(ratio=0.5), **options}
    return video_loader(split, clip=VideoClip(frames=8, stride=4, size=32, short=short), **given)  # type: ignore[arg-type]


def keys(of: Loader[Any]) -> list[str]:
    return [key for batch in of for key in batch.key]


@pytest.mark.parametrize("start", ["random", "center"])
@pytest.mark.parametrize("timed", [{}, {"fps": 5.0}, {"seconds": 3.0}])
def test_a_looped_clip_begins_again_and_others_are_as_they_were(start: str, timed: dict[str, float]) -> None:
    for n_frames in (1, 2, 7, 24, 29, 90):
        drawn = {}
        for short in ("repeat", "loop", "skip"):
            clip = VideoClip(frames=8, stride=4, size=32, start=start, short=short, **timed)  # type: ignore[arg-type]
            drawn[short] = clip.numbers(n_frames, np.random.default_rng(n_frames), fps=25.0)
            is_short = bool(clip.too_long(np.array([n_frames]), np.array([25.0]))[0])
            assert is_short == (n_frames < clip.span(25.0))
        assert np.array_equal(drawn["repeat"], drawn["skip"])
        if is_short:
            assert np.array_equal(drawn["loop"], clip.offsets(25.0) % n_frames)
        else:
            assert np.array_equal(drawn["loop"], drawn["repeat"])


def test_short_videos_are_counted_and_a_loop_shows_the_beginning_again(uneven: Path) -> None:
    shown = {short: loader(uneven, short, shuffle=False) for short in ("repeat", "loop")}
    for repeated, looped in zip(*shown.values(), strict=True):
        for row, key in enumerate(repeated.key):
            if int(key[1:]) in SHORT:  # the frames 24 and 28 are there no more
                assert np.array_equal(looped.video[row, 6:8], repeated.video[row, 0:2])
                assert np.array_equal(repeated.video[row, 6], repeated.video[row, 5])
                assert looped.pts_s[row, 6] == 0
            else:
                assert np.array_equal(looped.video[row], repeated.video[row])
    assert [one.stats()["short"] for one in shown.values()] == [len(SHORT)] * 2
    assert shown["repeat"].state_dict()["data"] == VideoData(
        clip=VideoClip(frames=8, stride=4, size=32, align=4), patch=8, mask=masks.Tube(ratio=0.5)
    ).resolved(Split.open(uneven, "video", device="cpu", shuffle=False)).to_dict(identity=True)
    assert "short" not in json.dumps(shown["repeat"].state_dict())


def test_skipped_videos_are_in_no_batch_at_any_topology_and_a_resume_is_exact(
    uneven: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = loader(uneven, "skip", shuffle=False)
    assert keys(whole) == [f"u{number}" for number in range(53) if number not in SHORT]
    assert whole.stats()["short"] == 0
    (said,) = {record.getMessage() for record in caplog.records}
    assert "14 of 53 videos of" in said
    assert "the shortest 'u0' with 24 frames; they are left out (short='skip'): an epoch has 39 samples" in said
    alone = loader(uneven, "skip", seed=3)
    first, second = [batch.key for batch in alone], [batch.key for batch in alone]
    assert len(first) == len(alone) == 9
    assert not {f"u{number}" for number in SHORT} & {key for batch in (*first, *second) for key in batch}
    state = check_order(partial(loader, uneven, "skip", seed=3), batch_size=4)
    with pytest.raises(ResumeError, match="kept"):
        loader(uneven, "repeat", seed=3).load_state_dict(state)


def test_skipped_videos_are_in_no_mixture_and_have_no_weight(uneven: Path) -> None:
    clip = VideoClip(frames=8, stride=4, size=32, short="skip")
    sources = [
        VideoData(clip=clip, patch=8).source(Split.open(uneven, "video", seed=seed, device="cpu", threads=1))
        for seed in (0, 1)
    ]
    mixed = Loader(mix([(sources[0], 1), (sources[1], 1)], seed=0), batch_size=6, device="cpu", threads=1)
    counts = Counter(keys(mixed))
    assert {f"u{number}" for number in SHORT}.isdisjoint(counts)
    assert sum(counts.values()) == len(mixed) * 6
    weighted = loader(uneven, "skip", weights=[float(number in (0, 5, 6)) for number in range(53)])
    assert {*keys(weighted)} == {"u5", "u6"}


def test_an_error_names_how_many_and_the_shortest_before_anything_is_read(
    uneven: Path, split: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Manifest, "member", lambda *given: pytest.fail("a sample is read"))
    with pytest.raises(
        ValueError, match=r"14 of 53 videos .* \(8 frames, stride 4\), the shortest 'u0' with 24 frames"
    ):
        loader(uneven, "error")
    loader(split, "error")  # all have 40 frames or more
    with pytest.raises(ValueError, match="so short='skip' leaves none; use a shorter clip"):
        video_loader(split, clip=VideoClip(frames=64, size=32, short="skip"), patch=8)


def test_what_cannot_be_looped_is_refused(uneven: Path) -> None:
    with pytest.raises(ValueError, match=r"short must be.*did\ you\ mean\ 'loop'\?"):
        VideoClip(short="lop")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="goes back in time, but sounds cannot; expected 'repeat', 'skip'"):
        AudioVisualData(clip=VideoClip(short="loop"))
    with pytest.raises(ValueError, match="goes back in time, but masks and flow fields cannot"):
        loader(uneven, "loop", mask=masks.MotionGuided(ratio=0.5))


def test_inspect_tells_the_share_by_the_manifest_alone(uneven: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["inspect", str(uneven), "--json", "--set", "clip.frames=8"]
    found = json.loads(CliRunner().invoke(app, words).output)["shorter_than_clip"]
    assert found == {"mp4": {"clip": "8 frames, stride 4", "videos": 14, "share": 0.2642}}
    usual = json.loads(CliRunner().invoke(app, words[:3]).output)["shorter_than_clip"]["mp4"]
    assert usual == {"clip": "16 frames, stride 4", "videos": 53, "share": 1.0}


def test_dali_shows_and_skips_the_same(tmp_path: Path) -> None:
    folder = write_split(tmp_path, "libvpx-vp9", VP9, "copy")
    for short, (n_batches, count) in {"loop": (2, 2), "skip": (1, 0)}.items():
        settings: dict[str, Any] = {"clip": replace(LONG, short=short), "batch_size": 2, "device": "cpu", "threads": 1}
        settings |= {"augment": CenterCrop(), "shuffle": False, "mask": masks.Tube(ratio=0.5)}
        cpu, dali = (video_loader(folder, backend=backend, **settings) for backend in ("cpu", "dali"))
        pairs = list(zip(dali, cpu, strict=True))
        assert len(pairs) == n_batches
        for batch, expected in pairs:
            assert_same_but_pixels(batch, expected)
            assert_pixels_agree(batch.video, expected.video)
        assert [one.stats()["short"] for one in (cpu, dali)] == [count] * 2
