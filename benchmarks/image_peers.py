"""Pictures as random crops of 224 x 224 pixels, alone and with a text: maskstream and its peers.

The pictures are JPEG files of frames of the sample videos, of the size of ImageNet's and of a camera's. All take the
crops that maskstream draws.
"""

import importlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import torch
from array_peers import ONE, made
from clips import FOOTAGE
from contest import Contest, Make, batched, by_batch, lance_of, mds_of, ours, tar_of, webdataset_of

from maskstream.pipelines import image_loader, image_text_loader, masks
from maskstream.pipelines.augment.crop import Crop
from maskstream.pipelines.modalities.image.data import ImageData
from maskstream.pipelines.modalities.image_text.data import ImageTextData
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.stream.sampler import Wanted
from maskstream.samples.video.sample import sample
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.tokenizer import read_tokenizer

SIZE, BATCH = 224, 32
SETS = {"500x375": (500, 375, 96, 128), "1280x960": (1280, 960, 90, 32)}
"""Width, height, quality and number of the pictures."""
WORDS, LENGTH = 40, 64
UInt8s = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """A picture and what is shown of it."""

    key: str
    index: int
    file: Path
    crop: Crop

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of the crop."""
        return self.crop.x, self.crop.y, self.crop.x + self.crop.width, self.crop.y + self.crop.height


def write_pictures(media: Path, folder: Path, width: int, height: int, quality: int, count: int) -> None:
    """Parts of frames of the sample videos as JPEG files."""
    paths = {source.path.stem: source.path for split in sample(media).splits.values() for source in split}
    rng = np.random.default_rng(0)
    frames = []
    for name in FOOTAGE:
        with av.open(str(paths[name])) as container:
            frames += [frame.to_ndarray(format="bgr24") for frame in islice(container.decode(video=0), 0, None, 17)]
    for i in range(count):
        frame = frames[i % len(frames)]
        h, w = frame.shape[:2]
        part_w = int(min(w, h * width / height) * rng.uniform(0.55, 1))
        part_h = part_w * height // width
        x, y = int(rng.integers(w - part_w + 1)), int(rng.integers(h - part_h + 1))
        part = cv2.resize(frame[y : y + part_h, x : x + part_w], (width, height), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{i:04d}.jpg"), part, [cv2.IMWRITE_JPEG_QUALITY, quality])


def shown_by(sampler: Any, samples: list[Any], crop_of: Callable[[Any], Crop]) -> Callable[[int], list[Shown]]:
    """What a sampler shows in an epoch."""

    def items(epoch: int) -> list[Shown]:
        plans = sampler.request(Wanted.of([one.index for one in samples], epoch)).plans
        about = zip(samples, plans, strict=True)
        return [Shown(key=one.key, index=one.index, file=one.file, crop=crop_of(plan)) for one, plan in about]

    return items


def images(data: Path, media: Path) -> Iterator[Contest]:
    """Pictures alone."""
    for name, form in SETS.items():
        folder = data / f"image-{name}"
        split, samples = made(folder, "image-folder", lambda raw, form=form: write_pictures(media, raw, *form))
        sampler = ImageData().sampler(Split.open(split, "image", device="cpu", threads=1, seed=0))
        contest = Contest(
            name=f"image-{name}",
            title=f"A random crop of a JPEG file at 224 x 224, batches of {BATCH}",
            column=name,
            unit="ms",
            items=shown_by(sampler, samples, lambda plan: plan.crops[0]),
            rows_of=lambda batch: batch.image.numpy(),
            difference=lambda one, other: float(np.abs(other.astype(np.float32) - one).mean()),
            most=6.0,
        )
        contest.add("maskstream", "", lambda split=split: ours(image_loader(split, batch_size=BATCH, **ONE)))
        masked = {"mask": masks.Random(ratio=0.75), **ONE}
        contest.add(
            "maskstream, 75 % masked",
            "",
            lambda split=split, masked=masked: ours(image_loader(split, batch_size=BATCH, **masked)),
            same=False,
        )
        pixels, _ = made(folder, "image-folder", lambda raw: None, ["store=pixels"])
        loader = image_loader(pixels, batch_size=BATCH, **ONE)
        contest.add("maskstream, stored as pixels", "", lambda loader=loader: ours(loader), same=False)
        _add_peers(contest, folder, samples)
        yield contest


def _add_peers(contest: Contest, folder: Path, samples: list[Any]) -> None:
    """The readers of files and of sets."""
    files: dict[str, tuple[str, Callable[[bytes, Shown], UInt8s]]] = {
        "torchvision": ("torchvision.io", with_torchvision),
        "torchcodec": ("torchcodec.decoders torchvision", with_torchcodec),
        "simplejpeg (fast DCT), OpenCV": ("simplejpeg", with_simplejpeg),
        "OpenCV": ("cv2", with_opencv),
        "PIL": ("PIL.Image", with_pil),
        "PIL, draft": ("PIL.Image", partial(with_pil, draft=True)),
        "SPDL": ("spdl.io", with_spdl),
    }
    for name, (needs, read) in files.items():
        make = batched(lambda one, read=read: read(one.file.read_bytes(), one), BATCH)
        contest.add(name, needs, lambda make=make: make)

    def webdataset() -> Make:
        tar = tar_of(folder / "plain.tar", ((f"{one.index:06d}.jpg", one.file.read_bytes()) for one in samples))
        return webdataset_of(tar, lambda one, item: with_torchvision(one["jpg"], item), BATCH)

    def mds() -> Make:
        stored = mds_of(folder / "mds", {"jpg": "bytes"}, ({"jpg": one.file.read_bytes()} for one in samples))
        return batched(lambda item: with_torchvision(stored[item.index]["jpg"], item), BATCH)

    def hf_datasets() -> Make:
        datasets = importlib.import_module("datasets")
        held = {"image": [{"bytes": one.file.read_bytes(), "path": None} for one in samples]}
        table = datasets.Dataset.from_dict(held, features=datasets.Features({"image": datasets.Image()}))
        return batched(lambda item: _pil_shown(table[item.index]["image"].convert("RGB"), item), BATCH)

    def lance() -> Make:
        pa = importlib.import_module("pyarrow")
        jpegs = pa.array([one.file.read_bytes() for one in samples], pa.large_binary())
        stored = lance_of(folder / "lance", pa.table({"jpg": jpegs}))

        def read(items: list[Shown]) -> UInt8s:
            taken = stored.take([item.index for item in items])["jpg"]
            return np.stack([with_torchvision(one.as_py(), item) for one, item in zip(taken, items, strict=True)])

        return by_batch(read, BATCH)

    contest.add("webdataset, torchvision, in order", "webdataset torchvision.io", webdataset, in_order=True)
    contest.add("MDS, torchvision", "streaming torchvision.io", mds)
    contest.add("lance, torchvision", "lance torchvision.io", lance)
    contest.add("HF datasets, PIL", "datasets PIL.Image", hf_datasets)
    contest.missing.append("FFCV: it has no wheel, and its sources need OpenCV's and libjpeg-turbo's headers")


def _resized(pixels: torch.Tensor, item: Shown) -> UInt8s:
    """torchvision's crop, resize and flip of uint8 (3, H, W), as (224, 224, 3)."""
    functional = importlib.import_module("torchvision.transforms.v2.functional")
    crop = item.crop
    small = functional.resized_crop(pixels, crop.y, crop.x, crop.height, crop.width, [SIZE, SIZE], antialias=True)
    out: UInt8s = (small.flip(2) if crop.flip else small).permute(1, 2, 0).contiguous().numpy()
    return out


