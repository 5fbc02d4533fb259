"""V-JEPA (Bardes et al., 2024): joint-embedding prediction of clips. V-JEPA 2 has the same encoder and predictor, with
different position embeddings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskstream.pipelines import VideoClip
from maskstream.pipelines.augment import RandomResizedCrop, SharedCrop
from maskstream.pipelines.masks import ByView, Linear, MultiBlock, Padded
from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.train.core.model import Grids
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.recipe import Recipe
from maskstream.train.nn.grid import build_axis_sinusoids, within
from maskstream.train.nn.media_tokens import TokenKind, VideoTokens
from maskstream.train.nn.transformer import RaggedRows, Stack, Turns

from .model import Jepa, JepaConfig

ClipPlaces = Literal["added", "turned", "turned in pairs"]
"""How the time, row and column of a token enter a model of clips: as vectors that are "added" to its embedding, as in
V-JEPA, or as angles by which queries and keys are "turned", as in V-JEPA 2; "turned in pairs", as in V-JEPA 2.1, uses
one angle for both channels of a plane.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoJepaConfig(JepaConfig[VideoBatch]):
    """The sizes of a JEPA of video cubes; for `places` see ClipPlaces."""

    takes_sizes: ClassVar[bool] = True

    places: ClipPlaces = "turned"

    def validate(self) -> None:
        JepaConfig.validate(self)
        for part in () if self.places == "added" else ("", "predictor_"):
            channels = getattr(self, f"{part}width") // getattr(self, f"{part}heads")
            if channels < 6 or channels % 2:
                raise ValueError(
                    f"a head needs an even number of channels, at least 6, got {channels}; use fewer heads"
                )

    def tokens(self, grids: Grids) -> TokenKind[VideoBatch]:
        """Return the cubes on the grid "video"."""
        return VideoTokens(grids["video"], "pixels", smaller=self.takes_sizes)


class VideoJepa(Jepa[VideoBatch], config=VideoJepaConfig):
    """The model of V-JEPA and V-JEPA 2. A shorter or smaller clip uses the first positions of the grid along each
    axis.
    """

    def placed(self, index: Tensor, data: Tensor) -> Tensor:
        """Return the indices of tokens on the model's grid, which may be larger than the clip's; see Jepa.

        Args:
            index: Indices on the clip's grid, int64.
            data: Media of the batch.
        """
        tokens = self.tokens
        assert isinstance(tokens, VideoTokens)
        return within(index, tokens.grid_of(data), tokens.grid)

    def _parts(self) -> tuple[nn.Module, nn.Module]:
        config = self.config
        assert isinstance(config, VideoJepaConfig)
        return ClipEncoder(config, self.tokens), ClipPredictor(config, self.tokens)


class ClipEncoder(nn.Module):
    """Encodes visible tokens: an embedding, then blocks; positions are added to the embedding or rotate queries and
    keys.
    """

    def __init__(self, config: VideoJepaConfig, tokens: TokenKind[VideoBatch]) -> None:
        super().__init__()
        c = config
        self.embed = nn.Linear(tokens.n_inputs, c.width)
        self.places = _places(c.places, tokens.grid, c.width, c.heads)
        self.stack = Stack(c.depth, c.width, c.heads, c.mlp_ratio, c.eps, rotary=c.places != "added")

    def forward(self, inputs: Tensor, visible: Tensor, valid: Tensor | None = None) -> Tensor:
        """Encode visible tokens; see VisibleEncoder.

        Args:
            inputs: Values of the tokens, float32 (B, V, values).
            visible: Their indices on the grid, int64 (B, V).
            valid: bool (B, V); False for padding.
        """
        return _apply_at_places(self._blocks, inputs, self.places, visible, valid, embed=self.embed)

    def _blocks(self, x: Tensor, mask: Tensor | None, turns: Turns | None, rows: RaggedRows | None) -> Tensor:
        """Run the blocks on tokens."""
        return cast(Tensor, self.stack(x, mask, turns=turns, rows=rows))


