"""Base classes of masks, and the functions that combine the masks of samples into a MaskBatch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Self

import numpy as np

from maskstream.pipelines.stream.batch import Movable
from maskstream.pipelines.stream.rng import Place
from maskstream.pipelines.stream.tensors import torch, wrap_tensor
from maskstream.shards.arrays import Bools, Int64s
from maskstream.shards.config import Config
from maskstream.shards.named import nearest

from .draw import Cues, Draw, TextDraws, TokenGrid, WatchedCues
from .ratio import RatioSchedule

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskBatch(Movable):
    """Masks of a batch: hidden tokens, visible tokens and reconstruction targets of B samples with N tokens.

    `masked` is bool (B, N); `visible` and `target` are sorted token indices, int64 (B, count), in C order of the grid's
    shape. If counts differ between samples (`masks.Padded`), rows are padded with 0 and `n_visible` and `n_target` hold
    the true counts; padded targets have weight 0.

    Attributes:
        grid: Grid of the tokens of one sample.
        masked: bool (B, N): True for tokens that do not enter the encoder.
        visible: int64 (B, V): sorted indices of the tokens that enter the encoder.
        target: int64 (B, M): sorted indices of the tokens that the decoder reconstructs.
        weight: float32 (B, M): loss weight of each target; 0 if the encoder saw the token.
        n_visible: int64 (B,): number of valid entries in each row of `visible`; None if all are valid.
        n_target: int64 (B,): number of valid entries in each row of `target`; None if all are valid.
        mask_token: bool (B, N): tokens that enter the encoder as the mask token. They are part of `visible`, but
            because the encoder does not see their content, they have weight 1 as targets. None if there are none.
    """

    grid: TokenGrid
    masked: Tensor
    visible: Tensor
    target: Tensor
    weight: Tensor
    n_visible: Tensor | None = None
    n_target: Tensor | None = None
    mask_token: Tensor | None = None

    @property
    def visible_valid(self) -> Tensor:
        """Valid entries of `visible`, bool (B, V): a key padding mask for attention (True = attend)."""
        return _mark_valid(self.visible, self.n_visible)

    @property
    def target_valid(self) -> Tensor:
        """Valid entries of `target`, bool (B, M)."""
        return _mark_valid(self.target, self.n_target)

    def weighted(self, weight: Tensor) -> Self:
        """Multiply the target weights of each row by `weight`, float32 (B,)."""
        return replace(self, weight=self.weight * weight[:, None])

    @property
    def restore(self) -> Tensor:
        """int64 (B, N): index of each token in the sequence of visible, then hidden tokens; MAE's ids_restore."""
        order = torch.argsort(self.masked.to(torch.uint8), dim=1, stable=True)
        return torch.argsort(order, dim=1)

    def rows(self, chosen: slice) -> Self:
        """Select samples."""
        return self._map(lambda tensor: tensor[chosen])

    def cut(self) -> Self:
        """Truncate all rows to the smallest number of visible tokens and targets in the batch.

        Visible tokens that are cut become hidden but are not reconstructed. V-JEPA's collator does this for each of its
        two masks separately: `mask.rows(slice(0, None, 2)).cut()` with `Padded` masks. The result depends on which
        samples share a batch, so loaders, whose masks depend only on the sample, do not use it.
        """
        if self.n_visible is None or self.n_target is None:
            return self
        shown, wanted = int(self.n_visible.min()), int(self.n_target.min())
        visible = self.visible[:, :shown]
        masked = torch.ones_like(self.masked).scatter_(1, visible, False)
        return replace(
            self,
            masked=masked,
            visible=visible,
            target=self.target[:, :wanted],
            weight=self.weight[:, :wanted],
            n_visible=None,
            n_target=None,
            mask_token=None if self.mask_token is None else self.mask_token & ~masked,
        )

    @classmethod
    def concatenated(cls, parts: Sequence[Self]) -> Self:
        """Concatenate batches along the sample dimension, padding rows to the widest.

        Raises:
            ValueError: Counts differ and the masks are not `Padded`.
        """
        if len({(p.visible.shape[1], p.target.shape[1]) for p in parts}) == 1:
            return super(MaskBatch, cls).concatenated(parts)
        if any(p.n_visible is None for p in parts):
            counts = sorted({p.visible.shape[1] for p in parts})
            raise make_unequal_error("visible tokens", counts[0], counts[-1])
        return super(MaskBatch, cls).concatenated([p._widen_maps(parts) for p in parts])

    def _widen_maps(self, parts: Sequence[Self]) -> Self:
        visible, target = (max(getattr(p, name).shape[1] for p in parts) for name in ("visible", "target"))
        return replace(
            self,
            visible=torch.nn.functional.pad(self.visible, (0, visible - self.visible.shape[1])),
            target=torch.nn.functional.pad(self.target, (0, target - self.target.shape[1])),
            weight=torch.nn.functional.pad(self.weight, (0, target - self.weight.shape[1])),
        )


