"""The base classes of masks, and the functions that make a MaskBatch of the maps of a batch's samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.stream.batch import Movable
from maskstream.pipelines.stream.rng import Place
from maskstream.pipelines.stream.tensors import torch, wrap_tensor
from maskstream.shards.config import Config
from maskstream.shards.named import nearest

from .draw import Cues, Draw, TextDraws, TokenGrid, WatchedCues
from .ratio import Law

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskBatch(Movable):
    """Which tokens the encoder does not see and which the decoder reconstructs.

    grid: the tokens' grid; a token's number is its place in C order of the grid's shape. B samples of N tokens.
    masked: bool (B, N), True = hidden from the encoder. visible: int64 (B, V), sorted, the tokens where masked is
    False. target: int64 (B, M), sorted, the tokens that the decoder reconstructs. weight: float32 (B, M), what each
    target counts in the loss (0 for a target that the encoder saw).

    Where samples have different counts (masks.Padded), n_visible and n_target, int64 (B,), say how many of a row's
    entries are real. The other entries are 0, and such targets have weight 0. None means that every entry is real.
    mask_token: bool (B, N), the tokens that enter the encoder as the mask token. They are among `visible`, but the
    encoder does not see their content, so they have weight 1 as targets. None means that there are none.
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
        """Which entries of `visible` are real: bool (B, V), a key padding mask for attention (True = attend)."""
        return _mark_valid(self.visible, self.n_visible)

    @property
    def target_valid(self) -> Tensor:
        """Which entries of `target` are real: bool (B, M)."""
        return _mark_valid(self.target, self.n_target)

    def weighted(self, weight: Tensor) -> Self:
        """The masks where each row's targets count `weight`, float32 (B,), times what they did."""
        return replace(self, weight=self.weight * weight[:, None])

    @property
    def restore(self) -> Tensor:
        """int64 (B, N): each token's place in the sequence of visible, then hidden tokens; MAE calls it ids_restore."""
        order = torch.argsort(self.masked.to(torch.uint8), dim=1, stable=True)
        return torch.argsort(order, dim=1)

    def rows(self, chosen: slice) -> Self:
        """The masks of the chosen samples."""
        return self._map(lambda tensor: tensor[chosen])

    def cut(self) -> Self:
        """The masks with as many visible tokens and targets in each row as the row with the fewest has.

        The others lose their last ones: such tokens are hidden, and nothing reconstructs them. V-JEPA's collator does
        so with a batch, with each of its two masks apart: mask.rows(slice(0, None, 2)).cut() of `Padded` masks. The
        result depends on which samples are together, so it is no mask of a loader, whose batches do not.
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
        """One MaskBatch of all parts, padded to the widest; ValueError where counts differ without `Padded`."""
        if len({(p.visible.shape[1], p.target.shape[1]) for p in parts}) == 1:
            return super(MaskBatch, cls).concatenated(parts)
        if any(p.n_visible is None for p in parts):
            counts = sorted({p.visible.shape[1] for p in parts})
            raise ValueError(
                f"the samples of a batch need equally many visible tokens, got from {counts[0]} to {counts[-1]}; use a "
                "law that gives one ratio to the whole batch (scope='batch'), or masks.Padded(mask)"
            )
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
    """The mask of one view of a sample. Its maps are bool (N,); the maps of a batch make a MaskBatch.

    hidden: the tokens that do not enter the encoder. target: the tokens that are reconstructed; None means the hidden
    ones. mask_token: the tokens that enter the encoder as the mask token, none of them hidden; None means none.
    """

    hidden: npt.NDArray[np.bool_]
    target: npt.NDArray[np.bool_] | None = None
    mask_token: npt.NDArray[np.bool_] | None = None

    @classmethod
    def batched(cls, maps: Sequence[Self], grid: TokenGrid, *, ragged: int | None = None) -> MaskBatch:
        """The MaskBatch of the maps of a batch's samples; `ragged` as in `mask_batch`."""
        hidden = _build_table([m.hidden for m in maps], grid)
        target = mask_token = None
        if any(m.target is not None for m in maps):
            target = _build_table([m.hidden if m.target is None else m.target for m in maps], grid)
        if any(m.mask_token is not None for m in maps):
            none = np.zeros(grid.size, dtype=np.bool_)
            mask_token = _build_table([none if m.mask_token is None else m.mask_token for m in maps], grid)
        return mask_batch(hidden, target, grid=grid, mask_token=mask_token, ragged=ragged)


