"""What a loader yields: one small dataclass per modality, and the masks and flow that go with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Movable:
    """Does one thing to every tensor of a dataclass, nested ones too."""

    __slots__ = ()

    def _map(self, function: Callable[[Tensor], Tensor]) -> Self:
        changed: dict[str, Any] = {}
        for f in fields(cast(Any, self)):
            value = getattr(self, f.name)
            if isinstance(value, Tensor):
                value = function(value)
            elif isinstance(value, Movable):
                value = value._map(function)
            changed[f.name] = value
        return type(self)(**changed)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """The same batch with its tensors on `device`."""
        return self._map(lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """The same batch with its CPU tensors in page-locked memory, for asynchronous copies to a CUDA device."""
        return self._map(lambda t: t if t.is_cuda else t.pin_memory())

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """Keeps the memory of CUDA tensors that another stream filled until the work queued on `stream` is done."""

        def record(t: Tensor) -> Tensor:
            t.record_stream(stream)
            return t

        self._map(record)

    @classmethod
    def concatenated(cls, parts: Sequence[Self]) -> Self:
        """One of all: each field's tensors joined along the batch; what is None in one is None in all."""
        joined: dict[str, Any] = {}
        for f in fields(cast(Any, cls)):
            values = [getattr(p, f.name) for p in parts]
            joined[f.name] = None if values[0] is None else torch.cat(values)
        return cls(**joined)


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskBatch(Movable):
    """Which tokens the encoder does not see and which the decoder reconstructs.

    masked: bool (B, N), True = hidden from the encoder. visible: int64 (B, V), sorted, the tokens where masked is
    False. target: int64 (B, M), sorted, the tokens that the decoder reconstructs. weight: float32 (B, M), what each
    target counts in the loss (0 for a target that the encoder saw).

    Where samples have different counts (masks.Padded), n_visible and n_target, int64 (B,), say how many of a row's
    entries are real; the rest are 0, and such targets have weight 0. Elsewhere they are None and every entry is real.
    version: int64 (B,), the version of the feedback that a mask was drawn with, None where it follows none.
    mask_token: bool (B, N), the tokens that enter the encoder as the mask token: they are among `visible`, but their
    content is not seen, and as targets they have weight 1. None where every visible token is itself.

    Masks of text bring more: tokens int64 (B, N), the ids that the encoder reads, corrupted where masked
    (masks.Replace); attend bool (B, N, N), which tokens each position of a decoder attends to (masks.DecoderRows).
    """

    masked: Tensor
    visible: Tensor
    target: Tensor
    weight: Tensor
    n_visible: Tensor | None = None
    n_target: Tensor | None = None
    version: Tensor | None = None
    mask_token: Tensor | None = None
    tokens: Tensor | None = None
    attend: Tensor | None = None

    @property
    def visible_valid(self) -> Tensor:
        """Which entries of `visible` are real: bool (B, V), a key padding mask for attention (True = attend)."""
        return _valid(self.visible, self.n_visible)

    @property
    def target_valid(self) -> Tensor:
        """Which entries of `target` are real: bool (B, M)."""
        return _valid(self.target, self.n_target)

    @property
    def restore(self) -> Tensor:
        """int64 (B, N): each token's place in [visible, hidden tokens], published as ids_restore."""
        order = torch.argsort(self.masked.to(torch.uint8), dim=1, stable=True)
        return torch.argsort(order, dim=1)

    @classmethod
    def concatenated(cls, parts: Sequence[Self]) -> Self:
        """One of all; padded ones to the widest. ValueError where counts differ and nothing says how many are real."""
        if len({(p.visible.shape[1], p.target.shape[1]) for p in parts}) == 1:
            return super(MaskBatch, cls).concatenated(parts)
        if any(p.n_visible is None for p in parts):
            counts = sorted({p.visible.shape[1] for p in parts})
            raise ValueError(
                f"the samples of a batch need equally many visible tokens, got from {counts[0]} to {counts[-1]}; use a "
                "law that gives one ratio to the whole batch (scope='batch'), or masks.Padded(mask)"
            )
        return super(MaskBatch, cls).concatenated([p._widened(parts) for p in parts])

    def _widened(self, parts: Sequence[Self]) -> Self:
        visible, target = (max(getattr(p, name).shape[1] for p in parts) for name in ("visible", "target"))
        return replace(
            self,
            visible=pad(self.visible, (0, visible - self.visible.shape[1])),
            target=pad(self.target, (0, target - self.target.shape[1])),
            weight=pad(self.weight, (0, target - self.weight.shape[1])),
        )


def _valid(positions: Tensor, counts: Tensor | None) -> Tensor:
    places = torch.arange(positions.shape[1], device=positions.device)
    return (places < (positions.shape[1] if counts is None else counts[:, None])).expand(positions.shape)