class ClipPredictor(nn.Module):
    """Predicts targets from the encoded visible tokens followed by mask tokens. Each mask of a clip has a separate mask
    token, initialised to 0.
    """

    TABLES: ClassVar[tuple[str, ...]] = ("mask_tokens",)

    def __init__(self, config: VideoJepaConfig, tokens: TokenKind[VideoBatch]) -> None:
        super().__init__()
        c, width = config, config.predictor_width
        self.bridge: nn.Module = nn.Linear(c.width, width)
        self.mask_tokens = nn.Parameter(torch.zeros(c.masks, width))
        self.places = _places(c.places, tokens.grid, width, c.predictor_heads)
        turned = c.places != "added"
        self.stack = Stack(c.predictor_depth, width, c.predictor_heads, c.mlp_ratio, c.eps, rotary=turned)
        self.head = nn.Linear(width, c.width)

    def forward(
        self, encoded: list[Tensor], visible: list[Tensor], target: list[Tensor], valid: Tensor | None = None
    ) -> list[Tensor]:
        """Predict the targets; see TokenDecoder.

        Args:
            encoded: The encoder's output (B, V, D), in a list.
            visible: Indices of the visible tokens (B, V), in a list.
            target: Indices of the targets (B, M), in a list.
            valid: bool (B, V + M); False for padding.
        """
        return [self.head(self._blocks(encoded[0], visible[0], target[0], valid, last=target[0].shape[1]))]

    def _blocks(
        self, encoded: Tensor, visible: Tensor, target: Tensor, valid: Tensor | None, last: int | None = None
    ) -> Tensor:
        """Run the blocks on visible tokens and targets, and return all or only the last tokens."""
        seen = self.bridge(encoded)
        which = torch.arange(len(seen), device=seen.device) % len(self.mask_tokens)
        asked = self.mask_tokens[which].to(seen.dtype)[:, None].expand(-1, target.shape[1], -1)
        x, index = torch.cat((seen, asked), dim=1), torch.cat((visible, target), dim=1)

        def blocks(x: Tensor, mask: Tensor | None, turns: Turns | None, rows: RaggedRows | None) -> Tensor:
            return cast(Tensor, self.stack(x, mask, last=last if rows is None else None, turns=turns, rows=rows))

        made = _apply_at_places(blocks, x, self.places, index, valid)
        return made if last is None else made[:, -last:]


