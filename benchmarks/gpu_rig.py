"""What the steps of `make gpu` share: the machine and its arithmetic, videos of every format, loaders, their speed."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any, TypeVar

import av
import numpy as np
import numpy.typing as npt
import torch

from maskstream.pipelines import VideoClip, masks
from maskstream.pipelines.augment import RandomResizedCrop
from maskstream.pipelines.decode.nvdec import missing_torchcodec
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.pipelines.modalities.video.decoders import ENGINES
from maskstream.pipelines.stream.topology import cores, resolve_device
from maskstream.preprocess.encode.video.video import PROFILES, encode_video
from maskstream.shards.format.dataset import finish_split
from maskstream.shards.format.sample import DatasetInfo, Sample
from maskstream.shards.format.writer import write_shard
from maskstream.shards.members.video import video_member

Found = tuple[dict[str, Any], list[str]]
"""What a step returns: its figures, and what it found wrong."""
Value = TypeVar("Value")

ENGINE_BLOCKS_PER_S = (2.9e6, 4.7e6)
"""Macroblocks (16 x 16 pixels) a second that one engine decodes: the least and the most that was published of an H100,
20 to 33 million by seven engines. Other cards are taken to have the same engines."""
RECEIVED_MS = (0.34, 0.9)
"""Python of the main process for each clip: of planes that a worker sends, and of what its own threads decode."""
WAIT_US = (250, 400)
"""Microseconds for which a thread waits for a frame, with mapping and synchronising."""


@dataclass(frozen=True, kw_only=True)
class Rig:
    """Where steps run. card: its name, "" without one. device: of tensors, which a pretended card has on the CPU."""

    card: str
    device: torch.device
    cores: int

    @property
    def is_real(self) -> bool:
        """Whether tensors are on a card."""
        return self.device.type == "cuda"

    @property
    def engines(self) -> int:
        """Engines of NVDEC; 0 if they are not known."""
        return next((ENGINES[word] for word in self.card.replace("-", " ").split() if word in ENGINES), 0)

    def pick(self, on_card: Value, otherwise: Value) -> Value:
        """The first on a card, the second, which is small, on a CPU."""
        return on_card if self.is_real else otherwise

    def wait(self) -> None:
        """Waits for the card."""
        if self.is_real:
            torch.cuda.synchronize(self.device)


def find_rig() -> Rig:
    """This machine, with its current card."""
    device = resolve_device("auto")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return Rig(card=name, device=device, cores=cores())


def expected(rig: Rig, *, packets: float, size: tuple[int, int], cpu_ms: dict[str, float]) -> dict[str, list[int]]:
    """Clips a second by arithmetic, the least and the most, of each thing that limits decoding.

    packets: of a clip. size: width and height of its frames in pixels. cpu_ms: what a clip costs one core, by decoder;
    the least is half of what all cores would give.
    """
    of_cores = {name: rig.cores * 1000 / ms for name, ms in cpu_ms.items()}
    limits = {f"{rig.cores} cores, {name}": [most / 2, most] for name, most in of_cores.items()}
    limits["one process"] = [1000 / ms for ms in reversed(RECEIVED_MS)]
    if rig.engines:
        blocks = packets * -(-size[0] // 16) * -(-size[1] // 16)
        limits[f"{rig.engines} engines of NVDEC"] = [rig.engines * each / blocks for each in ENGINE_BLOCKS_PER_S]
        waits = [rig.cores * 1e6 / (packets * us) for us in reversed(WAIT_US)]
        limits[f"{rig.cores} threads waiting for NVDEC"] = waits
    return {name: [round(each) for each in both] for name, both in limits.items()}


def gops(keyint: int, more: str = "open-gop=0") -> str:
    """Parameters of x264 and x265 for GOPs of `keyint` frames."""
    return f"keyint={keyint}:min-keyint={keyint}:scenecut=0:bframes=3:{more}:log-level=none"


VP9 = {"g": "32", "deadline": "realtime", "cpu-used": "8", "b": "800k"}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Videos of one format. sizes: width and height, in turns. on_cpu: whether "none", "some" or "all" of their clips
    belong on the CPU, or "any" may be decoded there.
    """

    codec: str = "libx264"
    gops: str = gops(32)
    sizes: tuple[tuple[int, int], ...] = ((448, 256),)
    pixels: str = "yuv420p"
    matrix: str = "ITU601"
    level: str = "MPEG"
    on_cpu: str = "none"
    frames: int = 64

    @property
    def options(self) -> dict[str, str]:
        """Those of the encoder."""
        return VP9 if self.codec == "libvpx-vp9" else {f"{self.codec.removeprefix('lib')}-params": self.gops}


