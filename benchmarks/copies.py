"""How many changed copies of clips or pictures `maskstream curate --copies` finds, and how many pairs it makes up.

    python benchmarks/copies.py SPLIT [SPLIT ...] [--most 200] [--moving] [--peers PYTHON]

Each sample of the splits is decoded, changed in each way, and encoded again as `maskstream shards` does it. It prints,
for each change, the share of copies that are found among all samples, and the pairs of other samples; samples of the
splits that are alike already count as one. With --moving the samples of a split of pictures are clips of a window that
moves over them. With --peers the same clips are hashed by imagehash and videohash (copies_peers.py says how to have
them), each at the largest distance that makes at most 1e-4 of the pairs up.
"""

import argparse
import io
import json
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt

from maskstream.preprocess.curate import measure
from maskstream.preprocess.curate.curation import alike
from maskstream.preprocess.curate.measures import _frames_of
from maskstream.preprocess.encode.video.video import PROFILES, encode_video
from maskstream.shards.format.dataset import finish_split
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.sample import DatasetInfo, Sample
from maskstream.shards.format.writer import write_shard
from maskstream.shards.members.image import image_member
from maskstream.shards.members.video import VIDEO, video_member

UInt8s = npt.NDArray[np.uint8]
Clip = list[UInt8s]
Change = Callable[[Clip], Clip]


def each(change: Callable[[UInt8s], cv2.typing.MatLike]) -> Change:
    """The change of each frame."""
    return lambda clip: [np.ascontiguousarray(change(frame)).astype(np.uint8) for frame in clip]


def cropped(share: float) -> Change:
    """Without this share of each side, half of it at each end."""

    def middle(frame: UInt8s) -> UInt8s:
        top, left = (round(side * share / 2) for side in frame.shape[:2])
        return frame[top : frame.shape[0] - top, left : frame.shape[1] - left]

    return each(middle)


