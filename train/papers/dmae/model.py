"""DMAE (Bai et al., 2022): a masked autoencoder that also learns the features of a larger one, under the same mask.

Student and teacher see the same visible patches. A linear layer maps the output of one of the student's blocks to the
width of the teacher; the distance to the output of one of the teacher's blocks is the second part of the loss. The
teacher is frozen and belongs to no checkpoint of the student; only its blocks up to that one are computed.

Shapes: B samples, V visible tokens, D and W the widths of student and teacher.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.shards.limits import NaturalInt, PositiveFloat, PositiveInt
from maskstream.train.core.model import Grids, Losses, squared, weighted, widen
from maskstream.train.core.weights import load_model
from maskstream.train.nn.foreign import load_hf, load_pth
from maskstream.train.nn.grid import gather_tokens
from maskstream.train.nn.masked_autoencoder import ImageAutoencoderConfig, MaskedAutoencoder
from maskstream.train.nn.transformer import Stack


@dataclass(frozen=True, kw_only=True, slots=True)
class DistilledAutoencoderConfig(ImageAutoencoderConfig):
    """The sizes of the student, and its teacher.

    Attributes:
        teacher: A model.safetensors of a masked autoencoder of images, a folder written by transformers, or a .pth file
            of MAE's authors; None trains without a teacher.
        teacher_width: Channels of the teacher.
        teacher_block: Teacher block whose output is compared, from 0.
        block: Student block whose output is compared, from 0.
        share: Weight of the feature distance, a mean over tokens and channels, in the loss.
    """

    teacher: str | None = None
    teacher_width: PositiveInt = 1024
    teacher_block: NaturalInt = 17
    block: NaturalInt = 8
    share: PositiveFloat = 1.0

    def validate(self) -> None:
        ImageAutoencoderConfig.validate(self)
        if self.block >= self.depth:
            raise ValueError(f"block must be below depth={self.depth}, got {self.block}")


class DistilledAutoencoder(MaskedAutoencoder[ImageBatch], config=DistilledAutoencoderConfig):
    """The student. The teacher is loaded with the first loss, or before that is compiled, so a trained student needs
    none.
    """

    def __init__(self, config: DistilledAutoencoderConfig, grids: Grids) -> None:
        super().__init__(config, grids)
        self.distilled = config
        self.match = nn.Linear(config.width, config.teacher_width) if config.teacher is not None else None
        self._teacher: tuple[MaskedAutoencoder[ImageBatch], ...] = ()

    def loss(self, batch: ImageBatch) -> Losses:
        """Return the squared error of target tokens and, in training with a teacher, the L1 distance of unit
        features.
        """
        if self.match is None or not self.training:
            return super().loss(batch)
        data, mask = self.tokens.of(batch)
        tokens = self.tokens.split(data)
        with torch.no_grad():
            expected = self.tokens.targets(gather_tokens(tokens, mask.target))
            wanted = compute_block_features(self.teacher(data.device), data, mask.visible, self.distilled.teacher_block)
        x = seen = compute_block_features(self, data, mask.visible, self.distilled.block)
        stack = get_first_stack(self)
        for block in stack.blocks[self.distilled.block + 1 :]:
            x = block(x)
        made = self.decoder([stack.norm(x)], [mask.visible], [mask.target])[0]
        apart = F.normalize(widen(self.match(seen)), dim=2) - F.normalize(widen(wanted), dim=2)
        error = apart.abs().mean(dim=(1, 2))
        return Losses(
            parts={
                "reconstruction": squared(made, expected, mask.weight),
                "features": weighted(error, mask.weight.mean(dim=1), self.distilled.share),
            }
        )

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """See torch. A graph cannot read files, so the teacher is loaded before."""
        if self.match is not None:
            self.teacher(self.match.weight.device)
        super().compile(*args, **kwargs)

    def teacher(self, device: torch.device) -> MaskedAutoencoder[ImageBatch]:
        """Return the teacher on a device; raise ValueError if it does not fit."""
        if not self._teacher:
            self._teacher = (self._loaded().to(device).requires_grad_(False).eval(),)
        return self._teacher[0]

    def _loaded(self) -> MaskedAutoencoder[ImageBatch]:
        c = self.distilled
        path = Path(c.teacher or "")
        if not path.exists():
            raise ValueError(
                f"the teacher {path} is missing; train one (maskstream train mae-tiny) and set model.teacher to its "
                "model.safetensors, or set model.teacher=null to train without one"
            )
        model: Any = load_hf(path) if path.is_dir() else load_pth(path) if path.suffix == ".pth" else load_model(path)
        if not isinstance(model, MaskedAutoencoder) or model.grids != self.grids:
            raise ValueError(
                f"the teacher {path} is a {type(model).__name__} of {model.grids}, but the student sees {self.grids}; "
                "pass an image masked autoencoder with the same size and patch"
            )
        if (model.config.width, model.config.class_token) != (c.teacher_width, c.class_token) or (
            c.teacher_block >= model.config.depth
        ):
            raise ValueError(
                f"the teacher {path} has width={model.config.width}, depth={model.config.depth} and class_token="
                f"{model.config.class_token}, expected teacher_width={c.teacher_width}, more than teacher_block="
                f"{c.teacher_block} blocks and class_token={c.class_token}; set these to the teacher's"
            )
        return model


def compute_block_features(model: MaskedAutoencoder[ImageBatch], data: Tensor, visible: Tensor, block: int) -> Tensor:
    """Return the output of an encoder block for the tokens `visible`, after the class token's output, if there is one.

    The blocks above it are not computed.

    Args:
        model: The autoencoder.
        data: Images.
        visible: Indices of tokens (B, V).
        block: Number of the block, from 0.

    Returns:
        (B, V, D), or (B, 1 + V, D) with a class token.
    """
    x: Tensor = model.encoder.embedded(model.tokens.inputs(gather_tokens(model.tokens.split(data), visible)), visible)
    for one in get_first_stack(model).blocks[: block + 1]:
        x = one(x)
    return x


def get_first_stack(model: MaskedAutoencoder[ImageBatch]) -> Stack:
    """Return the blocks of the encoder."""
    return cast(Stack, model.encoder.stacks[0])
