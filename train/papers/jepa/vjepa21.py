"""V-JEPA 2.1 (Mur-Labadia et al., 2026): V-JEPA 2 that also predicts visible tokens, at several depths of the encoder.

V-JEPA 2 has no loss on the encoder's output for visible tokens, so they need not describe the content at their
positions. Here the predictor also predicts them, with a weight that grows with proximity to hidden tokens. Predictions
and targets are features of several blocks of the encoder, not only of the last one.

Shapes: B samples, N tokens, V of them visible, D the encoder's width, L levels.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from maskstream.pipelines import VideoClip
from maskstream.pipelines.augment import RandomResizedCrop, SharedCrop
from maskstream.pipelines.masks import Linear, MaskBatch, Piecewise
from maskstream.pipelines.masks.schedules.progress import ProgressSchedule
from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.shards.limits import PositiveInt
from maskstream.train.core.model import Grids, Losses, weighted, widen
from maskstream.train.core.optimiser import ScheduleConfig
from maskstream.train.core.recipe import Recipe
from maskstream.train.nn.grid import gather_tokens
from maskstream.train.nn.media_tokens import TokenKind
from maskstream.train.nn.transformer import Norms, RaggedRows, Turns

from .model import of_rows
from .vjepa import MASKS, ClipEncoder, ClipPlaces, ClipPredictor, VideoJepa, VideoJepaConfig
from .vjepa2 import vjepa2_large, vjepa2_tiny


@dataclass(frozen=True, kw_only=True, slots=True)
class DenseJepaConfig(VideoJepaConfig):
    """The sizes of a JEPA of clips that predicts all tokens.

    Attributes:
        places: Kind of positions; see ClipPlaces.
        levels: Number of encoder blocks whose features are predicted: the last of each of `levels` equal parts of its
            depth.
        context: Weight of the loss of visible tokens, as a schedule over the run.
    """

    places: ClipPlaces = "turned in pairs"
    levels: PositiveInt = 4
    context: ProgressSchedule = field(default_factory=lambda: Piecewise(points=((0.05, 0.0), (0.1, 0.5))))

    def validate(self) -> None:
        VideoJepaConfig.validate(self)
        if self.depth % self.levels:
            raise ValueError(
                f"levels must divide the depth of the encoder, got levels={self.levels} and depth={self.depth}"
            )


class DenseJepa(VideoJepa, config=DenseJepaConfig):
    """The model of V-JEPA 2.1."""

    share: Tensor
    """The factor of the loss of visible tokens in the next step, a float32 scalar."""
    at: Tensor
    """The time, row and column of each token, float32 (N, 3)."""

    def __init__(self, config: DenseJepaConfig, grids: Grids) -> None:
        super().__init__(config, grids)
        self.register_buffer("share", torch.tensor(float(config.context.at(0.0))))
        places = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float32) for n in self.tokens.grid))
        self.register_buffer("at", places, persistent=False)

    @property
    def dense(self) -> DenseJepaConfig:
        """The config of the model."""
        assert isinstance(self.config, DenseJepaConfig)
        return self.config

    def _parts(self) -> tuple[nn.Module, nn.Module]:
        return LevelEncoder(self.dense, self.tokens), LevelPredictor(self.dense, self.tokens)

    def follow(self, step: int, steps: int) -> None:
        """Update the teacher and the weight of the next step; see Model.

        Args:
            step: Number of the step, from 0.
            steps: Number of steps of the run.
        """
        super().follow(step, steps)
        self.share.fill_(self.dense.context.at(min((step + 1) / steps, 1.0)))

    def loss(self, batch: VideoBatch) -> Losses:
        """Return the loss of V-JEPA 2 at all levels, and the loss of visible tokens."""
        data, mask = self.tokens.of(batch)
        known = self.known(batch, data).repeat_interleave(self.config.masks, dim=0)
        hidden, seen = self._predict_blocks(data, mask)
        error = self.distance(hidden, gather_tokens(known, mask.target))
        counts = (mask.weight * mask.target_valid).to(error.dtype) / of_rows(mask.target_valid)
        own = self.distance(seen, gather_tokens(known, mask.visible)) / self.apart(mask, data).sqrt()
        real = mask.visible_valid.to(own.dtype) / of_rows(mask.visible_valid)
        return Losses(parts={"prediction": weighted(error, counts), "context": weighted(own * self.share, real)})

    def apart(self, mask: MaskBatch, data: Tensor) -> Tensor:
        """Return the distance of each visible token from the nearest target, in tokens: float32 (B, V).

        Args:
            mask: Masks of the batch.
            data: Clips of the batch.
        """
        seen, asked = (self.at[self.placed(index, data)] for index in (mask.visible, mask.target))
        far = torch.cdist(seen, asked, compute_mode="donot_use_mm_for_euclid_dist")
        return far.masked_fill(~mask.target_valid[:, None], torch.inf).amin(dim=2).clamp_min(1)

    def normalised(self, found: Tensor) -> Tensor:
        """See Jepa: each level by itself."""
        return torch.cat([super(DenseJepa, self).normalised(one) for one in found.chunk(self.dense.levels, -1)], dim=-1)

    @torch.no_grad()
    def targets(self, data: Tensor) -> Tensor:
        """Return the teacher's output for all tokens at all levels, each normalised: (B, N, L * D)."""
        return self.normalised(widen(super()._encode(self.teacher, data)))

    def _encode(self, encoder: nn.Module, data: Tensor) -> Tensor:
        return super()._encode(encoder, data)[..., -self.config.width :]


