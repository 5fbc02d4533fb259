"""Planes to pixels: CPU us of a frame by the kernel, and by OpenCV's resizes of planes and its conversion, in turns.

    OMP_NUM_THREADS=1 python benchmarks/planes.py [--rounds 40] [--videos VIDEO ...]

Both get the same frames and crops. The difference is between their pixels, in levels. Floats are those of
`pixel_values` from a frame's pixels, by looking levels up and by torch's arithmetic. Times are the least of the rounds.

--videos: instead, pixels of random resized crops of their frames, scaled to 340x256, beside float64: bilinear planes
that are not rounded (`planes rounded`: that are rounded to levels, as both have them), and colours rounded once. Those
that are not BT.601 in limited range are left out, since OpenCV takes all for that.
"""

import argparse
import json
from collections import defaultdict
from itertools import combinations
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
import torch
from av.video.frame import VideoFrame
from machine import facts
from turns import least_ms

from maskstream.pipelines.augment.crop import Crop, RandomResizedCrop
from maskstream.pipelines.decode.cpu import HALF_CHROMA, cut_planes, read_colours, to_rgb, yuv_to_rgb
from maskstream.pipelines.modalities.video.batch import IMAGENET_MEAN, IMAGENET_STD, normalised
from maskstream.pipelines.modalities.video.rows import on_chroma_grid

UInt8s = npt.NDArray[np.uint8]
CASES = (
    ((340, 256), Crop(x=20, y=0, width=256, height=256), 224),
    ((340, 256), Crop(x=20, y=0, width=224, height=224), 224),
    ((340, 256), Crop(x=20, y=0, width=168, height=192, flip=True), 224),
    ((1920, 1080), Crop(x=200, y=0, width=1080, height=1080), 224),
)
FRAMES = 16