def with_torchvision(data: bytes, item: Shown) -> UInt8s:
    io_ = importlib.import_module("torchvision.io")
    return _resized(io_.decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), io_.ImageReadMode.RGB), item)


def with_torchcodec(data: bytes, item: Shown) -> UInt8s:
    return _resized(importlib.import_module("torchcodec.decoders").decode_jpeg(str(item.file)), item)


def with_simplejpeg(data: bytes, item: Shown) -> UInt8s:
    decode = importlib.import_module("simplejpeg").decode_jpeg
    return _cv2_shown(decode(data, "RGB", fastdct=True, fastupsample=True), item)


def with_opencv(data: bytes, item: Shown) -> UInt8s:
    return _cv2_shown(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB), item)


def _cv2_shown(pixels: Any, item: Shown) -> UInt8s:
    left, top, right, bottom = item.box
    part = pixels[top:bottom, left:right]
    area = min(part.shape[:2]) >= SIZE
    small = cv2.resize(part, (SIZE, SIZE), interpolation=cv2.INTER_AREA if area else cv2.INTER_CUBIC)
    return np.ascontiguousarray(small[:, ::-1]) if item.crop.flip else small.astype(np.uint8, copy=False)


def with_pil(data: bytes, item: Shown, draft: bool = False) -> UInt8s:
    image = importlib.import_module("PIL.Image").open(io.BytesIO(data))
    n = 1
    while draft and min(item.crop.width, item.crop.height) // (2 * n) >= SIZE:
        n *= 2
    if n > 1:
        image.draft("RGB", (image.width // n, image.height // n))
    return _pil_shown(image.convert("RGB"), item, n)


def _pil_shown(image: Any, item: Shown, n: int = 1) -> UInt8s:
    pil = importlib.import_module("PIL.Image")
    box = tuple(value / n for value in item.box)
    small = image.resize((SIZE, SIZE), pil.Resampling.BICUBIC, box=box)
    return np.asarray(small.transpose(pil.Transpose.FLIP_LEFT_RIGHT) if item.crop.flip else small)


def with_spdl(data: bytes, item: Shown) -> UInt8s:
    spdl, crop = importlib.import_module("spdl.io"), item.crop
    frames = spdl.decode_packets(
        spdl.demux_image(data),
        filter_desc=f"crop={crop.width}:{crop.height}:{crop.x}:{crop.y}:exact=1,"
        f"scale={SIZE}:{SIZE}:flags=bicubic:threads=1{',hflip' if crop.flip else ''},format=rgb24",
        decode_config=spdl.decode_config(decoder_options={"threads": "1"}),
    )
    out: UInt8s = spdl.to_numpy(spdl.convert_frames(frames))
    return out


def pairs(data: Path, media: Path) -> Iterator[Contest]:
    """Pictures with a text of 40 words."""
    folder = data / "image-text"

    def write(raw: Path) -> None:
        write_pictures(media, raw, *SETS["500x375"])
        rng = np.random.default_rng(0)
        for path in sorted(raw.glob("*.jpg")):
            text = " ".join(f"word{n}" for n in rng.zipf(1.3, WORDS).clip(max=3000))
            path.with_suffix(".txt").write_text(text)

    split, samples = made(folder, "image-text-folder", write)
    manifest = Manifest.load(split)
    tokenizer = importlib.import_module("tokenizers").Tokenizer.from_buffer(
        read_tokenizer(manifest.store, manifest.info)
    )
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH)
    sampler = ImageTextData(length=LENGTH).sampler(Split.open(split, "image-text", device="cpu", threads=1, seed=0))

    def read(decode: Callable[[bytes, Shown], UInt8s], sample: dict[str, Any], item: Shown) -> Any:
        return decode(sample["jpg"], item), tokenizer.encode(sample["txt"].decode()).ids

    def stack(rows: list[Any]) -> Any:
        pictures, tokens = np.stack([row[0] for row in rows]), torch.tensor([row[1] for row in rows])
        return list(zip(pictures, tokens, strict=True))

    def webdataset(decode: Callable[[bytes, Shown], UInt8s]) -> Make:
        files = ((one.file, one.file.with_suffix(".txt")) for one in samples)
        members = ((f"{i:06d}{file.suffix}", file.read_bytes()) for i, pair in enumerate(files) for file in pair)
        return webdataset_of(tar_of(folder / "plain.tar", members), partial(read, decode), BATCH, stack)

    def files(decode: Callable[[bytes, Shown], UInt8s]) -> Make:
        def sample(item: Shown) -> Any:
            return read(
                decode, {"jpg": item.file.read_bytes(), "txt": item.file.with_suffix(".txt").read_bytes()}, item
            )

        return batched(sample, BATCH, stack)

    contest = Contest(
        name="image-text",
        title=f"A JPEG file of 500x375 with {WORDS} words in {LENGTH} tokens, batches of {BATCH}",
        unit="ms",
        items=shown_by(sampler, samples, lambda plan: plan.image.crops[0]),
        rows_of=lambda batch: [*zip(batch.image.numpy(), batch.text.tokens, strict=True)],
        difference=lambda one, other: float(np.abs(other[0].astype(np.float32) - one[0]).mean()),
        most=6.0,
    )
    contest.add("maskstream", "", lambda: ours(image_text_loader(split, length=LENGTH, batch_size=BATCH, **ONE)))
    webs = (("torchvision", "torchvision.io", with_torchvision), ("PIL", "PIL.Image", with_pil))
    for name, needs, decode in webs:
        contest.add(
            f"webdataset, {name}, tokenizers, in order",
            f"webdataset tokenizers {needs}",
            lambda decode=decode: webdataset(decode),
            in_order=True,
        )
        contest.add(f"files, {name}, tokenizers", f"tokenizers {needs}", lambda decode=decode: files(decode))
    yield contest
