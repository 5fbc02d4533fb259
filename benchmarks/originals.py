"""How often `maskstream curate --copies` keeps the original of a near-duplicate pair, by kind of copy.

    python benchmarks/originals.py WORK --images FOLDER [FOLDER ...] --videos FOLDER [FOLDER ...]

Windows of photographs (384x288) become JPEGs of quality 72 to 96, windows of films and of a camera that moves over
photographs clips of 40 frames (320x240, crf 16 to 26). A copy is made from the decoded original and encoded again,
images at a quality of 60 to 96 and clips at a crf of 16 to 26, both drawn. Half of the copies have a key before the
original's. Prints kind, pairs, groups of near-duplicates, the fraction of these in which an original is kept, and how
many samples go as copies of another window, such as one of the same film. Splits are kept in WORK, which is created.
"""

import argparse
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt

from maskstream.preprocess.curate import curate
from maskstream.preprocess.encode.video.video import PROFILES, encode_video
from maskstream.shards.format.dataset import finish_split
from maskstream.shards.format.sample import DatasetInfo, Sample
from maskstream.shards.format.writer import write_shard
from maskstream.shards.members.image import image_member
from maskstream.shards.members.text import json_member
from maskstream.shards.members.video import video_member

UInt8s = npt.NDArray[np.uint8]
Random = np.random.Generator


def with_logo(image: UInt8s, random: Random) -> UInt8s:
    """A word with an edge, a box of one colour, or a translucent word, near a corner."""
    made, kind = image.copy(), random.integers(3)
    height, width = made.shape[:2]
    side = random.uniform(0.12, 0.25)
    x, y = int(random.choice([0.04, 0.94 - side]) * width), int(random.choice([0.05, 0.85]) * height)
    at = (x, y + int(0.1 * height))
    if kind == 1:
        made[y : y + int(0.11 * height), x : x + int(side * width)] = random.integers(0, 256, 3)
        return made
    for colour, thick in ((0, 4), (255, 2)) if kind == 0 else ((255, 2),):
        cv2.putText(made, "LOGO", at, cv2.FONT_HERSHEY_SIMPLEX, width * side / 90, (colour,) * 3, thick, cv2.LINE_AA)
    strength = 1 if kind == 0 else random.uniform(0.5, 0.9)
    return np.asarray(cv2.addWeighted(made, strength, image, 1 - strength, 0)).astype(np.uint8)


def toned(image: UInt8s, gain: float, offset: float) -> UInt8s:
    changed: UInt8s = np.clip(np.rint(image * np.float32(gain) + offset), 0, 255).astype(np.uint8)
    return changed


def scaled(image: UInt8s, factor: float, random: Random) -> UInt8s:
    size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
    kernels = (cv2.INTER_AREA if factor < 1 else cv2.INTER_LANCZOS4, cv2.INTER_LINEAR, cv2.INTER_CUBIC)
    return np.asarray(cv2.resize(image, size, interpolation=int(random.choice(kernels))), np.uint8)


def cropped(image: UInt8s, fraction: float) -> UInt8s:
    top, left = (round(side * fraction / 2) for side in image.shape[:2])
    return np.ascontiguousarray(image[top : image.shape[0] - top, left : image.shape[1] - left])


def with_contrast(image: UInt8s, gain: float) -> UInt8s:
    return toned(image, gain, 128 * (1 - gain))


KINDS: dict[str, Callable[[UInt8s, Random], UInt8s]] = {
    "encoded at lower quality": lambda image, random: image,
    "logo": with_logo,
    "brighter": lambda image, random: toned(image, random.uniform(1.08, 1.3), random.uniform(0, 15)),
    "darker": lambda image, random: toned(image, random.uniform(0.7, 0.92), random.uniform(-15, 0)),
    "more contrast": lambda image, random: with_contrast(image, random.uniform(1.1, 1.3)),
    "less contrast": lambda image, random: with_contrast(image, random.uniform(0.7, 0.9)),
    "cropped": lambda image, random: cropped(image, random.uniform(0.03, 0.14)),
    "scaled down": lambda image, random: scaled(image, random.uniform(0.4, 0.85), random),
    "scaled up": lambda image, random: scaled(image, random.uniform(1.2, 2.2), random),
}
LOWER = next(iter(KINDS))


def windows(folders: list[Path], most: int) -> Iterator[UInt8s]:
    """Windows of photographs side by side, 30 of each at most, none of them flat."""
    found = 0
    for number, path in enumerate(sorted(one for folder in folders for one in folder.rglob("*.*"))):
        image = cv2.imread(str(path)) if path.suffix in (".jpg", ".png") else None
        if image is None or min(image.shape[0] / 288, image.shape[1] / 384) < 1:
            continue
        random = np.random.default_rng(number)
        shrink = max(1.0, min(random.uniform(1, 2.2), image.shape[0] / 288, image.shape[1] / 384))
        image = np.asarray(
            cv2.resize(image, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA), np.uint8
        )
        places = [*itertools.product(range(0, image.shape[0] - 287, 288), range(0, image.shape[1] - 383, 384))]
        for y, x in random.permutation(places)[:30]:
            window = image[y : y + 288, x : x + 384].astype(np.uint8)
            if cv2.cvtColor(window, cv2.COLOR_BGR2GRAY).std() >= 12:
                found += 1
                yield window
            if found == most:
                return


