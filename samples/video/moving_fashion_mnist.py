"""Moving Fashion-MNIST: clips of a garment that moves and bounces, drawn while the shards are written.

They are created like Moving MNIST, from the images that the dataset `fashion-mnist` downloads (31 MB, MIT): 20 frames
of 64 x 64 pixels, ten per second, with one garment of 28 x 28 on a background of smooth colours. The label is the
garment. `train` contains only images of the publisher's training set, `val` only of the test set.

An image keeps its velocity and bounces at the edges. Start, direction and speed are drawn uniformly, as for the digits
of N. Srivastava et al., Unsupervised Learning of Video Representations using LSTMs, ICML 2015. Unlike Moving MNIST, a
clip has one image, and a background whose colours differ from corner to corner, so that a clip's mean colour reveals
little about its image.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import xxhash

from maskstream.preprocess.datasets.dataset import Dataset
from maskstream.preprocess.encode.image.encoder import read_idx_image
from maskstream.preprocess.encode.video.encoder import DrawnClip, VideoEncoder
from maskstream.preprocess.encode.video.profile import BLOCK
from maskstream.preprocess.source import RejectError, Source
from maskstream.samples.image.fashion_mnist import fashion_mnist
from maskstream.shards.arrays import Float64s, Int64s, UInt8s
from maskstream.shards.errors import DatasetError

NAME = "moving-fashion-mnist"
SPEEDS = (1.0, 4.0)
"""Lowest and highest speed, in pixels per frame."""
BRIGHTEST = 128
"""Upper bound of the background's 8-bit intensities. Garments are white where they are opaque."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MovingPicture:
    """The motion of a garment: `frames` frames of `side` pixels square, a multiple of 16, at `fps` frames per second.
    The seed and a source's id determine motion and background. Raises ValueError for other numbers.
    """

    frames: int
    side: int
    fps: int
    seed: int

    def __post_init__(self) -> None:
        if min(self.frames, self.fps, self.side) < 1 or self.side % BLOCK:
            raise ValueError(
                f"frames and fps must be at least 1 and side a multiple of {BLOCK}, got frames={self.frames}, "
                f"fps={self.fps}, side={self.side}"
            )

    def draw(self, picture: UInt8s, id: str) -> list[UInt8s]:
        """Draw the clip of an image.

        Args:
            picture: Grey image, uint8 (H, W), whose values are its opacity.
            id: Id of the source, which seeds the motion.

        Returns:
            Frames uint8 (side, side, 3), RGB.
        """
        height, width = picture.shape
        if max(height, width) >= self.side:
            raise RejectError("check", f"has {width}x{height} pixels and cannot move in {self.side}x{self.side}")
        rng = np.random.Generator(np.random.Philox(key=xxhash.xxh3_128_intdigest(f"{self.seed}/{id}".encode())))
        ground = smooth_ground(rng.uniform(0, BRIGHTEST, (2, 2, 3)), self.side)
        room = np.array((self.side - width, self.side - height))
        angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(*SPEEDS)
        velocity = speed * np.array((np.cos(angle), np.sin(angle)))
        places = reflect_motion(rng.uniform(0, room) + velocity * np.arange(self.frames)[:, None], room)
        return [self._frame(picture, ground, place) for place in places]

    def _frame(self, picture: UInt8s, ground: Float64s, place: Float64s) -> UInt8s:
        """Draw the image over the background with its upper left corner at `place` (x, y), interpolated between
        pixels.
        """
        moved = cv2.warpAffine(picture, np.array(((1, 0, place[0]), (0, 1, place[1]))), (self.side, self.side))
        opacity = moved[:, :, None] / 255
        return np.asarray(np.rint(ground + opacity * (255 - ground)), np.uint8)


def moving_fashion_mnist(
    root: Path, *, clips: int = 2000, frames: int = 20, side: int = 64, fps: int = 10, seed: int = 0
) -> Dataset:
    """Draw clips of Fashion-MNIST images.

    Args:
        root: Folder into which the images are downloaded.
        clips: Number of clips for training; half as many for validation, one for each of the first images.
        frames: Frames of a clip.
        side: Side of a frame in pixels, a multiple of 16.
        fps: Frames per second.
        seed: Random seed of motion and background.

    Raises:
        DatasetError: The download fails, or there are fewer than two clips.
    """
    if clips < 2:
        raise DatasetError(f"{NAME}: clips must be at least 2, got {clips}")
    moving = {"moving": asdict(MovingPicture(frames=frames, side=side, fps=fps, seed=seed))}
    still = fashion_mnist(root)
    counts = {"train": clips, "val": clips // 2}
    splits = {
        split: [replace(source, meta=moving, made_by=draw_clip) for source in sources[: counts[split]]]
        for split, sources in still.splits.items()
    }
    return replace(still, name=NAME, splits=splits, encoder=VideoEncoder())


def draw_clip(source: Source) -> DrawnClip:
    """Draw the clip of image n of the IDX file of a source with the window (n, n + 1)."""
    if source.window is None:
        raise RejectError("check", "has no window (n, n + 1), which selects the image of the file that moves")
    moving = MovingPicture(**source.meta["moving"])
    picture = read_idx_image(source.path, source.window[0]).pixels
    return DrawnClip(frames=moving.draw(picture, source.id), fps=moving.fps)


def reflect_motion(free: Float64s, room: Int64s) -> Float64s:
    """Return positions (..., 2) of a motion without edges, mirrored at the edges of 0 to `room` (2,)."""
    far = room.astype(np.float64)
    return far - np.abs(far - free % (2 * far))


def smooth_ground(corners: Float64s, side: int) -> Float64s:
    """Interpolate colours (side, side, 3) linearly between the corners (2, 2, 3)."""
    far = np.linspace(0, 1, side)
    share = np.stack((1 - far, far), axis=1)
    return np.asarray(np.einsum("yi,xj,ijc->yxc", share, share, corners))