def frames_of(width: int, height: int) -> list[VideoFrame]:
    """Waves and noise."""
    draw = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    frames = []
    for n in range(FRAMES):
        waves = np.stack([np.sin((x + 9 * n) / 13), np.cos(y / 11), np.sin((x + y) / 17)], axis=-1)
        picture = (128 + 90 * waves + draw.normal(0, 12, (height, width, 3))).clip(0, 255).astype(np.uint8)
        frames.append(av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p"))
    return frames


def by_opencv(frames: list[VideoFrame], crop: Crop, size: int, out: UInt8s) -> None:
    """Each plane resized, averaging areas if it shrinks to half or less, and all converted as BT.601."""
    rows = [np.s_[:size], *(np.s_[size + n * size // 4 : size + (n + 1) * size // 4] for n in (0, 1))]
    stacked = np.empty((size * 3 // 2, size), np.uint8)
    way = cv2.INTER_AREA if max(crop.width, crop.height) >= 2 * size else cv2.INTER_LINEAR
    for frame, to in zip(frames, out, strict=True):
        for plane, part, side in zip(cut_planes(frame, crop), rows, (size, size // 2, size // 2), strict=True):
            cv2.resize(plane, (side, side), dst=stacked[part].reshape(side, side), interpolation=way)
        cv2.cvtColor(stacked, cv2.COLOR_YUV2RGB_I420, dst=to)
        if crop.flip:
            to[...] = cv2.flip(to, 1)


def in_floats(frame: VideoFrame, crop: Crop, size: int, *, rounded: bool) -> UInt8s:
    """The pixels by float64; rounded: planes are rounded to levels."""
    planes = []
    for plane, side in zip(cut_planes(frame, crop), (size, size // 2, size // 2), strict=True):
        high, wide = (
            np.maximum(
                1 - np.abs(np.clip((np.arange(side)[:, None] + 0.5) * n / side - 0.5, 0, n - 1) - np.arange(n)), 0
            )
            for n in plane.shape
        )
        whole = (high @ plane @ wide.T).repeat(size // side, 0).repeat(size // side, 1)
        planes.append(np.floor(whole + 0.5) if rounded else whole)
    planes[0] = np.maximum(planes[0], 16)  # black
    made = np.stack([*planes, np.ones_like(planes[0])], axis=-1) @ yuv_to_rgb(*HALF_CHROMA).T
    levels = np.floor(np.clip(made, 0, 255) + 0.5).astype(np.uint8)
    return levels[:, ::-1] if crop.flip else levels


def ssim(one: UInt8s, other: UInt8s) -> float:
    """The mean over windows of 7 x 7 and channels (Wang et al., 2004, with uniform windows)."""
    a, b = one.astype(np.float64), other.astype(np.float64)
    mean_a, mean_b, aa, bb, ab = (cv2.blur(of, (7, 7))[3:-3, 3:-3] for of in (a, b, a * a, b * b, a * b))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    alike = (2 * mean_a * mean_b + c1) * (2 * (ab - mean_a * mean_b) + c2)
    return float((alike / ((mean_a**2 + mean_b**2 + c1) * (aa - mean_a**2 + bb - mean_b**2 + c2))).mean())


def compare(videos: list[Path], size: int = 224) -> None:
    """Prints how near the pixels are to each other's."""
    draw, found = np.random.default_rng(0), defaultdict[tuple[str, str], list[tuple[float, ...]]](list)
    for video in videos:
        with av.open(str(video)) as file:
            frames = [
                frame.reformat(340, 256, "yuv420p") for frame, _ in zip(file.decode(video=0), range(31), strict=False)
            ]
        for frame in frames[::10] * 4 if read_colours(frames[0]) == HALF_CHROMA else ():
            crop = on_chroma_grid(RandomResizedCrop().draw(340, 256, size, draw), 340, 256)
            ours, theirs = (np.empty((1, size, size, 3), np.uint8) for _ in range(2))
            to_rgb([frame], crop, (size, size), ours)
            by_opencv([frame], crop, size, theirs)
            made = {"kernel": ours[0], "OpenCV": theirs[0]}
            made |= {
                name: in_floats(frame, crop, size, rounded=name != "float64") for name in ("planes rounded", "float64")
            }
            for pair in combinations(made, 2):
                one, other = (made[name] for name in pair)
                apart = one.astype(int) - other
                found[pair].append((ssim(one, other), np.abs(apart).mean(), np.abs(apart).max(), apart.mean()))
    for pair, values in found.items():
        alike, mean, most, bias = zip(*values, strict=True)
        print(
            f"{' and '.join(pair)}: SSIM {np.mean(alike):.5f} (least {min(alike):.5f}), apart by {np.mean(mean):.2f} "
            f"levels, at most {max(most):.0f}, on average {np.mean(bias):+.2f}; {len(values)} frames"
        )


def by_torch(pixels: torch.Tensor) -> torch.Tensor:
    """The floats of each frame by division and subtraction."""
    mean, std = (torch.tensor(of).view(3, 1, 1) for of in (IMAGENET_MEAN, IMAGENET_STD))
    out = torch.empty(len(pixels), 3, *pixels.shape[1:3])
    for to, frame in zip(out, pixels, strict=True):
        to.copy_(frame.permute(2, 0, 1)).div_(255.0).sub_(mean).div_(std)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--videos", type=Path, nargs="+")
    rounds, videos = (arguments := parser.parse_args()).rounds, arguments.videos
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    if videos:
        compare(videos)
        return
    for (width, height), crop, size in CASES:
        frames = frames_of(width, height)
        ours, theirs = (np.empty((FRAMES, size, size, 3), np.uint8) for _ in range(2))
        found = least_ms(
            {
                "kernel": lambda: to_rgb(frames, crop, (size, size), ours),  # noqa: B023
                "OpenCV": lambda: by_opencv(frames, crop, size, theirs),  # noqa: B023
            },
            rounds,
        )
        difference = np.abs(ours.astype(int) - theirs)
        print(
            f"{width}x{height}, {crop.width}x{crop.height} to {size}{', flipped' if crop.flip else ''}: "
            + ", ".join(f"{name} {1e3 * ms / FRAMES:.0f} us" for name, ms in found.items())
            + f"; ratio {found['kernel'] / found['OpenCV']:.2f}; apart by {difference.mean():.2f}, at most "
            f"{difference.max()}"
        )
    pixels = torch.from_numpy(ours)
    values = least_ms(
        {
            "looked up": lambda: normalised(pixels, IMAGENET_MEAN, IMAGENET_STD, torch.float32),
            "torch": lambda: by_torch(pixels),
        },
        rounds,
    )
    print("floats of a frame: " + ", ".join(f"{name} {1e3 * ms / FRAMES:.0f} us" for name, ms in values.items()))
    print(json.dumps(facts(("numpy", "numba", "torch", "av", "opencv-python-headless"))))


if __name__ == "__main__":
    main()