def _mark_valid(positions: Tensor, counts: Tensor | None) -> Tensor:
    places = torch.arange(positions.shape[1], device=positions.device)
    return (places < (positions.shape[1] if counts is None else counts[:, None])).expand(positions.shape)


@dataclass(frozen=True, kw_only=True, slots=True)
class Maps:
    """Mask of one view of a sample as maps, bool (N,); the maps of a batch's samples form a MaskBatch.

    Attributes:
        hidden: Tokens that do not enter the encoder.
        target: Tokens to reconstruct; None means the hidden ones.
        mask_token: Tokens that enter the encoder as the mask token; disjoint from `hidden`. None means there are none.
    """

    hidden: Bools
    target: Bools | None = None
    mask_token: Bools | None = None

    @classmethod
    def batched(cls, maps: Sequence[Self], grid: TokenGrid, *, ragged: int | None = None) -> MaskBatch:
        """Combine the maps of a batch's samples into a MaskBatch; `ragged` as in `mask_batch`."""
        hidden = _build_table([m.hidden for m in maps], grid)
        target = mask_token = None
        if any(m.target is not None for m in maps):
            target = _build_table([m.hidden if m.target is None else m.target for m in maps], grid)
        if any(m.mask_token is not None for m in maps):
            none = np.zeros(grid.size, dtype=np.bool_)
            mask_token = _build_table([none if m.mask_token is None else m.mask_token for m in maps], grid)
        return mask_batch(hidden, target, grid=grid, mask_token=mask_token, ragged=ragged)


class Mask(Config, ABC):
    """Base class of all masks. Subclasses implement `hide` for one view; `draw` masks a batch.

    A mask depends only on its `Draw`: the sample's random generators, its mask inputs and its position in the run. It
    does not depend on other samples of the batch or on global state. Subclasses are frozen dataclasses.
    """

    __slots__ = ()

    @property
    def needs(self) -> frozenset[str]:
        """Names of the mask inputs (`Cues`) that the mask reads; by default, the inputs of the masks in its fields."""
        return frozenset[str]().union(*(part.needs for part in self._parts() if isinstance(part, Mask)))

    @property
    def needs_progress(self) -> bool:
        """True if the mask changes over the run; the loader then needs the length of the run, `steps`."""
        return any(part.needs_progress for part in self._parts())

    @abstractmethod
    def hide(self, grid: TokenGrid, draw: Draw) -> Bools:
        """Draw the hidden tokens of one view, bool (N,).

        Raises:
            ValueError: The pattern does not support the grid's axes or shape, or a mask input is missing.
        """

    def maps(self, grid: TokenGrid, draw: Draw) -> Maps:
        """Draw the maps of one view. Patterns that also choose targets or mask tokens override this method."""
        return Maps(hidden=self.hide(grid, draw))

    def maps_of_texts(self, grid: TokenGrid, draws: TextDraws) -> Sequence[Maps] | None:
        """Draw the maps of many texts at once if the pattern supports it; by default, return None and draw nothing."""
        return None

    def draw(self, grid: TokenGrid, draws: Sequence[Draw | np.random.Generator]) -> MaskBatch:
        """Draw the masks of len(draws) views on the CPU.

        Args:
            grid: Token grid of each view.
            draws: One draw per view. A bare generator is treated as a draw without mask inputs at the start of a run.

        Raises:
            ValueError: As in `hide`, or the views have different counts (see `Padded`).
        """
        return self.batched(grid, [self.maps(grid, as_draw(draw)) for draw in draws])

    def __call__(
        self,
        grid: TokenGrid,
        *,
        key: str,
        seed: int = 0,
        epoch: int = 0,
        view: int = 0,
        progress: float = 0.0,
        cues: Cues | None = None,
    ) -> MaskBatch:
        """Draw the mask of one sample by its key, as a MaskBatch with one row; see `of_keys`."""
        given = None if cues is None else [cues]
        return self.of_keys(grid, [key], seed=seed, epoch=epoch, view=view, progress=progress, cues=given)

    def of_keys(
        self,
        grid: TokenGrid,
        keys: Sequence[str],
        *,
        seed: int = 0,
        epoch: int = 0,
        view: int = 0,
        progress: float = 0.0,
        cues: Sequence[Cues] | None = None,
    ) -> MaskBatch:
        """Draw masks by sample key, for data loaded by another library.

        A loader with this seed draws the same masks in this epoch, on any machine and in any order. Numbers that a
        whole batch shares (scope="batch") are drawn as for the run's first batch.

        Args:
            grid: Token grid of each sample.
            keys: Unique keys of the samples.
            seed: Random seed of the masks.
            epoch: Epoch whose masks are drawn.
            view: Number of the view, for several masks per sample.
            progress: Progress of the run, from 0 to 1, for masks that change over it.
            cues: Mask inputs (`Cues`) of each sample, for a mask that reads some.

        Raises:
            ValueError: The mask reads inputs and none are passed.
        """
        if cues is None and (needs := self.needs):
            raise ValueError(
                f"{type(self).__name__} reads {', '.join(sorted(needs))} from each sample; pass cues= with one "
                "Cues(...) per sample"
            )
        place, each = Place(progress=progress), [Cues()] * len(keys) if cues is None else cues
        draws = [Draw.of(seed, epoch, key, view, place, own) for key, own in zip(keys, each, strict=True)]
        return self.draw(grid, draws)

    def batched(self, grid: TokenGrid, maps: Sequence[Maps]) -> MaskBatch:
        """Combine the maps of a batch's views into a MaskBatch."""
        return batch_of(maps, grid)

    def _parts(self) -> Iterator[Mask | RatioSchedule]:
        """Yield the masks and ratio schedules among the fields."""
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Mask | RatioSchedule):
                yield value


