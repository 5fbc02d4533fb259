"""How many scenes of a long video `maskstream shards --clips scenes` finds, and what they and their clips cost.

    python benchmarks/scenes.py ROOT [--minutes 30] [--side 360] [--seed 0] [--peers PYTHON]

Scenes of the sample clips below ROOT (`maskstream shards sample --root ROOT` downloads them) are joined to one film
with sound: pieces of 1 to 12 s, mirrored or not, of other gamma, some with a flash of two frames, joined by hard cuts,
by fades through black and by black spans. It prints recall and precision of hard cuts, to the frame, and of fades; the
processor time of finding and of a whole job, beside that of FFmpeg's x264 for the same film; and the most memory. With
--peers it only finds, and so do the detectors of PySceneDetect (scenes_peers.py).
"""

import argparse
import json
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.video.frame import PictureType

from maskstream.preprocess import PROFILES, VideoProfile, make_shards
from maskstream.preprocess.encode.video.convert import Converter
from maskstream.preprocess.encode.video.scenes import find_scenes
from maskstream.preprocess.encode.video.video import _x264_options

UInt8s = npt.NDArray[np.uint8]

SCENES = {
    "bikes": ((0, 30), (30, 76), (76, 137), (137, 187), (187, 242)),
    "shot_change": ((0, 96), (96, 148)),
    "bigbuckbunny": ((0, 132),),
    "carphone_pristine": ((0, 120),),
    "obama_speech": ((0, 105),),
    "small": ((0, 166),),
    "demo": ((0, 230),),
    "WolfgangLanger_Pexels": ((0, 472),),
    "no_face": ((0, 95),),
}
"""Frames [first, stop) without a cut, by the name of the clip."""
RATE, SOUND_RATE, FADE = 25, 16000, 12
CUT, FADE_OUT, FADE_IN = "cut", "fade out", "fade in"