class Mask(Config, ABC):
    """The base of all masks. A subclass draws the mask of one view in `hide`; `draw` masks a batch.

    A mask depends only on its `Draw`: the generators of the sample, its cues and its place in the run. It depends on no
    other sample of the batch and on no global state. Subclasses are frozen dataclasses.
    """

    __slots__ = ()

    @property
    def needs(self) -> frozenset[str]:
        """The names of the cues (see `Cues`) that the mask reads; by default those of the masks in its fields."""
        return frozenset[str]().union(*(part.needs for part in self._parts() if isinstance(part, Mask)))

    @property
    def needs_progress(self) -> bool:
        """Whether the mask changes over the run. Its loader then needs `steps`, the run's length."""
        return any(part.needs_progress for part in self._parts())

    @abstractmethod
    def hide(self, grid: TokenGrid, draw: Draw) -> npt.NDArray[np.bool_]:
        """The hidden tokens of one view of a sample, bool (N,).

        ValueError for a grid whose axes or lengths the pattern does not take, and for a missing cue.
        """

    def maps(self, grid: TokenGrid, draw: Draw) -> Maps:
        """The maps of one view. A pattern that also chooses targets or mask tokens overrides this."""
        return Maps(hidden=self.hide(grid, draw))

    def maps_of_texts(self, grid: TokenGrid, draws: TextDraws) -> Sequence[Maps] | None:
        """The maps of each of many texts, where the pattern draws them together; by default None, and then nothing is
        drawn.
        """
        return None

    def draw(self, grid: TokenGrid, draws: Sequence[Draw | np.random.Generator]) -> MaskBatch:
        """The masks of len(draws) views, on the CPU. A generator stands for a draw without cues at a run's start.

        ValueError as for `hide`, and where the views have different counts (see `Padded`).
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
        """The mask of one sample by its key, as a MaskBatch of one row; see `of_keys`."""
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
        """The masks of samples by their keys, for data that another library loads: those that a loader with this seed
        gives to these samples in this epoch, on any machine and in any order.

        progress: of the run, from 0 to 1, which a mask that changes over it follows. cues: of each sample, for a mask
        that reads some; ValueError where they are missing. Numbers that a whole batch shares are those of the run's
        first one.
        """
        if cues is None and (needs := self.needs):
            raise ValueError(
                f"{type(self).__name__} reads {', '.join(sorted(needs))} of each sample; give cues=, a Cues(...) for "
                "each"
            )
        place, each = Place(progress=progress), [Cues()] * len(keys) if cues is None else cues
        draws = [Draw.of(seed, epoch, key, view, place, own) for key, own in zip(keys, each, strict=True)]
        return self.draw(grid, draws)

    def batched(self, grid: TokenGrid, maps: Sequence[Maps]) -> MaskBatch:
        """The MaskBatch of the maps of a batch. It costs about as much as that of one sample."""
        return batch_of(maps, grid)

    def _parts(self) -> Iterator[Mask | Law]:
        """The masks and laws among the fields."""
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Mask | Law):
                yield value


def as_draw(draw: Draw | np.random.Generator) -> Draw:
    """The draw itself, or one of a generator alone."""
    return draw if isinstance(draw, Draw) else Draw(rng=draw)


def maps_of(mask: Mask, grid: TokenGrid, draw: Draw) -> Maps:
    """The maps of one view. ValueError in words where a mask fails because its `needs` does not name what it reads."""
    try:
        return mask.maps(grid, draw)
    except (AttributeError, TypeError, IndexError) as error:
        # Only now is it worth while to see which cues it reads: many masks look whether one is there.
        cues = WatchedCues.of(draw.cues)
        with suppress(Exception):
            mask.maps(grid, replace(draw, cues=cues))
        unnamed = sorted(cues.missed - needed_cues(mask))
        if not unnamed:
            raise
        raise ValueError(
            f"{mask} reads the cue {unnamed[0]}, which its `needs` does not name, and got None ({error}); write "
            f"needs = {_written(*unnamed, *mask.needs)}"
        ) from error


def needed_cues(mask: Mask) -> frozenset[str]:
    """The `needs` of a mask; ValueError where it is no set, or names what is no cue."""
    needs: object = mask.needs
    known = [one.name for one in fields(Cues)]
    if not isinstance(needs, Set):
        raise ValueError(f"{mask}: `needs` is a set of names, got {needs!r}; write needs = {_written('frames')}")
    for name in sorted(needs):
        if name not in known:
            raise ValueError(f"{mask} needs {name}, which is no cue{nearest(name, known)}; cues are {', '.join(known)}")
    return frozenset(needs)


def _written(*names: str) -> str:
    """The set of some names, as it is written in a mask."""
    return f"frozenset({{{', '.join(map(repr, sorted(names)))}}})"


def batch_of(maps: Sequence[Maps], grid: TokenGrid, *, ragged: int | None = None) -> MaskBatch:
    """The MaskBatch of the maps of a batch's samples; `ragged` as in `mask_batch`.

    ValueError where the maps are of several kinds, such as those with token ids and those without.
    """
    kinds = sorted({type(m).__name__ for m in maps})
    if len(kinds) > 1:
        raise ValueError(
            f"all views of a batch have maps of one kind, got {' and '.join(kinds)}; put masks.ByView inside the mask "
            "that brings token ids or attention, not around it"
        )
    return (type(maps[0]) if maps else Maps).batched(maps, grid, ragged=ragged)


def _build_table(rows: list[npt.NDArray[np.bool_]], grid: TokenGrid) -> npt.NDArray[np.bool_]:
    return np.array(rows, dtype=np.bool_).reshape(len(rows), grid.size)


def mask_batch(
    masked: npt.NDArray[np.bool_],
    target: npt.NDArray[np.bool_] | None = None,
    *,
    grid: TokenGrid,
    mask_token: npt.NDArray[np.bool_] | None = None,
    ragged: int | None = None,
) -> MaskBatch:
    """The MaskBatch of `masked` bool (B, N), True = hidden from the encoder, and `target` bool (B, N), on `grid`.

    Without `target` every masked token is reconstructed and counts 1. With it, those tokens are, and one that the
    encoder saw counts 0; what entered it as the mask token, `mask_token` bool (B, N), it did not see. Index tensors are
    rectangular: where the samples' counts differ ValueError is raised, or with `ragged` they are padded to a multiple
    of it (see MaskBatch).
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
    """The error of samples with different counts, which cannot be one rectangular tensor."""
    return ValueError(
        f"the samples of a batch need equally many {what}, got from {least} to {most}; use a law that gives one ratio "
        "to the whole batch (scope='batch'), or masks.Padded(mask)"
    )


