"""How many changed copies of clips, pictures or sounds `maskstream curate --copies` finds, and how many wrong pairs.

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
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
import soxr

from maskstream.preprocess.curate import measure
from maskstream.preprocess.curate.copies import alike
from maskstream.preprocess.curate.measures import _frames_of
from maskstream.preprocess.encode.audio.encoder import encoded_sound
from maskstream.preprocess.encode.audio.sound import Sound
from maskstream.preprocess.encode.video.video import PROFILES, encode_video
from maskstream.shards.format.dataset import finish_split
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.sample import DatasetInfo, Sample
from maskstream.shards.format.writer import write_shard
from maskstream.shards.media.sound_packets import decoded_whole
from maskstream.shards.members.image import image_member
from maskstream.shards.members.sound import SOUND
from maskstream.shards.members.video import VIDEO, video_member

UInt8s = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
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
    """With a white word with a black edge in a corner."""
    made, width = frame.copy(), frame.shape[1]
    at, thick = (round(0.7 * width), round(0.12 * frame.shape[0])), max(1, width // 120)
    for colour, edge in ((0, thick + 2), (255, thick)):
        cv2.putText(made, "LOGO", at, cv2.FONT_HERSHEY_SIMPLEX, width / 300, (colour,) * 3, edge)
    return made


AGAIN = "coded again"
MIRRORED = "mirrored"
WITH_OPTION = (MIRRORED, "a semitone higher", "a semitone lower")
"""Which are found with the option --mirrored alone."""
AT_ONCE = 500
"""Samples of a shard, so many or a few more."""
CHANGES: dict[str, Change] = {
    "as it is": lambda clip: clip,
    AGAIN: lambda clip: clip,
    "cropped 5 %": cropped(0.05),
    "cropped 10 %": cropped(0.1),
    "cropped 15 %": cropped(0.15),
    "scaled by half": each(lambda f: cv2.resize(f, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)),
    "with a logo": each(with_logo),
    "brighter": each(lambda f: np.clip(f.astype(np.float32) * 1.15 + 8, 0, 255)),
    MIRRORED: each(lambda f: f[:, ::-1]),
}
OF_CLIPS: dict[str, Change] = {
    "sped up 1.1 times": lambda clip: [frame for n, frame in enumerate(clip) if n % 11],
    "trimmed by a quarter": lambda clip: clip[len(clip) // 4 :],
}


def mp3(samples: Floats, rate: int) -> Floats:
    """A sound after MP3 at 32 kbit/s and 16 kHz."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp3") as container:
        stream = container.add_stream("libmp3lame", rate=16000, layout="mono")
        stream.bit_rate = 32000
        low = soxr.resample(samples, rate, 16000).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(low[None], format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    decoded = np.concatenate(list(decoded_whole(buffer.getvalue(), "mp3")))[:, 0].astype(np.float64)
    return np.asarray(soxr.resample(decoded, 16000, rate))


def faster(samples: Floats, rate: int) -> Floats:
    """A sound that is 1.1 times as fast, at its pitch."""
    graph = av.filter.Graph()
    graph.link_nodes(
        graph.add_abuffer(sample_rate=rate, format="flt", layout="mono"),
        graph.add("atempo", "1.1"),
        graph.add("abuffersink"),
    ).configure()
    frame = av.AudioFrame.from_ndarray(samples.astype(np.float32)[None], format="flt", layout="mono")
    frame.sample_rate, frame.pts = rate, 0
    graph.push(frame)
    graph.push(None)
    made = []
    while True:
        try:
            made.append(np.asarray(graph.pull().to_ndarray()[0], np.float64))
        except (av.error.EOFError, av.error.BlockingIOError):
            return np.concatenate(made)


def noisy(samples: Floats, rate: int) -> Floats:
    """A sound with white noise, 20 dB below it."""
    noise = np.random.default_rng(len(samples)).normal(0, 1, len(samples))
    return samples + 0.1 * np.sqrt(np.square(samples).mean()) * noise


SEMITONE = 2 ** (1 / 12)
OF_SOUNDS: dict[str, Callable[[Floats, int], Floats]] = {
    "as it is": lambda one, rate: one,
    AGAIN: mp3,
    "with noise": noisy,
    "quieter": lambda one, rate: 0.2 * one,
    "trimmed by a quarter": lambda one, rate: one[len(one) // 4 + 333 :],
    "sped up 1.1 times": faster,
    "a semitone higher": lambda one, rate: np.asarray(soxr.resample(one, rate * SEMITONE, rate)),
    "a semitone lower": lambda one, rate: np.asarray(soxr.resample(one, rate, rate * SEMITONE)),
}


def sound(samples: Floats, rate: int) -> Sample:
    """The sound as a member, 16 bits."""
    whole = np.round(np.clip(samples, -1, 1) * 32767).astype(np.int32)[:, None]
    encoded = encoded_sound(Sound(samples=whole, bits=16, sample_rate=rate, codec="pcm_s16le", container="wav"))
    return Sample(key="x", members=encoded.members, source="x", sums=encoded.sums)


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


def originals(asked: argparse.Namespace, folder: Path) -> Iterator[tuple[str, dict[str, Sample]]]:
    """The source of each sample, and what is made of it by change, one by one."""
    for location in asked.splits:
        manifest = Manifest.load(location)
        found, own, count = measure(manifest, kept=folder / "kept"), manifest.sources().to_pylist(), 0
        for place in range(len(found)):
            if count == asked.most or place in found.unreadable or found.start[place] == found.start[place + 1]:
                continue
            number, component = int(found.index[place]), found.components[place]
            made = copies_of(manifest, number, component, asked.moving, folder)
            if made:
                count += 1
                yield re.split("[#:]", str(own[number]))[0], made


def copies_of(manifest: Manifest, number: int, name: str, as_clip: bool, folder: Path) -> dict[str, Sample]:
    """A sample as it is and by change; none of a sound of less than a second, or of a window on empty paper, which is
    as flat as what has no hash.
    """
    component = manifest.components[name]
    if component.kind == SOUND.name:
        (data,) = manifest.store.read_many([manifest.member(number, name)])
        rate = int(component.facts_of(number)["sample_rate"])
        whole = np.concatenate(list(decoded_whole(data, name)))[:, 0].astype(np.float64)
        if len(whole) < rate:
            return {}
        return {change: sound(changed(whole, rate), rate) for change, changed in OF_SOUNDS.items()}
    if component.kind == VIDEO.name:
        (data,) = manifest.store.read_many([manifest.member(number, name)])
        clip, fps = every_frame(data), manifest.video(number, name).fps
    else:
        clip, fps = _frames_of(manifest, number, name), 0.0
    if as_clip:
        clip, fps = moving(clip[0], number), 25.0
        if max(float(frame.mean(2).std()) for frame in clip) < 4:
            return {}
    changed = {change: make(clip) for change, make in (CHANGES | (OF_CLIPS if fps else {})).items()}
    if fps:
        return {change: film(one, folder, fps, 35 if change == AGAIN else 20) for change, one in changed.items()}
    return {change: picture(one, 30 if change == AGAIN else 92) for change, one in changed.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("splits", nargs="+")
    parser.add_argument("--most", type=int, default=200, help="the most samples of a split")
    parser.add_argument("--moving", action="store_true", help="make clips of pictures")
    parser.add_argument("--peers", help="a Python that has imagehash and videohash")
    parser.add_argument("--videohash", type=int, default=6, help="how many originals videohash is given")
    asked = parser.parse_args()
    spent, sources, records = time.process_time(), [], []
    with tempfile.TemporaryDirectory() as name:
        split, files = Path(name) / "split", Path(name) / "files"
        split.mkdir()
        some: list[Sample] = []
        for source, made in originals(asked, Path(name)):
            for change, one in made.items():
                key = f"{change.replace(' ', '-').replace('.', '_').replace('%', 'percent')}/{len(sources)}"
                some.append(Sample(key=key, members=one.members, source=key, sums=one.sums))
                if asked.peers:
                    ((suffix, member),) = one.members.items()
                    path = files / f"{key}.{suffix}"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(member.data)
            sources.append(source)
            if len(some) >= AT_ONCE:
                records.append(write_shard(split / f"t-{len(records):06d}.tar", some))
                some = []
        if some:
            records.append(write_shard(split / f"t-{len(records):06d}.tar", some))
        modality = {"mp4": "video", "jpg": "image", "flac": "audio"}[next(iter(one.members))]
        info = DatasetInfo(dataset="t", split="train", modality=modality, profile="train", label_names=(), settings={})
        finish_split(split, info, records, [])
        print(f"{len(sources) * len(made)} samples made in {time.process_time() - spent:.0f} CPU s", flush=True)
        scenes = report(split, [*made], sources)
        if asked.peers:
            report_peers(asked.peers, asked.videohash, files, scenes)


def report(split: Path, names: Sequence[str], sources: Sequence[str]) -> Ints:
    """Prints recall by change, pairs that are none, and CPU time; the changes of an original follow each other. Returns
    the scene of each original.

    sources: of the originals. Parts of one file may show the same, so pairs of one source are not counted as wrong.
    """
    spent = time.process_time()
    found = measure(split)
    measured = time.process_time() - spent
    pairs = alike(found, found)
    searched = time.process_time() - spent - measured
    mirrored = alike(found, found, mirrored=True)
    of = np.unique(np.array(sources), return_inverse=True)[1]
    before = pairs[(pairs % len(names) == 0).all(1)] // len(names)
    for a, b in before.tolist():
        of[of == of[b]] = of[a]  # originals that are alike before they are changed
    apart = sorted((sources[a], sources[b]) for a, b in before.tolist() if sources[a] != sources[b])
    print(
        f"{len(sources)} originals of {len(set(of.tolist()))} scenes; of other sources and alike: {len(apart)} {apart}"
    )
    own, with_mirrored = ({(a, b) for a, b in some.tolist()} for some in (pairs, mirrored))
    for at, name in enumerate(names[1:], start=1):
        right = with_mirrored if name in WITH_OPTION else own
        hits = sum((first, first + at) in right for first in range(0, len(found), len(names)))
        print(f"  {name:<22} {hits / len(sources):.3f}")
    others = len(found) * (len(found) - 1) // 2
    for which, some in (("", pairs), (", with --mirrored", mirrored)):
        a, b = (of[some[:, side] // len(names)] for side in (0, 1))
        wrong = int((a != b).sum())
        print(f"pairs of other scenes{which}: {wrong} of {others} ({wrong / others:.1e})")
    print(f"CPU ms a sample: measured {1e3 * measured / len(found):.1f}, searched {1e3 * searched / len(found):.2f}")
    return of


def report_peers(python: str, most: int, files: Path, of: Ints) -> None:
    """Prints the same of the hashes of peers, which are given the samples as files. of: the scene of each original."""
    script = Path(__file__).with_name("copies_peers.py")
    made = subprocess.run([python, script, files, str(most)], check=True, capture_output=True, text=True)
    for peer, found in json.loads(made.stdout).items():
        hashes = found["hashes"]
        changes = np.array([name.split("/")[0] for name in hashes])
        numbers = np.array([int(Path(name).stem) for name in hashes])
        bits = np.unpackbits(np.array([list(bytes.fromhex(one)) for one in hashes.values()], np.uint8), axis=1)
        signs, scenes = 2 * bits.astype(np.float32) - 1, of[numbers]
        counts = np.zeros(bits.shape[1] + 1, np.int64)
        for first in range(len(signs)):
            apart = np.rint((bits.shape[1] - signs[first + 1 :] @ signs[first]) / 2).astype(np.int64)
            counts += np.bincount(apart[scenes[first + 1 :] != scenes[first]], minlength=len(counts))
        false, pairs = counts.cumsum(), len(hashes) * (len(hashes) - 1) // 2
        limit = int(np.searchsorted(false, 1e-4 * pairs, side="right")) - 1
        print(f"{peer}: {len(hashes)} samples, at most {limit} of {bits.shape[1]} bits, {false[max(limit, 0)]} false")
        whole = {number: place for place, number in enumerate(numbers) if changes[place] == "as-it-is"}
        for change in dict.fromkeys(changes):
            places = np.flatnonzero(changes == change)
            hits = [(bits[place] != bits[whole[numbers[place]]]).sum() <= limit for place in places]
            print(f"  {change:<22} {np.mean(hits):.3f}")
        print(f"CPU ms a sample: {1e3 * found['seconds'] / len(hashes):.1f}", flush=True)


if __name__ == "__main__":
    main()
