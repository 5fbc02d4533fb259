"""Colour jitter: random changes of brightness, contrast, saturation and hue, for an image or all frames of a clip."""

from dataclasses import dataclass
from math import cos, pi, sin
from typing import Annotated

import numpy as np
import numpy.typing as npt

from maskstream.shards.arrays import UInt8s
from maskstream.shards.config import Config
from maskstream.shards.limits import Bounds, NaturalFloat, Proportion

KERNELS = ("cv2",)  # imported by the server of workers, which share it
Matrix = npt.NDArray[np.float64]

_LUMA = np.array([0.299, 0.587, 0.114])
_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_RGB = np.linalg.inv(_YIQ)


@dataclass(frozen=True, kw_only=True, slots=True)
class ColourJitter(Config):
    """Change brightness, contrast, saturation and hue in random order.

    Each change is linear in the colours, so all four are combined into one matrix. Source: torchvision's ColorJitter
    (after Chen et al., 2020), with two differences: values are clipped once, at the end, and hue rotates in YIQ instead
    of HSV.
    """

    brightness: NaturalFloat = 0.4
    """Bound of the factor of all values, drawn uniformly from [max(0, 1 - bound), 1 + bound]."""
    contrast: NaturalFloat = 0.4
    """Bound of the factor of the difference from the image's mean grey, drawn in the same way."""
    saturation: NaturalFloat = 0.4
    """Bound of the factor of the difference from the pixel's grey, drawn in the same way."""
    hue: Annotated[float, Bounds(min=0, max=0.5, note="turns")] = 0.0
    """Bound of the hue rotation, drawn uniformly from [-bound, bound] turns; at most 0.5."""
    share: Proportion = 1.0
    """Probability of any change."""

    def __call__(self, image: UInt8s, rng: np.random.Generator) -> None:
        """Change the colours of `image`, uint8 (H, W, 3), RGB, in place."""
        if rng.random() >= self.share:
            return
        import cv2

        mean = image.reshape(-1, 3).mean(axis=0)
        cv2.transform(image, self.matrix(mean, rng), dst=image)

    def matrix(self, mean: Matrix, rng: np.random.Generator) -> Matrix:
        """Draw the matrix, float64 (3, 4), that maps (R, G, B, 1) to the new colour.

        `mean` is the mean colour of the image, float64 (3,).
        """
        bounds = (self.brightness, self.contrast, self.saturation)
        brightness, contrast, saturation = (rng.uniform(max(0.0, 1 - bound), 1 + bound) for bound in bounds)
        turn = rng.uniform(-self.hue, self.hue)
        whole = np.eye(4)
        for number in rng.permutation(4).tolist():
            step = np.eye(4)
            if number == 0:
                step[:3, :3] *= brightness
            elif number == 1:
                grey = _LUMA @ (whole @ np.append(mean, 1.0))[:3]
                step[:3, :3] *= contrast
                step[:3, 3] = (1 - contrast) * grey
            elif number == 2:
                step[:3, :3] = saturation * np.eye(3) + (1 - saturation) * np.tile(_LUMA, (3, 1))
            else:
                step[:3, :3] = _rotate_hue(turn)
            whole = step @ whole
        return np.ascontiguousarray(whole[:3])


def _rotate_hue(turn: float) -> Matrix:
    """Return the matrix, float64 (3, 3), that rotates the hue by `turn` turns."""
    angle = 2 * pi * turn
    rotation = np.eye(3)
    rotation[1:, 1:] = [[cos(angle), -sin(angle)], [sin(angle), cos(angle)]]
    turned: Matrix = _RGB @ rotation @ _YIQ
    return turned