def _list_positions(
    chosen: npt.NDArray[np.bool_], what: str, ragged: int | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64] | None]:
    """The sorted positions of the True tokens of each row, int64 (B, count), and if `ragged` how many are real."""
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
    """A mask that can be made where the flow of a batch is; the result is that of `draw`, bit by bit.

    The random numbers are drawn on the CPU from the same generators, and nothing is copied back to it.
    """

    __slots__ = ()

    @abstractmethod
    def draw_on_device(self, grid: TokenGrid, draws: Sequence[Draw], flow: Tensor) -> MaskBatch:
        """The masks of B views of which `flow` is the flow: float32 (B, T-1, h, w, 2), as the cue of each view.

        The cues of the draws are not read. ValueError as for `Mask.draw`.
        """


def placed(masked: Tensor, visible: Sequence[int], grid: TokenGrid) -> MaskBatch:
    """The MaskBatch of `masked`, bool (B, N), on its device, without a wait for it; all masked tokens are targets.

    visible: how many tokens of each row are not masked. ValueError where they differ, as `mask_batch` raises it.
    """
    if len(set(visible)) > 1:
        raise make_unequal_error("visible tokens", min(visible), max(visible))
    order = torch.sort(masked.to(torch.uint8), dim=1, stable=True).indices
    shown = order[:, : visible[0] if visible else 0].contiguous()
    target = order[:, shown.shape[1] :].contiguous()
    weight = torch.ones(target.shape, dtype=torch.float32, device=masked.device)
    return MaskBatch(grid=grid, masked=masked, visible=shown, target=target, weight=weight)
