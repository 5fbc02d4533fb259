"""OneRef: one tower that learns to find the object of a phrase in an image (Xiao et al., 2024).

Mask referring modelling (MRefM) hides patches, more of them in the box of the phrase, and words. The tower reads both
and predicts, besides the object's location,

- the hidden patches and the hidden words;
- the relation of every patch to the box: its distance from the centre, and the size of the box.

An image patch and the phrase are combined as the product of a projection of the patch and one of the phrase's first
token, both of length 1; the sum of the product is their similarity. The box is regressed from the patches, weighted by
the softmax of their similarities; the segment is regressed from the products, patch by patch. Without masks only box
and segment are learnt (fine-tuning).

Shapes: B samples, N patches, L tokens of a text, D channels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import log
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskstream.pipelines.masks.text.replace import TextMaskBatch
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.modalities.image_text.batch import ImageTextBatch
from maskstream.pipelines.modalities.image_text.data import ImageTextData
from maskstream.shards.limits import ProperProportion
from maskstream.train.core.model import Grids, Losses, LossPart, Model, squared, weighted, widen
from maskstream.train.nn.grid import gather_tokens, put_tokens
from maskstream.train.nn.multiway import Multiway, MultiwayConfig
from maskstream.train.nn.token_layers import NO_IDS, TokenHead
from maskstream.train.nn.transformer import init_linear, init_tables

FOCAL, DICE = 20.0, 2.0
"""The shares of both parts of the loss of an area."""
ALPHA, GAMMA = 0.25, 2
"""Parameters of the focal loss (Lin et al., 2017)."""
FIRST_SCALE, FIRST_BIAS = 10.0, -2.0
"""Similarity as a logit: times this plus that, both learnt."""


def to_corners(centred: Tensor) -> Tensor:
    """Convert boxes (..., 4) from centre, width and height to x0, y0, x1, y1."""
    centre, half = centred[..., :2], centred[..., 2:] / 2
    return torch.cat((centre - half, centre + half), dim=-1)


def to_centre(boxes: Tensor) -> Tensor:
    """Convert boxes (..., 4) from corners to centre, width and height."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat(((low + high) / 2, high - low), dim=-1)


def overlap(one: Tensor, other: Tensor) -> Tensor:
    """Return the intersection over union of pairs of boxes (..., 4): (...), 0 if both have no area.

    Args:
        one: Boxes by their corners.
        other: Boxes by their corners.
    """
    both, either = _compute_areas(one, other)
    return both / either.clamp_min(1e-9)


def compute_generalised_overlap(one: Tensor, other: Tensor) -> Tensor:
    """Return the GIoU of pairs of boxes (..., 4), from -1 to 1 (Rezatofighi et al., 2019).

    It is the overlap minus the fraction of the smallest box around both that neither covers.

    Args:
        one: Boxes by their corners.
        other: Boxes by their corners.
    """
    both, either = _compute_areas(one, other)
    low, high = torch.minimum(one[..., :2], other[..., :2]), torch.maximum(one[..., 2:], other[..., 2:])
    around = (high - low).prod(dim=-1).clamp_min(1e-9)
    return both / either.clamp_min(1e-9) - (around - either) / around