def with_logo(frame: UInt8s) -> UInt8s:
    """With a white word in a corner."""
    made, width = frame.copy(), frame.shape[1]
    at = (round(0.7 * width), round(0.12 * frame.shape[0]))
    cv2.putText(made, "LOGO", at, cv2.FONT_HERSHEY_SIMPLEX, width / 300, (255, 255, 255), max(1, width // 120))
    return made


CHANGES: dict[str, Change] = {
    "coded again": lambda clip: clip,
    "cropped 5 %": cropped(0.05),
    "cropped 10 %": cropped(0.1),
    "cropped 15 %": cropped(0.15),
    "scaled by half": each(lambda f: cv2.resize(f, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)),
    "with a logo": each(with_logo),
    "brighter": each(lambda f: np.clip(f.astype(np.float32) * 1.15 + 8, 0, 255)),
}
OF_CLIPS: dict[str, Change] = {
    "sped up 1.1 times": lambda clip: [frame for n, frame in enumerate(clip) if n % 11],
    "trimmed by a quarter": lambda clip: clip[len(clip) // 4 :],
}


def film(clip: Clip, folder: Path, fps: float, crf: int) -> Sample:
    """The clip as a member, through a file of its own."""
    path = folder / "raw.mp4"
    height, width = (side // 2 * 2 for side in clip[0].shape[:2])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=round(fps), options={"crf": str(crf), "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in clip:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="bgr24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    video = encode_video(path, PROFILES["train"])
    return Sample(key="x", members={"mp4": video_member(video.data, video.index)}, source="x")


def picture(clip: Clip, quality: int) -> Sample:
    """The picture as a member."""
    height, width = clip[0].shape[:2]
    data = bytes(cv2.imencode(".jpg", clip[0], [cv2.IMWRITE_JPEG_QUALITY, quality])[1])
    return Sample(key="x", members={"jpg": image_member(data, width, height)}, source="x")


def moving(drawing: UInt8s, number: int) -> Clip:
    """40 frames, uint8 (128, 160, 3), of a window that moves by a quarter of itself at most over a picture."""
    rng, (height, width) = np.random.default_rng(number), drawing.shape[:2]
    wide = rng.uniform(0.5, 0.75) * min(width, height * 1.25)
    free = np.array([width - wide, height - 0.8 * wide])
    begin = rng.uniform(0, free)
    end = np.clip(begin + rng.uniform(-0.25, 0.25, 2) * wide, 0, free)
    made = []
    for share in np.linspace(0, 1, 40):
        left, top = begin + share * (end - begin)
        place, how = np.array([[wide / 160, 0, left], [0, wide / 160, top]]), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        made.append(np.asarray(cv2.warpAffine(drawing, place, (160, 128), flags=how)))
    return made


def every_frame(data: bytes) -> Clip:
    """All frames of a video, 300 at most, uint8 (H, W, 3), BGR."""
    with av.open(io.BytesIO(data), "r") as container:
        frames = islice(container.decode(video=0), 300)
        return [np.asarray(frame.to_ndarray(format="bgr24"), np.uint8) for frame in frames]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("splits", nargs="+")
    parser.add_argument("--most", type=int, default=200, help="the most samples of a split")
    parser.add_argument("--moving", action="store_true", help="make clips of pictures")
    parser.add_argument("--peers", help="a Python that has imagehash and videohash")
    parser.add_argument("--videohash", type=int, default=6, help="how many originals videohash is given")
    asked = parser.parse_args()
    changes, clips, samples, sources = dict(CHANGES), [], [], []
    kinds: set[str] = set()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for location in asked.splits:
            manifest = Manifest.load(location)
            found, own = measure(manifest, kept=folder / "kept"), manifest.sources().to_pylist()
            for place in range(min(len(found), asked.most)):
                if place in found.unreadable or found.start[place] == found.start[place + 1]:
                    continue
                number, component = int(found.index[place]), found.components[place]
                kind = manifest.components[component].kind
                kinds.add(kind)
                if kind == VIDEO.name:
                    (data,) = manifest.store.read_many([manifest.member(number, component)])
                    clip, fps = every_frame(data), manifest.video(number, component).fps
                else:
                    clip, fps = _frames_of(manifest, number, component), 0.0
                if asked.moving:
                    clip, fps = moving(clip[0], number), 25.0
                    if max(float(frame.mean(2).std()) for frame in clip) < 4:
                        continue  # a window on empty paper, as flat as what has no hash
                sources.append(re.split("[#:]", str(own[number]))[0])
                clips.append((clip, fps))
        if asked.moving or kinds == {VIDEO.name}:
            changes |= OF_CLIPS
        spent = time.process_time()
        for change in ("as it is", *changes):
            for number, (clip, fps) in enumerate(clips):
                made = clip if change == "as it is" else changes[change](clip)
                again = change == "coded again"
                one = film(made, folder, fps, 35 if again else 20) if fps else picture(made, 30 if again else 92)
                key = f"{change.replace(' ', '-').replace('.', '_').replace('%', 'percent')}/{number}"
                samples.append(Sample(key=key, members=one.members, source=key))
        print(f"{len(samples)} samples made in {time.process_time() - spent:.0f} CPU s")
        modality = "video" if clips[0][1] else "image"
        scenes = report(write(folder / "split", samples, modality), ["as it is", *changes], sources)
        if asked.peers:
            report_peers(asked.peers, asked.videohash, samples, folder / "files", scenes)


def write(out: Path, samples: Sequence[Sample], modality: str) -> Path:
    """A split of the samples."""
    out.mkdir()
    parts = [samples[first : first + 500] for first in range(0, len(samples), 500)]
    records = [write_shard(out / f"t-{at:06d}.tar", some) for at, some in enumerate(parts)]
    info = DatasetInfo(dataset="t", split="train", modality=modality, profile="train", label_names=(), settings={})
    finish_split(out, info, records, [])
    return out


def report(split: Path, names: Sequence[str], sources: Sequence[str]) -> npt.NDArray[np.int64]:
    """Prints recall by change, pairs that are none, and CPU time; samples are numbered change by change. Returns the
    scene of each original.

    sources: of the originals. Parts of one file may show the same, so pairs of one source are not counted as wrong.
    """
    spent = time.process_time()
    found = measure(split)
    measured = time.process_time() - spent
    pairs = alike(found, found)
    searched = time.process_time() - spent - measured
    originals = len(sources)
    right = {(a, b) for a, b in pairs.tolist() if a % originals == b % originals}
    of = np.unique(np.array(sources), return_inverse=True)[1]
    before = pairs[pairs.max(1) < originals].tolist()
    for a, b in before:
        of[of == of[b]] = of[a]  # originals that are alike before they are changed
    wrong = int((of[pairs[:, 0] % originals] != of[pairs[:, 1] % originals]).sum())
    others = len(found) * (len(found) - 1) // 2
    apart = [(sources[a], sources[b]) for a, b in before if sources[a] != sources[b]]
    print(f"{originals} originals of {len(set(of.tolist()))} scenes; of other sources and alike: {apart}")
    for at, name in enumerate(names[1:], start=1):
        hits = sum((n, at * originals + n) in right for n in range(originals))
        print(f"  {name:<22} {hits / originals:.3f}")
    print(f"pairs of other scenes: {wrong} of {others} ({wrong / others:.1e})")
    print(f"CPU ms a sample: measured {1e3 * measured / len(found):.1f}, searched {1e3 * searched / len(found):.2f}")
    return of


def report_peers(python: str, most: int, samples: Sequence[Sample], folder: Path, of: npt.NDArray[np.int64]) -> None:
    """Prints the same of the hashes of peers, which are given the samples as files. of: the scene of each original."""
    for sample in samples:
        path = folder / f"{sample.key}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(sample.members["mp4"].data)
    script = Path(__file__).with_name("copies_peers.py")
    made = subprocess.run([python, script, folder, str(most)], check=True, capture_output=True, text=True)
    for peer, found in json.loads(made.stdout).items():
        hashes = found["hashes"]
        changes = np.array([name.split("/")[0] for name in hashes])
        numbers = np.array([int(Path(name).stem) for name in hashes])
        bits = np.unpackbits(np.array([list(bytes.fromhex(one)) for one in hashes.values()], np.uint8), axis=1)
        signs = 2 * bits.astype(np.float32) - 1
        apart = np.rint((bits.shape[1] - signs @ signs.T) / 2).astype(np.int64)
        other = np.triu(of[numbers][:, None] != of[numbers][None], 1)
        false = np.bincount(apart[other], minlength=bits.shape[1] + 1).cumsum()
        pairs = len(hashes) * (len(hashes) - 1) // 2
        limit = int(np.searchsorted(false, 1e-4 * pairs, side="right")) - 1
        print(f"{peer}: {len(hashes)} samples, at most {limit} of {bits.shape[1]} bits, {false[max(limit, 0)]} false")
        whole = {number: place for place, number in enumerate(numbers) if changes[place] == "as-it-is"}
        for change in dict.fromkeys(changes):
            places = np.flatnonzero(changes == change)
            hits = [apart[place, whole[numbers[place]]] <= limit for place in places]
            print(f"  {change:<22} {np.mean(hits):.3f}")
        print(f"CPU ms a sample: {1e3 * found['seconds'] / len(hashes):.1f}")


if __name__ == "__main__":
    main()