def read_scenes(root: Path, side: int) -> list[list[UInt8s]]:
    """The frames of each scene, RGB uint8 (side, 16/9 side, 3)."""
    size = (side * 16 // 9 // 2 * 2, side)
    found = []
    for path in sorted(root.rglob("*.mp4")):
        if path.stem in SCENES:
            with av.open(str(path)) as container:
                frames = (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
                shown = [np.asarray(cv2.resize(one, size, interpolation=cv2.INTER_AREA), np.uint8) for one in frames]
            found += [shown[first:stop] for first, stop in SCENES[path.stem]]
    return found


def piece(scene: list[UInt8s], rng: np.random.Generator, rate: int = RATE) -> list[UInt8s]:
    """A part of a scene, to and fro if it is short."""
    length = int(rng.integers(2 * rate, 12 * rate))
    there = [*range(len(scene)), *range(len(scene) - 2, 0, -1)]
    first, mirrored = int(rng.integers(len(there))), -1 if rng.random() < 0.5 else 1
    levels = (255 * (np.arange(256) / 255) ** rng.uniform(0.7, 1.4)).astype(np.uint8)
    made = [levels[scene[there[(first + n) % len(there)]][:, ::mirrored]] for n in range(length)]
    if length > 100 and rng.random() < 0.2:
        made[50:52] = [np.full_like(made[0], 250)] * 2
    return made


def film(scenes: list[list[UInt8s]], minutes: float, seed: int, *, rate: int = RATE) -> Iterator[tuple[UInt8s, str]]:
    """The frames of a film, each with what begins with it: CUT, FADE_OUT (the first black one), FADE_IN, or ""."""
    rng = np.random.default_rng(seed)
    black = np.zeros_like(scenes[0][0])
    ramp = [n / FADE for n in range(1, FADE + 1)]
    own, begins, n = -1, "", 0
    while n < minutes * 60 * rate:
        own = int(rng.choice([one for one in range(len(scenes)) if one != own]))
        shown = piece(scenes[own], rng, rate)
        if begins == FADE_IN:
            shown[:FADE] = [(one * share).astype(np.uint8) for one, share in zip(shown, ramp, strict=False)]
        ends = str(rng.choice([CUT, FADE_IN, "black"], p=[0.85, 0.1, 0.05]))
        if ends == FADE_IN:
            shown[-FADE:] = [
                (one * share).astype(np.uint8) for one, share in zip(shown[-FADE:], ramp[::-1], strict=True)
            ]
        if ends != CUT:
            shown += [black] * rate
        for at, one in enumerate(shown):
            first_black = ends != CUT and at == len(shown) - rate
            yield one, begins if at == 0 else (FADE_OUT if ends == FADE_IN else CUT) if first_black else ""
        n += len(shown)
        begins = FADE_IN if ends == FADE_IN else CUT


def write_film(
    path: Path, frames: Iterator[tuple[UInt8s, str]], *, rate: int = RATE
) -> tuple[dict[str, list[int]], int]:
    """Write a film with noise as sound. Returns the numbers of the frames that begin things, and how many there are."""
    begins: dict[str, list[int]] = {CUT: [], FADE_OUT: [], FADE_IN: []}
    rng, number = np.random.default_rng(1), -1
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=rate, options={"preset": "veryfast", "crf": "23"})
        sound = container.add_stream("aac", rate=SOUND_RATE, layout="mono")
        video.codec_context.thread_count = 1
        for number, (picture, begin) in enumerate(frames):
            if begin:
                begins[begin].append(number)
            if number == 0:
                video.height, video.width = picture.shape[:2]
                video.pix_fmt = "yuv420p"
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            wave = rng.normal(0, 0.02, (1, SOUND_RATE // rate)).astype(np.float32)
            block = av.AudioFrame.from_ndarray(wave, "fltp", "mono")
            block.sample_rate, block.time_base = SOUND_RATE, Fraction(1, SOUND_RATE)
            block.pts = number * (SOUND_RATE // rate)
            for packet in (*video.encode(frame), *sound.encode(block)):
                container.mux(packet)
        for packet in (*video.encode(None), *sound.encode(None)):
            container.mux(packet)
    return begins, number + 1


def encode_plainly(path: Path, to: Path, profile: VideoProfile) -> None:
    """Decode a film and encode it again as the profile does: one x264 with its options, of frames that are converted
    by the same filters; nothing is cut, checked or noted.
    """
    with av.open(str(path)) as source, av.open(str(to), "w") as target:
        stream = source.streams.video[0]
        stream.codec_context.thread_count = 1
        made = target.add_stream("libx264", rate=RATE, options=_x264_options(profile))
        made.pix_fmt, made.codec_context.thread_count = "yuv420p", 1
        convert = Converter(profile.short_side, None)
        for number, frame in enumerate(source.decode(stream)):
            small = convert(frame)
            if number == 0:
                made.width, made.height = convert.size
            small.pts, small.time_base = number, Fraction(1, RATE)
            small.pict_type = PictureType.NONE
            target.mux(made.encode(small))
        target.mux(made.encode(None))


def spent(work: Callable[[], object]) -> float:
    """The processor seconds of work in this process."""
    before = time.process_time()
    work()
    return time.process_time() - before


def told(what: str, found: set[int], true: set[int], near: int = 0) -> None:
    """Print recall and precision; what is found counts within `near` frames."""
    hits = sum(any(abs(one - other) <= near for other in found) for one in true)
    right = sum(any(abs(one - other) <= near for other in true) for one in found)
    print(
        f"{what}: {len(true)} true, {len(found)} found, recall {hits / max(len(true), 1):.4f}, "
        f"precision {right / max(len(found), 1):.4f}"
    )


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--side", type=int, default=360)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peers", help="a Python that has PySceneDetect")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "raw/film.mp4"
        path.parent.mkdir()
        begins, n_frames = write_film(path, film(read_scenes(given.root, given.side), given.minutes, given.seed))
        print(
            f"{n_frames} frames of {given.side} lines, {n_frames / RATE / 60:.1f} minutes, {path.stat().st_size} bytes"
        )
        before = time.process_time()
        scenes = find_scenes(path)
        finding = time.process_time() - before
        numbers = {
            kind: {round(one.time_s * RATE) for one in scenes.starts[1:] if one.hard == kind} for kind in (True, False)
        }
        told("hard cuts, to the frame", numbers[True], set(begins[CUT]))
        told("fades, within half a second", numbers[False], {*begins[FADE_OUT], *begins[FADE_IN]}, near=FADE)
        print(
            f"most memory of writing the film and finding {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MB"
        )
        if given.peers:
            print(f"finding takes {1e3 * finding / n_frames:.3f} CPU ms a frame")
            peers_find(given.peers, path, begins, n_frames)
            return
        plain = spent(lambda: encode_plainly(path, Path(folder) / "plain.mp4", PROFILES["train"]))
        print(f"CPU s: finding {finding:.1f}, encoding alone {plain:.1f}")
        whole = spent(lambda: print(job(path.parent, Path(folder) / "out")))
        print(f"a job with --clips scenes {whole:.1f}, {whole / plain:.2f} times the encoding")


def peers_find(python: str, path: Path, begins: dict[str, list[int]], n_frames: int) -> None:
    """Print what PySceneDetect's detectors find of a film: hard cuts to the frame, and of what else they find the share
    that are begins and ends of fades, within half a second.
    """
    script = Path(__file__).with_name("scenes_peers.py")
    made = subprocess.run([python, script, path], check=True, capture_output=True, text=True)
    fades = {*begins[FADE_OUT], *begins[FADE_IN]}
    for name, found in json.loads(made.stdout).items():
        starts = {*found["starts"]}
        near = {one for one in starts if any(abs(one - other) <= FADE for other in fades)}
        told(f"{name}, hard cuts", starts - near, {*begins[CUT]})
        told(f"{name}, fades", near, fades, near=FADE)
        print(f"{name}: {1e3 * found['seconds'] / n_frames:.3f} CPU ms a frame")


def job(raw: Path, out: Path) -> str:
    """Make shards of the folder; returns what became of it."""
    report = make_shards("folder", raw, out, clips="scenes", workers=0, as_is=True)
    return json.dumps(report.splits["train"].counts)


if __name__ == "__main__":
    main()