def as_draw(draw: Draw | np.random.Generator) -> Draw:
    """Wrap a bare generator in a Draw."""
    return draw if isinstance(draw, Draw) else Draw(rng=draw)


def maps_of(mask: Mask, grid: TokenGrid, draw: Draw) -> Maps:
    """Draw the maps of one view, with a clear error if `needs` is incomplete.

    Raises:
        ValueError: The mask failed because it reads an input that its `needs` does not name.
    """
    try:
        return mask.maps(grid, draw)
    except (AttributeError, TypeError, IndexError) as error:
        # Track reads only after a failure: many masks check whether an optional input is present.
        cues = WatchedCues.of(draw.cues)
        with suppress(Exception):
            mask.maps(grid, replace(draw, cues=cues))
        unnamed = sorted(cues.missed - needed_cues(mask))
        if not unnamed:
            raise
        raise ValueError(
            f"{mask} reads the mask input {unnamed[0]}, which is not in its `needs`, and got None ({error}); set "
            f"needs = {_written(*unnamed, *mask.needs)}"
        ) from error


def needed_cues(mask: Mask) -> frozenset[str]:
    """Return the checked `needs` of a mask.

    Raises:
        ValueError: `needs` is not a set, or names an unknown input.
    """
    needs: object = mask.needs
    known = [one.name for one in fields(Cues)]
    if not isinstance(needs, Set):
        raise ValueError(f"{mask}: `needs` must be a set of names, got {needs!r}; set needs = {_written('frames')}")
    for name in sorted(needs):
        if name not in known:
            raise ValueError(
                f"{mask} needs {name}, which is not a mask input{nearest(name, known)}; choose from {', '.join(known)}"
            )
    return frozenset(needs)


def _written(*names: str) -> str:
    """Format names as a `frozenset` expression for an error message."""
    return f"frozenset({{{', '.join(map(repr, sorted(names)))}}})"


def batch_of(maps: Sequence[Maps], grid: TokenGrid, *, ragged: int | None = None) -> MaskBatch:
    """Combine the maps of a batch's samples into a MaskBatch; `ragged` as in `mask_batch`.

    Raises:
        ValueError: The maps have different types, for example only some have token ids.
    """
    kinds = sorted({type(m).__name__ for m in maps})
    if len(kinds) > 1:
        raise ValueError(
            f"all views of a batch must have the same kind of maps, got {' and '.join(kinds)}; put masks.ByView inside "
            "the mask that adds token ids or attention, not around it"
        )
    return (type(maps[0]) if maps else Maps).batched(maps, grid, ragged=ragged)


def _build_table(rows: list[Bools], grid: TokenGrid) -> Bools:
    return np.array(rows, dtype=np.bool_).reshape(len(rows), grid.size)