@dataclass(frozen=True, kw_only=True, slots=True)
class Flow(Movable):
    """Backward flow between the sampled frames of a clip.

    vectors: float32 (B, T-1, h, w, 2), x then y, in pixels of the output clip: what is at pixel p of frame t+1 was at
    p + vectors[:, t] of frame t. (h, w) is the flow's own grid; cell (i, j) covers a 1/h x 1/w part of the frame.
    valid: bool (B, T-1, h, w), False where the source had no vector and `vectors` was filled from neighbours.
    """

    vectors: Tensor
    valid: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoBatch(Movable):
    """A batch of clips.

    video: uint8 (B, T, H, W, 3), RGB. mask: MaskBatch over the (T/pt, H/ph, W/pw) token grid in (t h w) order, or
    None where the loader was built without a mask. flow: Flow or None. label: int64 (B,), -1 where there is none.
    key: B strings. pts_s: float64 (B, T), each frame's time in seconds from the start of its video. weight: float32
    (B,), 0 for a clip that only pads the last batch of a validation, or None where every clip counts.
    """

    video: Tensor
    mask: MaskBatch | None
    flow: Flow | None
    label: Tensor
    key: list[str]
    pts_s: Tensor
    weight: Tensor | None = None

    def __len__(self) -> int:
        return len(self.key)

    def weighted(self, weight: Tensor) -> VideoBatch:
        """The batch with a weight per sample, float32 (B / views,); targets of a clip of weight 0 count nothing in
        the loss.
        """
        weight = weight.repeat_interleave(len(self) // len(weight))
        mask = self.mask and replace(self.mask, weight=self.mask.weight * weight[:, None])
        return replace(self, weight=weight, mask=mask)

    def pixel_values(
        self,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """The clips as float (B, T, 3, H, W), scaled to [0, 1] and normalised by `mean` and `std` (ImageNet's)."""
        batch, frames, height, width, channels = self.video.shape
        m = torch.tensor(mean, dtype=dtype, device=self.video.device).view(channels, 1, 1)
        s = torch.tensor(std, dtype=dtype, device=self.video.device).view(channels, 1, 1)
        shape = (batch, frames, channels, height, width)
        if self.video.device.type != "cpu":
            out = torch.empty(shape, dtype=dtype, device=self.video.device)
            return out.copy_(self.video.permute(0, 1, 4, 2, 3)).div_(255.0).sub_(m).div_(s)
        # Frame by frame all passes stay in the processor's cache; numpy's memory comes in huge pages: 2.6 times faster.
        out = (
            torch.from_numpy(np.empty(shape, np.float32)) if dtype == torch.float32 else torch.empty(shape, dtype=dtype)
        )
        for to, frame in zip(out.flatten(0, 1), self.video.flatten(0, 1), strict=True):
            to.copy_(frame.permute(2, 0, 1)).div_(255.0).sub_(m).div_(s)
        return out


@dataclass(frozen=True, kw_only=True, slots=True)
class PointsBatch(Movable):
    """A batch of point clouds.

    points: float32 (B, N, 3 + features), x, y, z first, as augmented. noise: float32 (B, N, 3), standard normal, and
    time: int64 (B,), the time that it belongs to (see diffusion.py), both None where the loader adds none. mask:
    MaskBatch over the tokens of points/tokens.py, or None. label, key, weight: as in VideoBatch.
    """

    points: Tensor
    noise: Tensor | None
    time: Tensor | None
    mask: MaskBatch | None
    label: Tensor
    key: list[str]
    weight: Tensor | None = None

    def __len__(self) -> int:
        return len(self.key)

    def weighted(self, weight: Tensor) -> PointsBatch:
        """As VideoBatch.weighted."""
        weight = weight.repeat_interleave(len(self) // len(weight))
        mask = self.mask and replace(self.mask, weight=self.mask.weight * weight[:, None])
        return replace(self, weight=weight, mask=mask)


@dataclass(frozen=True, kw_only=True, slots=True)
class MeshBatch(Movable):
    """A batch of meshes, put together as one graph of N nodes in which nothing joins one mesh to another.

    node_offset, edge_offset: int64 (B + 1,), the nodes and edges of mesh i are those from offset i to offset i + 1.
    positions: float32 (N, 2 or 3), as stored. kinds: int64 (N,), node types (0 normal, 4 inflow, 5 outflow, 6 wall as
    in MeshGraphNets; 0 throughout on surfaces). edges: int64 (2, E), senders and receivers, each side of a cell in both
    directions; edge_features: float32 (E, d + 1), from the receiver to the sender and the distance, in mean edge
    lengths of the dataset.

    fields: float32 (N, D), normalised by the dataset's mean and deviation (the unit normals of a surface as they are),
    with noise where the loader adds some; next_fields: the same one step later, without noise, None for surfaces.
    change: float32 (D,), the deviation of a step's change in the units of fields. step: int64 (B,), which step it is.
    counts: float32 (N,), what a node counts in a loss: 1 where the field is free (normal and outflow nodes, all nodes
    of a surface), 0 where it is given.

    mask: MaskBatch of one row over the N nodes, or None; a target's weight is its `counts`. visible_edges: int64
    (2, K), the edges between visible nodes, numbered as in mask.visible; kept_edges: int64 (K,), their places among
    `edges`. label, key, weight: as in VideoBatch.
    """

    positions: Tensor
    kinds: Tensor
    node_offset: Tensor
    edges: Tensor
    edge_features: Tensor
    edge_offset: Tensor
    fields: Tensor
    next_fields: Tensor | None
    change: Tensor
    counts: Tensor
    mask: MaskBatch | None
    visible_edges: Tensor | None
    kept_edges: Tensor | None
    label: Tensor
    step: Tensor
    key: list[str]
    weight: Tensor | None = None

    def __len__(self) -> int:
        return len(self.key)

    def weighted(self, weight: Tensor) -> MeshBatch:
        """As VideoBatch.weighted; nodes of a mesh of weight 0 count nothing."""
        weight = weight.repeat_interleave(len(self) // len(weight))
        of_node = weight.repeat_interleave(self.node_offset.diff())
        mask = self.mask and replace(self.mask, weight=self.mask.weight * of_node[self.mask.target])
        return replace(self, weight=weight, counts=self.counts * of_node, mask=mask)


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioBatch(Movable):
    """A batch of sounds.

    waveform: float32 (B, C, n), of which the first `length` int64 (B,) samples are sound and the others 0.
    spectrogram: float32 (B, T, F), normalised, of the mean of the channels; None before a loader with on_device has
    made it. mask: MaskBatch over the (time, freq) token grid, or None; tokens behind the end of a sound have weight 0.
    label, key, weight: as in VideoBatch. start_s: float64 (B,), where in its source a clip begins. strips: int64
    (B, 4), frames and bins that SpecAugment took away, or None. mixed_label int64 (B,) and share float32 (B,): of
    mixup, the label of the other sound and the share of the own one (1 where nothing was mixed in), or None.
    """

    waveform: Tensor
    length: Tensor
    spectrogram: Tensor | None
    mask: MaskBatch | None
    label: Tensor
    key: list[str]
    start_s: Tensor
    strips: Tensor | None = None
    mixed_label: Tensor | None = None
    share: Tensor | None = None
    weight: Tensor | None = None

    def __len__(self) -> int:
        return len(self.key)

    def weighted(self, weight: Tensor) -> AudioBatch:
        """As VideoBatch.weighted."""
        weight = weight.repeat_interleave(len(self) // len(weight))
        mask = self.mask and replace(self.mask, weight=self.mask.weight * weight[:, None])
        return replace(self, weight=weight, mask=mask)


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioVisualBatch(Movable):
    """A batch of clips, each with the sound of its time.

    video: uint8 (B, T, H, W, 3), RGB. waveform: float32 (B, 1, n), of which the first `length` int64 (B,) samples are
    sound and the others 0. spectrogram: float32 (B, T', F), normalised; None before a loader with on_device has made
    it. video_mask over the (t, h, w) token grid and audio_mask over the (time, freq) one: MaskBatch or None. label,
    key, weight: as in VideoBatch; flow too. strips: as in AudioBatch.

    pts_s: float64 (B, T), each frame's time, and audio_start_s: float64 (B,), that of the first sample of sound, both
    in seconds from the video's first frame.

    video_noise: float32 (B, M, values of a token), standard normal, for each target of video_mask, and video_time:
    int64 (B,), the time that it belongs to (see diffusion.py); audio_noise and audio_time alike. None where the loader
    adds none.
    """

    video: Tensor
    waveform: Tensor
    length: Tensor
    spectrogram: Tensor | None
    video_mask: MaskBatch | None
    audio_mask: MaskBatch | None
    flow: Flow | None
    label: Tensor
    key: list[str]
    pts_s: Tensor
    audio_start_s: Tensor
    strips: Tensor | None = None
    video_noise: Tensor | None = None
    video_time: Tensor | None = None
    audio_noise: Tensor | None = None
    audio_time: Tensor | None = None
    weight: Tensor | None = None

    def __len__(self) -> int:
        return len(self.key)

    def weighted(self, weight: Tensor) -> AudioVisualBatch:
        """As VideoBatch.weighted, for both masks."""
        weight = weight.repeat_interleave(len(self) // len(weight))
        video, audio = (m and replace(m, weight=m.weight * weight[:, None]) for m in (self.video_mask, self.audio_mask))
        return replace(self, weight=weight, video_mask=video, audio_mask=audio)


@dataclass(frozen=True, kw_only=True, slots=True)
class NoisyBatch(Movable):
    """A batch of noisy sounds and what they were before.

    mixture, clean: float32 (B, M, n), of M microphones. snr_db: float32 (B,), the power of `clean` over that of the
    noise in decibels. label, key, weight: as in VideoBatch, of the clean sounds.
    """

    mixture: Tensor
    clean: Tensor
    snr_db: Tensor
    label: Tensor
    key: list[str]
    weight: Tensor | None = None

    def __len__(self) -> int:
        return len(self.key)

    def weighted(self, weight: Tensor) -> NoisyBatch:
        """The batch with a weight per sample, float32 (B,)."""
        return replace(self, weight=weight)