def _places(kind: ClipPlaces, grid: tuple[int, ...], width: int, heads: int) -> AddedPlaces | RotaryPlaces:
    if kind == "added":
        return AddedPlaces(grid, width)
    return RotaryPlaces(grid, width // heads, pairs=kind == "turned in pairs")


def _apply_at_places(
    blocks: Callable[[Tensor, Tensor | None, Turns | None, RaggedRows | None], Tensor],
    x: Tensor,
    places: nn.Module,
    index: Tensor,
    valid: Tensor | None,
    embed: nn.Module | None = None,
) -> Tensor:
    """Run `blocks` on the embedded tokens x (B, L, D) at the positions `index` int64 (B, L).

    `valid` bool (B, L) is False for padding. On a CPU, padding is not computed, and its output is 0; on other devices
    this would have to wait for the device, and a compiled graph has no such lengths.
    """
    mask, rows, length = None, None, x.shape[1]
    if valid is not None and x.device.type == "cpu" and not torch.compiler.is_compiling():
        rows = RaggedRows.of(valid)
        x, index = rows.listed(x), rows.listed(index)
    elif valid is not None:
        mask = valid[:, None, None, :]
    x, turns = x if embed is None else embed(x), None
    if isinstance(places, RotaryPlaces):
        turns = places(index if rows is None else rows.rows(index))
    else:
        x = x + places(index)
    made = blocks(x, mask, turns, rows)
    return made if rows is None else rows.padded(made, length)


class AddedPlaces(nn.Module):
    """The position vectors of the tokens of a grid (t, h, w), as in V-JEPA's code.

    They are the sinusoids of time, row and column, each with a third of `width`, rounded up to an even number; the
    excess is cut off at the end.
    """

    of: Tensor

    def __init__(self, grid: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.register_buffer("of", build_axis_sinusoids(grid, 6 * -(-width // 6))[:, :width].clone(), persistent=False)

    def forward(self, index: Tensor) -> Tensor:
        """Return the vectors (B, L, width) of the tokens `index` int64 (B, L)."""
        return self.of[index]


class RotaryPlaces(nn.Module):
    """The rotary positions of tokens of a grid (t, h, w), as in V-JEPA 2's code: each axis has a third of a head's
    channels, rounded down to an even number; the remaining channels are not rotated.

    Channels 2i and 2i + 1 are rotated in one plane, but by the entries 2i and 2i + 1 of a list that contains the
    frequencies twice: an oversight of the authors' code, documented there, that all their weights were trained with.
    With `pairs`, both use one frequency, as in V-JEPA 2.1's code.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, grid: tuple[int, ...], channels: int, *, pairs: bool = False) -> None:
        super().__init__()
        own = 2 * (channels // len(grid) // 2)
        rates = torch.pow(10000.0, -torch.arange(own // 2, dtype=torch.float64) / (own / 2))
        rates = rates.repeat_interleave(2) if pairs else rates.repeat(2)
        places = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float64) for n in grid))
        angles = (places[:, :, None] * rates).flatten(1)
        angles = F.pad(angles, (0, channels - angles.shape[1]))
        self.register_buffer("cos", angles.cos(), persistent=False)
        sin = angles.sin()
        sin[:, ::2].neg_()
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, index: Tensor) -> Turns:
        """Return the cosines and sines (B, 1, L, d) of the tokens `index` int64 (B, L)."""
        return self.cos[index][:, None], self.sin[index][:, None]


MASKS = Padded(mask=ByView(masks=(MultiBlock(coupled=True), MultiBlock(blocks=2, scale=(0.7, 0.7), coupled=True))))
"""V-JEPA's two masks of a clip."""


def vjepa_large() -> Recipe[VideoBatch]:
    """V-JEPA (Bardes et al., 2024, section 3 and appendix) with ViT-L/16: every fourth frame, 16 in all, at 224 pixels;
    two masks per clip, an L1 loss on predicted features, and a predictor of 12 blocks of width 384 with position
    embeddings.

    Teacher momentum rises linearly from 0.998 to 1, weight decay from 0.04 to 0.4; 90,000 steps with 12,000 of warm-up,
    128 ranks form a batch of 3072. Numbers are from the authors' repository.

    Differences from the authors' code, besides those listed for `vjepa2-large` except the second phase: warm-up starts
    at 0 (authors: a third of the peak); learning rate, weight decay and momentum reach their final values at the last
    step (authors: a schedule 1.25 times as long); the whole gradient is clipped from the first step (authors: per part,
    after warm-up); no key bias (equal softmax).
    """
    return Recipe(
        name="vjepa-large",
        batch_size=24,
        data=VideoData(
            clip=VideoClip(frames=16, stride=4, size=224),
            mask=MASKS,
            augment=SharedCrop(crop=RandomResizedCrop(scale=(0.3, 1.0), ratio=(0.75, 1.35), flip=0.5)),
            views=2,
        ),
        model=VideoJepaConfig(
            width=1024,
            depth=24,
            heads=16,
            predictor_depth=12,
            predictor_heads=16,
            momentum=Linear(start=0.998, end=1.0),
            distance="l1",
            masks=2,
            places="added",
        ),
        optimiser=OptimiserConfig(betas=(0.9, 0.999), weight_decay=0.04, last_weight_decay=0.4, max_grad_norm=10.0),
        schedule=ScheduleConfig(base_lr=6.25e-4 / 12, min_lr=1e-6 / 12, warmup=40 / 300, steps=90_000),
    )