class LevelEncoder(ClipEncoder):
    """A ClipEncoder that returns the outputs of several blocks, each with a separate norm: (B, V, L * D), the last
    block's at the end.
    """

    def __init__(self, config: DenseJepaConfig, tokens: TokenKind[VideoBatch]) -> None:
        super().__init__(config, tokens)
        self.norms = nn.ModuleList(Norms(config.width, config.eps) for _ in range(config.levels - 1))

    def _blocks(self, x: Tensor, mask: Tensor | None, turns: Turns | None, rows: RaggedRows | None) -> Tensor:
        norms: list[nn.Module] = [*self.norms, self.stack.norm]
        made: list[Tensor] = []  # not list[Tensor](), which torch.compile cannot trace
        for number, block in enumerate(self.stack.blocks, start=1):
            x = block(x, mask, turns=turns, rows=rows)
            if number % (len(self.stack.blocks) // len(norms)) == 0:
                made.append(norms[len(made)](x))
        return torch.cat(made, dim=-1)


class LevelPredictor(ClipPredictor):
    """Predicts all levels of targets (B, M, L * D) and, with a separate head, of visible tokens (B, V, L * D)."""

    def __init__(self, config: DenseJepaConfig, tokens: TokenKind[VideoBatch]) -> None:
        super().__init__(config, tokens)
        c, made = config, config.levels * config.width
        if c.levels > 1:
            self.bridge = nn.Sequential(nn.Linear(made, c.width), nn.GELU(), nn.Linear(c.width, c.predictor_width))
        self.head, self.own_head = (nn.Linear(c.predictor_width, made) for _ in range(2))

    def forward(
        self, encoded: list[Tensor], visible: list[Tensor], target: list[Tensor], valid: Tensor | None = None
    ) -> list[Tensor]:
        """Predict the targets, then the visible tokens; see TokenDecoder.

        Args:
            encoded: The encoder's output (B, V, L * D), in a list.
            visible: Indices of the visible tokens (B, V), in a list.
            target: Indices of the targets (B, M), in a list.
            valid: bool (B, V + M); False for padding.
        """
        made = self._blocks(encoded[0], visible[0], target[0], valid)
        seen, asked = made.tensor_split([visible[0].shape[1]], dim=1)
        return [self.head(asked), self.own_head(seen)]


def vjepa21_large() -> Recipe[VideoBatch]:
    """V-JEPA 2.1 (Mur-Labadia et al., 2026, section 3) with ViT-L/16: V-JEPA 2 that also predicts visible tokens, and
    features of four encoder blocks, with a predictor of 24 blocks of width 384.

    The loss of visible tokens is divided by the root of their distance from the nearest target, and its weight rises
    from 0 to 0.5 between steps 15,000 and 30,000.

    300,000 steps with 12,000 of warm-up at a constant rate, 128 ranks form a batch of 3072. Numbers are from the
    authors' configuration.

    Differences from the authors' code, besides those listed for `vjepa2-large`: no images next to clips, so no image
    tokens and no token-type embedding; rows and columns are not scaled to a grid of 16, which makes no difference at
    256 pixels.
    """
    return replace(
        vjepa2_large(),
        name="vjepa21-large",
        data=VideoData(
            clip=VideoClip(frames=16, fps=4.0, size=256),
            mask=MASKS,
            augment=SharedCrop(crop=RandomResizedCrop(scale=(0.3, 1.0), ratio=(0.75, 1.35), flip=0.5)),
            views=2,
        ),
        model=DenseJepaConfig(
            width=1024,
            depth=24,
            heads=16,
            predictor_depth=24,
            momentum=Linear(start=0.99925, end=0.99925),
            distance="l1",
            masks=2,
        ),
        schedule=ScheduleConfig(base_lr=5e-5, min_lr=0.0, warmup=12 / 300, steps=300_000, shape="constant"),
    )


def vjepa21_tiny() -> Recipe[VideoBatch]:
    """Scaled down to the size of `vjepa2-tiny`, with the encoder of `videomae-tiny`, features of two of its four
    blocks, and 150 steps of 8 clips.
    """
    return replace(
        vjepa2_tiny(),
        name="vjepa21-tiny",
        model=DenseJepaConfig(
            width=128,
            depth=4,
            heads=4,
            predictor_width=64,
            predictor_depth=2,
            predictor_heads=4,
            momentum=Linear(start=0.99, end=0.99),
            distance="l1",
            masks=2,
            levels=2,
        ),
        schedule=ScheduleConfig(base_lr=3.2e-2, min_lr=0.0, warmup=0.1, steps=150, shape="constant"),
    )
