"""User-defined changes of decoded frames and waveforms, and the order of all changes of frames."""

from abc import ABC
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np

from maskstream.shards.arrays import Float32s, UInt8s
from maskstream.shards.config import Config
from maskstream.shards.named import imported

from .colour import ColourJitter

ArrayT = TypeVar("ArrayT", UInt8s, Float32s)


class Transform(Config, ABC):
    """Base class of user-defined changes of decoded frames or waveforms.

    A subclass is a `@dataclass(frozen=True, kw_only=True, slots=True)` that overrides `change_frames`,
    `change_waveform` or both. The class name and settings are part of a loader's identity. Several threads may call it
    at once, so it must not keep state between calls. Do not move pixels: crops, optical flow, boxes and masks are not
    moved along.
    """

    __slots__ = ()

    def change_frames(self, frames: UInt8s, rng: np.random.Generator) -> UInt8s:
        """Change the frames of one view, after crop, resize and colour jitter, and before its mask is drawn.

        Args:
            frames: RGB, uint8 (T, H, W, 3); T is 1 for an image. They may be changed in place.
            rng: Random generator of this sample, epoch and view. Do not use any other, so that any run can be repeated.

        Returns:
            The changed frames, uint8 (T, H, W, 3).
        """
        raise NotImplementedError

    def change_waveform(self, waveform: Float32s, rng: np.random.Generator) -> Float32s:
        """Change the waveform of one view, after mixup, roll and gain, and before its spectrogram is computed.

        Args:
            waveform: float32 (n, channels), in [-1, 1] at the clip's sample rate. It may be changed in place.
            rng: Random generator of this sample, epoch and view.

        Returns:
            The changed waveform, float32 (n, channels).
        """
        raise NotImplementedError

    @property
    def has_frames(self) -> bool:
        """True if it changes frames."""
        return type(self).change_frames is not Transform.change_frames

    @property
    def has_waveform(self) -> bool:
        """True if it changes waveforms."""
        return type(self).change_waveform is not Transform.change_waveform


TransformChoice = Transform | str | None
"""Type of `transform=`; a string is `package.module:Name`."""


def find_transform(choice: TransformChoice, *, frames: bool = False, waveform: bool = False) -> Transform | None:
    """Resolve a choice to a transform.

    Raises:
        ValueError: It changes neither frames nor waveforms that the loader has.
    """
    if choice is None:
        return None
    made = imported(choice, "transform") if isinstance(choice, str) and ":" in choice else choice
    if isinstance(made, type) and issubclass(made, Transform):
        made = made()
    if not isinstance(made, Transform):
        raise ValueError(
            f"transform={choice!r} is not a Transform; pass an instance of a maskstream.Transform subclass, "
            "or its package.module:Name"
        )
    if not ((frames and made.has_frames) or (waveform and made.has_waveform)):
        methods = [name for name, held in (("change_frames", frames), ("change_waveform", waveform)) if held]
        raise ValueError(
            f"transform={made}: this loader calls {' and '.join(methods)}, which {made.kind()} does not define; add "
            "it, or leave transform out"
        )
    return made


def changed(made: ArrayT, given: ArrayT, transform: Transform) -> ArrayT:
    """Check the array that a transform returned.

    Raises:
        ValueError: Shape or dtype differ from the input's.
    """
    if not isinstance(made, np.ndarray) or (made.shape, made.dtype) != (given.shape, given.dtype):
        got = f"{made.dtype} {made.shape}" if isinstance(made, np.ndarray) else type(made).__name__
        raise ValueError(
            f"transform={transform} returned {got}; it must return an array {given.dtype} {given.shape}, like its input"
        )
    return made


def change_waveform(
    transform: Transform | None, waveform: Float32s, draw: Callable[[str], np.random.Generator]
) -> Float32s:
    """Return a changed copy of a waveform, float32 (n, channels), or the waveform itself if nothing changes."""
    if transform is None or not transform.has_waveform:
        return waveform
    return changed(transform.change_waveform(waveform.copy(), draw("transform of the waveform")), waveform, transform)


class FrameChanges(NamedTuple):
    """All changes of a view's pixels, in order."""

    colour: ColourJitter | None = None
    transform: Transform | None = None

    @property
    def title(self) -> str:
        """Description of the first change; "" for none."""
        return "colour jitter" if self.colour is not None else "a transform" if self.transform is not None else ""

    def apply(self, frames: UInt8s, draw: Callable[[str], np.random.Generator]) -> None:
        """Change frames, uint8 (T, H, W, 3), in place; `draw` creates the generator of a purpose."""
        if self.colour is not None:
            # Treat all frames as one image, so that they get the same colours.
            self.colour(frames.reshape(-1, frames.shape[2], 3), draw("colour"))
        if self.transform is not None and self.transform.has_frames:
            made = changed(self.transform.change_frames(frames, draw("transform")), frames, self.transform)
            if made is not frames:
                frames[:] = made


NO_CHANGES = FrameChanges()