def mask_batch(
    masked: Bools,
    target: Bools | None = None,
    *,
    grid: TokenGrid,
    mask_token: Bools | None = None,
    ragged: int | None = None,
) -> MaskBatch:
    """Build a MaskBatch from boolean maps.

    Args:
        masked: bool (B, N), True for tokens hidden from the encoder.
        target: bool (B, N), tokens to reconstruct. None means all masked tokens, with weight 1. Otherwise, targets that
            the encoder saw have weight 0.
        grid: Token grid of one sample.
        mask_token: bool (B, N), tokens that enter the encoder as the mask token. As targets, they are treated as
            unseen.
        ragged: Pad index tensors to a multiple of this number if counts differ between samples; None requires equal
            counts.

    Raises:
        ValueError: Counts differ between samples and `ragged` is None.
    """
    target_map = masked if target is None else target
    visible, n_visible = _list_positions(~masked, "visible tokens", ragged)
    targets, n_target = _list_positions(target_map, "targets", ragged)
    if target is None:
        weight = np.ones(targets.shape, dtype=np.float32)
    else:
        unseen = masked if mask_token is None else masked | mask_token
        weight = np.take_along_axis(unseen, targets, axis=1).astype(np.float32)
    for i, count in enumerate([] if n_target is None else n_target.tolist()):
        weight[i, count:] = 0
    return MaskBatch(
        grid=grid,
        masked=wrap_tensor(masked),
        visible=wrap_tensor(visible),
        target=wrap_tensor(targets),
        weight=wrap_tensor(weight),
        n_visible=None if n_visible is None else wrap_tensor(n_visible),
        n_target=None if n_target is None else wrap_tensor(n_target),
        mask_token=None if mask_token is None else wrap_tensor(mask_token),
    )


def make_unequal_error(what: str, least: int, most: int) -> ValueError:
    """Build the error for samples with different counts, which do not fit one rectangular tensor."""
    return ValueError(
        f"all samples of a batch must have equally many {what}, got {least} to {most}; use a schedule that draws one "
        "ratio per batch (scope='batch'), or masks.Padded(mask)"
    )


def _list_positions(chosen: Bools, what: str, ragged: int | None) -> tuple[Int64s, Int64s | None]:
    """Return the sorted indices of True tokens in each row, int64 (B, count), and their number if `ragged`."""
    samples, n = chosen.shape
    flat = np.flatnonzero(chosen)
    first = np.arange(samples) * n
    stops = np.searchsorted(flat, first + n)
    counts = stops.copy()
    counts[1:] -= stops[:-1]
    if ragged is None:
        if (counts != counts[:1]).any():
            raise make_unequal_error(what, int(counts.min()), int(counts.max()))
        return flat.reshape(samples, len(flat) // max(samples, 1)) - first[:, None], None
    width = -(-int(counts.max(initial=0)) // ragged) * ragged
    padded = np.zeros((samples, width), dtype=np.int64)
    real = np.arange(width) < counts[:, None]
    padded[real] = flat
    padded -= first[:, None]
    padded *= real
    return padded, counts


class DeviceMask(Mask, ABC):
    """Mask that can be computed on the device of the batch's optical flow, bit-identical to `draw`.

    Random numbers are drawn on the CPU from the same generators; nothing is copied back from the device.
    """

    __slots__ = ()

    @abstractmethod
    def draw_on_device(self, grid: TokenGrid, draws: Sequence[Draw], flow: Tensor) -> MaskBatch:
        """Draw the masks of B views on the device of their flow.

        Args:
            grid: Token grid of each view.
            draws: One draw per view; their mask inputs are not read.
            flow: float32 (B, T-1, h, w, 2), the flow input of each view.

        Raises:
            ValueError: As in `Mask.draw`.
        """


def placed(masked: Tensor, visible: Sequence[int], grid: TokenGrid) -> MaskBatch:
    """Build a MaskBatch on the device of `masked` without synchronising with it.

    Args:
        masked: bool (B, N); all masked tokens are targets.
        visible: Number of visible tokens in each row.
        grid: Token grid of one sample.

    Raises:
        ValueError: The counts differ between rows.
    """
    if len(set(visible)) > 1:
        raise make_unequal_error("visible tokens", min(visible), max(visible))
    order = torch.sort(masked.to(torch.uint8), dim=1, stable=True).indices
    shown = order[:, : visible[0] if visible else 0].contiguous()
    target = order[:, shown.shape[1] :].contiguous()
    weight = torch.ones(target.shape, dtype=torch.float32, device=masked.device)
    return MaskBatch(grid=grid, masked=masked, visible=shown, target=target, weight=weight)