KINDS = {
    "340 wide": Kind(sizes=((340, 256),)),
    "448 wide": Kind(),
    "456 wide": Kind(sizes=((456, 256),)),
    "110x90": Kind(sizes=((110, 90),)),
    "headers in the packets": Kind(sizes=((340, 256),), gops=gops(32, "repeat-headers=1"), on_cpu="any"),
    "1080p": Kind(sizes=((1920, 1080),), frames=36),
    "open GOP": Kind(gops=gops(12, "open-gop=1:b-adapt=0"), on_cpu="some"),
    "hevc": Kind(codec="libx265"),
    "hevc, two sizes": Kind(codec="libx265", sizes=((344, 256), (340, 250)), on_cpu="any"),
    "hevc, open GOP": Kind(codec="libx265", gops=gops(12, "open-gop=1")),
    "BT.709": Kind(matrix="ITU709"),
    "full range": Kind(level="JPEG"),
    "High 10": Kind(pixels="yuv420p10le", on_cpu="all"),
}
_VP9 = Kind(codec="libvpx-vp9", sizes=((176, 144),), frames=36)
ON_A_CPU = {"vp9": _VP9, "vp9, BT.709": replace(_VP9, matrix="ITU709")}
"""What DALI decodes without a card."""


def usual(rig: Rig) -> Kind:
    """The videos of steps that need only one kind."""
    return rig.pick(KINDS["448 wide"], ON_A_CPU["vp9"])


@contextmanager
def split_of(kind: Kind, *, videos: int) -> Iterator[Path]:
    """The folder of a split of some videos of a kind, packets unchanged, while a `with` lasts."""
    with tempfile.TemporaryDirectory() as folder:
        yield write_kind(Path(folder) / "split", kind, videos)


def write_kind(folder: Path, kind: Kind, videos: int) -> Path:
    """Writes such a split."""
    folder.mkdir(parents=True)
    samples = []
    for n, size in enumerate(islice(cycle(kind.sizes), videos)):
        path = folder / f"{n}.mkv"
        colours = {"colorspace": 1 if kind.matrix == "ITU709" else 5, "color_range": 2 if kind.level == "JPEG" else 1}
        with av.open(str(path), "w") as container:
            stream = container.add_stream(kind.codec, rate=30, options=kind.options)
            stream.width, stream.height, stream.pix_fmt = *size, kind.pixels
            for name, value in colours.items():
                setattr(stream.codec_context, name, value)
            for number in range(kind.frames):
                frame = av.VideoFrame.from_ndarray(picture(number, size, 31 * n), format="rgb24")
                made = frame.reformat(format=kind.pixels, dst_colorspace=kind.matrix, dst_color_range=kind.level)
                for name, value in colours.items():
                    setattr(made, name, value)
                container.mux(stream.encode(made))
            container.mux(stream.encode(None))
        video = encode_video(path, PROFILES["copy"])
        member = video_member(video.data, video.index)
        samples.append(Sample(key=f"v/{n}", members={"mp4": member}, source=path.name, label=n))
        path.unlink()
    shards = [write_shard(folder / "v-000000.tar", samples)]
    finish_split(folder, DatasetInfo(dataset="v", split="train", modality="video", profile="copy"), shards, [])
    return folder


def picture(number: int, size: tuple[int, int], shift: int = 0) -> npt.NDArray[np.uint8]:
    """A smooth moving pattern, whose brightness tells the number of the frame."""
    y, x = (each.astype(np.float32) for each in np.ogrid[: size[1], : size[0]])
    waves = np.broadcast_arrays(
        np.sin((x + 2 * number + shift) / 9), np.sin((y - number) / 7), np.cos((x + y) / 11 + number / 5)
    )
    return (50 + 2 * number + 40 * np.stack(waves, axis=-1)).clip(0, 255).astype(np.uint8)


DATA = VideoData(clip=VideoClip(frames=16, stride=2, size=224), mask=masks.Tube(), augment=RandomResizedCrop(flip=0.5))
DECODERS: dict[str, dict[str, Any]] = {
    "dali": {"backend": "dali"},
    "torchcodec": {"backend": "torchcodec"},
    "cpu": {"backend": "cpu", "output": "rgb"},
    "cpu, planes": {"backend": "cpu", "output": "yuv"},
}
"""The settings of each way to pixels: by DALI, by torchcodec, on the CPU, and planes of which the device makes them."""


def loader_of(folder: Path, device: torch.device | str, decoder: str, **options: Any) -> Any:
    """A loader of DATA on a split, by one of DECODERS."""
    return replace(DATA, **DECODERS[decoder]).loader(folder, device=device, **{"batch_size": 8, "seed": 1, **options})


def rate_of(loader: Any, rig: Rig, seconds: float) -> tuple[float, float]:
    """Clips a second, and processor time of this process in milliseconds a clip, after a start of the same length.

    A slow loader gets the time of two batches, whatever it is.
    """

    def clips() -> int:
        end, seen = time.perf_counter() + seconds, 0
        while not seen or time.perf_counter() < end:
            seen += len(next(batches))
        rig.wait()
        return seen

    with closing(loader.repeat()) as batches:
        clips()
        start, cpu = time.perf_counter(), time.process_time()
        seen = clips()
        took, spent = time.perf_counter() - start, time.process_time() - cpu
    return round(seen / took, 1), round(1e3 * spent / seen, 2)


def decoders(rig: Rig) -> list[str]:
    """Those of DECODERS that serve the device: planes are for cards, and so is torchcodec where it imports."""
    lacks = {"cpu, planes": not rig.is_real, "torchcodec": not rig.is_real or missing_torchcodec()}
    return [name for name in DECODERS if not lacks.get(name)]


def said(error: Exception) -> str:
    """The kind of an error and the first line of what it says."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
