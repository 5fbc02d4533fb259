"""Planes to pixels: CPU us of a frame by the kernel, and by OpenCV's resizes of planes and its conversion, in turns.

    OMP_NUM_THREADS=1 python benchmarks/planes.py [--rounds 40]

Both get the same frames and crops. The difference is between their pixels, in levels. Floats are those of
`pixel_values` from a frame's pixels, by looking levels up and by torch's arithmetic. Times are the least of the rounds.
"""

import argparse
import json

import av
import cv2
import numpy as np
import numpy.typing as npt
import torch
from av.video.frame import VideoFrame
from machine import facts
from turns import least_ms

from maskstream.pipelines.augment.crop import Crop
from maskstream.pipelines.decode.cpu import cut_planes, to_rgb
from maskstream.pipelines.modalities.video.batch import IMAGENET_MEAN, IMAGENET_STD, normalised

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
    rounds = parser.parse_args().rounds
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
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