def _compute_areas(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Return the areas of the intersection and the union of boxes."""
    low, high = torch.maximum(one[..., :2], other[..., :2]), torch.minimum(one[..., 2:], other[..., 2:])
    both = (high - low).clamp_min(0).prod(dim=-1)
    first, second = ((box[..., 2:] - box[..., :2]).prod(dim=-1) for box in (one, other))
    return both, first + second - both


@dataclass(frozen=True, kw_only=True, slots=True)
class OneRefConfig(MultiwayConfig):
    """The sizes of the tower, and options of the authors' code.

    Attributes:
        plain: Whether similarities have no learnt scale and bias, products are not scaled, and hidden patches are
            predicted from products of length 1.
        untied: Whether the head of words is one linear layer, instead of a layer, a norm and the table.
        smoothing: Label smoothing of hidden words, whose loss is then the divergence from the smoothed labels.
        drop_worst: Fraction of a batch's hidden words, the ones with the largest loss, that are ignored after
            `drop_after` batches.
        drop_after: Number of batches of a rank.
    """

    plain: bool = False
    untied: bool = False
    smoothing: ProperProportion = 0.0
    drop_worst: ProperProportion = 0.0
    drop_after: int = 12_000

    def check(self, data: DataConfig[ImageTextBatch]) -> None:
        """Raise ValueError for data without phrases, or with a text mask without ids."""
        if isinstance(data, ImageTextData):
            if data.text and "phrase" not in data.text:
                raise ValueError(
                    "OneRef locates the objects that phrases describe, so data.text must include 'phrase', got "
                    f"text={data.text}"
                )
            if data.text_mask is not None and "tokens" not in data.text_mask.needs:
                raise ValueError(NO_IDS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """The outputs of the model.

    Attributes:
        box: Centre, width and height as fractions of the image, (B, 4).
        near: Logits of patches in the box, (B, N).
        segment: Logits of the pixels of each patch, (B, N, pixels).
        product: Products of patches and phrase, (B, N, D).
        words: Tokens of the phrase, (B, L, D).
    """

    box: Tensor
    near: Tensor
    segment: Tensor
    product: Tensor
    words: Tensor


class OneRef(Model[ImageTextBatch], config=OneRefConfig):
    """The OneRef model. Linear layers have MAE's initial weights, tables BERT's; `batches` counts the training batches
    of a rank.
    """

    whole_graph = True

    corner: Tensor
    batches: Tensor

    def __init__(self, config: OneRefConfig, grids: Grids) -> None:
        super().__init__(config, grids)
        self.config, width, c = config, config.width, config
        self.tower = Multiway(config, grids)
        self.tokens = self.tower.tokens
        self.of_patch, self.of_phrase = (nn.Linear(width, width, bias=False) for _ in range(2))
        self.scale = None if c.plain else nn.Parameter(torch.tensor(FIRST_SCALE))
        self.near_bias = None if c.plain else nn.Parameter(torch.tensor(FIRST_BIAS))
        self.source = nn.Linear(width, width)
        self.box, self.relation = build_three_layers(width, 4), build_three_layers(width, 4)
        self.segment = nn.Linear(width, self.tokens.n_inputs // 3)
        self.patch = nn.Linear(width, self.tokens.n_targets)
        self.word = nn.Linear(width, c.vocabulary) if c.untied else TokenHead(width, c.vocabulary, c.eps)
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64), persistent=c.drop_worst > 0)
        rows, columns = self.tokens.grid
        ys, xs = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        self.register_buffer("corner", torch.stack((xs, ys), dim=-1).reshape(-1, 2).float(), persistent=False)
        init_linear(self)
        init_tables(self)

    def unused(self, data: DataConfig[ImageTextBatch]) -> Iterable[nn.Parameter]:
        """See Model."""
        if not isinstance(data, ImageTextData):
            return ()
        of_image = (self.tower.mask_token, *self.patch.parameters(), *self.relation.parameters())
        of_text = tuple(self.word.parameters())
        return (*(of_image if data.image_mask is None else ()), *(of_text if data.text_mask is None else ()))

    def found(self, batch: ImageTextBatch) -> Found:
        """Return the outputs for a batch, whose masks hide parts of it."""
        hidden = None if batch.image_mask is None else batch.image_mask.masked
        seen, read = self.tower(batch.image, batch.inputs, batch.text.valid, hidden)
        patches = seen[:, 1:]
        phrase = F.normalize(self.of_phrase(read[:, :1]), dim=-1)
        product = F.normalize(self.of_patch(patches), dim=-1) * phrase
        alike = product.sum(dim=-1)
        if self.scale is not None:
            alike = alike * self.scale
            product = product * self.config.width  # so that values are about 1
        whole = (alike.softmax(dim=-1)[..., None] * self.source(patches)).sum(dim=1)
        return Found(
            box=widen(self.box(whole).sigmoid()),
            near=widen(alike) if self.near_bias is None else widen(alike) + self.near_bias,
            segment=widen(self.segment(product)),
            product=product,
            words=read,
        )

    def loss(self, batch: ImageTextBatch) -> Losses:
        """Return the losses of all parts of a batch. Samples without a box count only for hidden patches and words."""
        found, boxed = self.found(batch), ~batch.box.isnan().any(dim=-1)
        wanted = torch.where(boxed[:, None], batch.box, 0.5)
        weight = boxed.float() if batch.weight is None else boxed.float() * batch.weight
        far = (found.box - to_centre(wanted)).abs().sum(dim=-1)
        parts = {
            "box": weighted(far, weight),
            "overlap": weighted(1 - compute_generalised_overlap(to_corners(found.box), wanted), weight),
            **_compute_area_loss("patches of the box", found.near, self.inside(wanted), weight),
        }
        if batch.segment is not None:
            segment = self.tokens.split(batch.segment[..., None].expand(-1, -1, -1, 3))[..., ::3]
            known = weight * batch.segment.flatten(1).any(dim=1)
            parts |= _compute_area_loss("segment", found.segment.flatten(1), segment.flatten(1).float(), known)
        if batch.image_mask is not None:
            mask = batch.image_mask
            true = self.tokens.targets(gather_tokens(self.tokens.split(batch.image), mask.target))
            parts["hidden patches"] = squared(self._patches(found, mask.target), true, mask.weight)
            apart = (widen(self.relation(found.product)) - self.relations(wanted)).abs().sum(dim=-1).mean(dim=-1)
            parts["relations"] = weighted(apart, weight)
        if batch.text_mask is not None:
            parts["hidden words"] = self._words(found, batch, batch.text_mask)
        return Losses(parts=parts)

    def _words(self, found: Found, batch: ImageTextBatch, mask: TextMaskBatch) -> LossPart:
        """Return the cross-entropy of hidden tokens, in nats."""
        if mask.tokens is None:
            raise ValueError(NO_IDS)
        label, c = gather_tokens(batch.text.tokens, mask.target).long(), self.config
        logits, others = widen(self._logits(found, mask.target)).flatten(0, 1), c.vocabulary - 1
        share = c.smoothing * c.vocabulary / others  # torch smooths over all ids, the authors over all others
        wrong = F.cross_entropy(logits, label.flatten(), reduction="none", label_smoothing=share).view_as(label)
        if c.smoothing:
            wrong = wrong + (1 - c.smoothing) * log(1 - c.smoothing) + c.smoothing * log(c.smoothing / others)
        if not c.drop_worst:
            return weighted(wrong, mask.weight)
        late = self.batches > c.drop_after
        if self.training:
            self.batches += 1
        return weighted(wrong, mask.weight * torch.where(late, select_best(wrong, mask.weight, 1 - c.drop_worst), 1.0))

    def _logits(self, found: Found, target: Tensor) -> Tensor:
        """Return the logits of the tokens `target` (B, M): (B, M, vocabulary)."""
        hidden = gather_tokens(found.words, target)
        if isinstance(self.word, TokenHead):
            return cast(Tensor, self.word(hidden, self.tower.ids.ids.weight))
        return cast(Tensor, self.word(hidden))

    def _patches(self, found: Found, target: Tensor) -> Tensor:
        """Return the predictions (B, M, values) of the patches `target` (B, M)."""
        product = gather_tokens(found.product, target)
        return cast(Tensor, self.patch(F.normalize(product, dim=-1) if self.config.plain else product))

    def relations(self, boxes: Tensor) -> Tensor:
        """Return the relation of each patch to boxes.

        It is ((i - x) / W, (j - y) / H, 1 / w, 1 / h) for the patch in column i and row j of W x H, and a box with the
        centre x, y and the sides w and h, at least 1, all in patches.

        Args:
            boxes: Corners as fractions of the image (B, 4).

        Returns:
            float32 (B, N, 4).
        """
        rows, columns = self.tokens.grid
        size = torch.tensor((columns, rows), device=boxes.device, dtype=torch.float32)
        given = to_centre(boxes.float()) * size.repeat(2)
        away = (self.corner - given[:, None, :2]) / size
        sides = 1 / given[:, None, 2:].clamp_min(1).expand(-1, len(self.corner), -1)
        return torch.cat((away, sides), dim=-1)

    def inside(self, boxes: Tensor) -> Tensor:
        """Return 1 for each patch whose centre is in a box, else 0: float32 (B, N)."""
        rows, columns = self.tokens.grid
        size = torch.tensor((columns, rows), device=boxes.device, dtype=torch.float32)
        centre = (self.corner + 0.5) / size
        low, high = boxes[:, None, :2], boxes[:, None, 2:]
        return ((low <= centre) & (centre < high)).all(dim=-1).float()

    def reconstructed(self, batch: ImageTextBatch) -> ImageTextBatch:
        """Return the batch with the predicted box and segment, and hidden parts replaced by predictions."""
        found = self.found(batch)
        box = to_corners(found.box).clamp(0, 1)
        (h, w), (ph, pw) = self.tokens.grid, self.tokens.patch
        segment = (found.segment > 0).reshape(-1, h, w, ph, pw).transpose(2, 3).reshape(batch.image.shape[:3])
        image, text = batch.image, batch.text
        if batch.image_mask is not None:
            target = batch.image_mask.target
            painted = self.tokens.paint(image, target, self._patches(found, target))
            hidden = batch.image_mask.masked.view(-1, h, w).repeat_interleave(ph, dim=1).repeat_interleave(pw, dim=2)
            image = torch.where(hidden[..., None], painted, image)  # padding of targets points to a patch too
        if batch.text_mask is not None:
            target, real = batch.text_mask.target, batch.text_mask.target_valid
            logits = self._logits(found, target)
            before = gather_tokens(text.tokens, target)
            rows = put_tokens(text.tokens, target, torch.where(real, logits.argmax(dim=-1).int(), before))
            rows[:, 0] = text.tokens[:, 0]  # padding points to token 0, which is never hidden
            text = replace(text, tokens=rows)
        return replace(batch, image=image, text=text, box=box, segment=segment)


def select_best(wrong: Tensor, weight: Tensor, share: float) -> Tensor:
    """Return 1 for the smallest errors and 0 for the others.

    Args:
        wrong: Errors (B, M).
        weight: Weights (B, M); errors without weight are not selected.
        share: Fraction of the weighted errors to select.
    """
    real = (weight > 0).flatten()
    order = torch.where(real, wrong.detach().flatten(), float("inf")).argsort(stable=True)
    kept = torch.arange(len(real), device=real.device) < (real.sum().double() * share).long()
    return torch.zeros_like(wrong).flatten().scatter(0, order, kept.to(wrong.dtype)).view_as(wrong)


def build_three_layers(width: int, values: int) -> nn.Sequential:
    """Build three linear layers with ReLUs in between.

    Args:
        width: Channels of the input and the hidden layers.
        values: Channels of the output.
    """
    return nn.Sequential(
        nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, values)
    )


def _compute_area_loss(name: str, logits: Tensor, wanted: Tensor, weight: Tensor) -> dict[str, LossPart]:
    """Return the focal loss and the dice loss of areas (B, cells), of samples with weights (B,)."""
    likely, wanted = logits.sigmoid(), wanted.to(logits.dtype)
    right = likely * wanted + (1 - likely) * (1 - wanted)
    rare = ALPHA * wanted + (1 - ALPHA) * (1 - wanted)
    error = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    focal = (rare * error * (1 - right) ** GAMMA).mean(dim=-1)
    both = (likely * wanted).sum(dim=-1)
    dice = 1 - (2 * both + 1) / (likely.sum(dim=-1) + wanted.sum(dim=-1) + 1)
    return {f"{name}, focal": weighted(focal, weight, FOCAL), f"{name}, dice": weighted(dice, weight, DICE)}