def clips(videos: list[Path], images: list[Path], most: int) -> Iterator[list[UInt8s]]:
    """Parts of films, 40 frames each, then windows that move over photographs."""
    found = 0
    for path in sorted(one for folder in videos for one in folder.rglob("*.mp4")):
        frames = [fitted(frame) for frame in itertools.islice(frames_of(path), 480)]
        for first in range(0, len(frames) - 40, 45):
            found += 1
            yield frames[first : first + 40]
    random = np.random.default_rng(5)
    for image in windows(images, 10_000):
        if found == most:
            return
        found += 1
        begin, end = random.uniform(0, 1, (2, 2)) * [64, 48]
        places = [begin + part * (end - begin) for part in np.linspace(0, 1, 40)]
        moves = [np.array([[1, 0, x], [0, 1, y]]) for x, y in places]
        how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        yield [np.asarray(cv2.warpAffine(image, move, (320, 240), flags=how), np.uint8) for move in moves]


def fitted(frame: UInt8s) -> UInt8s:
    """The frame, scaled and cut to 320x240."""
    scale = max(320 / frame.shape[1], 240 / frame.shape[0]) + 1e-3
    return np.asarray(cv2.resize(frame, None, fx=scale, fy=scale), np.uint8)[:240, :320]


def frames_of(path: Path) -> Iterator[UInt8s]:
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)


def film(frames: list[UInt8s], crf: int, path: Path) -> Path:
    height, width = (side // 2 * 2 for side in frames[0].shape[:2])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": str(crf), "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="bgr24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def image_pair(job: tuple[UInt8s, str, int, Path]) -> list[Sample]:
    """An original and its copy."""
    image, kind, number, _ = job
    random = np.random.default_rng([number, [*KINDS].index(kind)])
    quality = int(random.integers(72, 97))
    data = [bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1])]
    decoded = np.asarray(cv2.imdecode(np.frombuffer(data[0], np.uint8), cv2.IMREAD_COLOR), np.uint8)
    changed = KINDS[kind](decoded, random)
    again = int(random.integers(25, quality - 4) if kind == LOWER else random.integers(60, 97))
    data.append(bytes(cv2.imencode(".jpg", changed, [cv2.IMWRITE_JPEG_QUALITY, again])[1]))
    return [
        Sample(key=key, members={"jpg": image_member(one, *some.shape[1::-1])}, source=key)
        for key, one, some in zip(keys(number), data, (image, changed), strict=True)
    ]


def clip_pair(job: tuple[list[UInt8s], str, int, Path]) -> list[Sample]:
    """The same of a clip."""
    frames, kind, number, work = job
    random = np.random.default_rng([number, [*KINDS].index(kind)])
    crf, seed, samples = int(random.integers(16, 27)), int(random.integers(1 << 30)), []
    again = crf + int(random.integers(8, 15)) if kind == LOWER else int(random.integers(16, 27))
    path = film(frames, crf, work / f"{number}.mp4")
    for key in keys(number):
        video = encode_video(path, PROFILES["train"])
        members = {"mp4": video_member(video.data, video.index), "json": json_member(video.meta)}
        samples.append(Sample(key=key, members=members, source=key))
        changed = [KINDS[kind](frame, np.random.default_rng(seed)) for frame in frames_of(path)]
        path = film(changed, again, work / f"{number}-copy.mp4") if len(samples) == 1 else path
    return samples


def keys(number: int) -> tuple[str, str]:
    """Of an original and its copy."""
    return f"{number:04d}/original", f"{number:04d}/{'copy' if number % 2 else 'zcopy'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--images", type=Path, nargs="+", required=True)
    parser.add_argument("--videos", type=Path, nargs="+", required=True)
    parser.add_argument("--count", type=int, nargs=2, default=(1000, 200), help="images and clips")
    parser.add_argument("--kinds", nargs="+", default=[*KINDS])
    asked = parser.parse_args()
    asked.work.mkdir(parents=True)
    images, films = [*windows(asked.images, asked.count[0])], [*clips(asked.videos, asked.images, asked.count[1])]
    for modality, some, make in (("image", images, image_pair), ("video", films[: asked.count[1]], clip_pair)):
        for kind in asked.kinds:
            split = asked.work / f"{modality}-{kind.replace(' ', '-')}"
            split.mkdir()
            with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
                pairs = pool.map(make, [(one, kind, number, split) for number, one in enumerate(some)], chunksize=4)
                samples = sorted((one for pair in pairs for one in pair), key=lambda one: one.key)
            record = write_shard(split / "t-000000.tar", samples)
            info = DatasetInfo(
                dataset="t", split="train", modality=modality, profile="train", label_names=(), settings={}
            )
            finish_split(split, info, [record], [])
            found = curate(split, copies=True, max_removed=1.0, dry_run=True)
            key = [*found.measures.manifest.keys(found.measures.index)]
            kept = [key[group[0]].endswith("original") for group in found.copies]
            number = [[key[place].split("/")[0] for place in group] for group in found.copies]
            others = sum(one != group[0] for group in number for one in group)
            print(
                f"{modality:<6} {kind:<26} {len(some):5} pairs, {len(kept):5} groups, "
                f"original kept {np.mean(kept):.3f}, {others} of other windows",
                flush=True,
            )


if __name__ == "__main__":
    main()
