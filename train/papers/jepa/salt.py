"""SALT (Li et al., 2025): predicts the features that a frozen teacher, trained on pixels, computes for hidden parts of
a clip.

The teacher is a masked autoencoder of video, which is trained first. The student is a JEPA of video with other targets:
the teacher never changes, so it cannot collapse, and its output can be stored in shards (`data.targets`) instead of
being computed in each step. The loss is the same except for rounding.

The teacher's encoder is part of the model, so it is in checkpoints, and a student needs its file only once. Features
come from the student's encoder.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from maskstream.pipelines import VideoClip
from maskstream.pipelines.augment import RandomResizedCrop, SharedCrop
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.modalities.targets import TARGETS, check_targets
from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.shards.config import NOT_IDENTITY
from maskstream.train.core.model import Grids, widen
from maskstream.train.core.optimiser import ScheduleConfig
from maskstream.train.core.recipe import Recipe
from maskstream.train.core.weights import compute_weights_sum, find_files, load_model, read_model_config
from maskstream.train.nn.masked_autoencoder import MaskedAutoencoder, VideoAutoencoderConfig

from .vjepa import MASKS, ClipPredictor, VideoJepa, VideoJepaConfig
from .vjepa2 import vjepa2_large, vjepa2_tiny

WEIGHTS = "model.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class SaltConfig(VideoJepaConfig):
    """The sizes of a student, and its teacher; `momentum` is not used.

    If a file is given and `weights` is not, `weights` and `autoencoder` are read from it, so they are settings of the
    run, which a resume compares.

    Attributes:
        teacher: The run of a masked autoencoder of video, or its model.safetensors; None is a teacher with random
            weights.
        weights: Checksum of the teacher's weights.
        autoencoder: Sizes of the teacher.
    """

    reads_targets: ClassVar[bool] = True
    takes_sizes: ClassVar[bool] = False

    teacher: str | None = field(default="", metadata=NOT_IDENTITY)
    weights: str = ""
    autoencoder: VideoAutoencoderConfig = field(default_factory=VideoAutoencoderConfig)

    def validate(self) -> None:
        VideoJepaConfig.validate(self)
        file = self.file
        if file is None or self.weights:
            return
        found = read_model_config(file)
        if not isinstance(found, VideoAutoencoderConfig):
            raise ValueError(
                f"the teacher {file} is a {type(found).__name__}, but SALT needs a video masked autoencoder; train "
                "one (maskstream train videomae-tiny) and set model.teacher to its run"
            )
        object.__setattr__(self, "autoencoder", found)
        object.__setattr__(self, "weights", compute_weights_sum(file)[0])

    @property
    def file(self) -> Path | None:
        """The file of the teacher's weights; None if it is unset or missing."""
        if not self.teacher:
            return None
        path = Path(self.teacher)
        path = path / WEIGHTS if path.is_dir() else path
        return path if find_files(path)[0].is_file() else None

    def check(self, data: DataConfig[VideoBatch]) -> None:
        """Check the data; see JepaConfig.

        Raises:
            ValueError: Targets in shards come from another teacher.
        """
        VideoJepaConfig.check(self, data)
        if isinstance(data, VideoData):
            check_targets(data.targets, self.weights, f"model.teacher={self.teacher!r}")


class Salt(VideoJepa, config=SaltConfig):
    """The student and its teacher."""

    loaded: Tensor
    encoder_parts: ClassVar[tuple[str, ...]] = ("tokens", "encoder")

    def __init__(self, config: SaltConfig, grids: Grids) -> None:
        super().__init__(config, grids)
        self.register_buffer("loaded", torch.tensor(config.teacher is None))
        self._missing = self._read()

    @property
    def salt(self) -> SaltConfig:
        """The config of the model."""
        assert isinstance(self.config, SaltConfig)
        return self.config

    def _parts(self) -> tuple[nn.Module, nn.Module]:
        encoder, predictor = super()._parts()
        assert isinstance(predictor, ClipPredictor)
        predictor.head = nn.Linear(self.config.predictor_width, self.salt.autoencoder.width)
        return encoder, predictor

    def _teacher(self) -> nn.Module:
        made = MaskedAutoencoder(self.salt.autoencoder, self.grids).encoder
        return made.requires_grad_(False)

    def _read(self) -> str:
        """Load the weights of the teacher's file; return the reason if this is not possible, for the first use of the
        teacher.
        """
        c = self.salt
        if c.teacher is None or self.loaded.is_meta:
            return ""
        if (file := c.file) is None:
            given = f"the teacher {c.teacher} is missing" if c.teacher else "the teacher is not set"
            return (
                f"{given}; train one (maskstream train videomae-tiny) and set model.teacher to its run, or to null "
                "for a teacher of random weights"
            )
        if (found := compute_weights_sum(file)[0]) != c.weights:
            return (
                f"the teacher {file} has the checksum {found}, but this model's teacher had {c.weights}; restore "
                "that file"
            )
        model = load_model(file)
        assert isinstance(model, MaskedAutoencoder)
        if model.grids != self.grids:
            return (
                f"the teacher {file} reads {model.grids}, but the student reads {self.grids}; use the same tokens "
                "for both"
            )
        self.teacher.load_state_dict(model.encoder.state_dict())
        self.loaded.fill_(True)
        return ""

    def follow(self, step: int, steps: int) -> None:
        """Leave the teacher unchanged; see Model.

        Args:
            step: Number of the step, from 0.
            steps: Number of steps of the run.
        """

    def targets(self, data: Tensor) -> Tensor:
        """Return the teacher's targets; see Jepa.

        Raises:
            ValueError: The teacher's weights are missing or did not fit.
        """
        if self._missing:
            if not self.loaded:
                raise ValueError(self._missing)
            self._missing = ""
        return super().targets(data)

    def known(self, batch: VideoBatch, data: Tensor) -> Tensor:
        """Return the targets stored in the batch, or else compute them; see Jepa.

        Args:
            batch: The batch.
            data: Media of the batch.
        """
        stored = batch.fields.get(TARGETS)
        if not isinstance(stored, Tensor):
            return super().known(batch, data)
        return self.normalised(widen(stored[:: self.config.masks]))

    def token_features(self, batch: VideoBatch) -> Tensor:
        """Return the student's output (B, N, D) for all tokens of a batch, none of them hidden."""
        return self._encode(self.encoder, self.tokens.media(batch))

    def average_teacher_features(self, batch: VideoBatch) -> Tensor:
        """Return the mean of the teacher's output over all tokens, float32 (B, D of the teacher)."""
        return self._encode(self.teacher, self.tokens.media(batch)).float().mean(dim=1)

    def _encode(self, encoder: nn.Module, data: Tensor) -> Tensor:
        made = super()._encode(encoder, data)
        return made[:, 1:] if encoder is not self.encoder and self.salt.autoencoder.class_token else made


VIDEOMAE_BASE = VideoAutoencoderConfig(width=768, heads=12, decoder_width=384, decoder_heads=6)
"""The sizes of `videomae-base`."""


def salt_base() -> Recipe[VideoBatch]:
    """SALT (Li et al., 2025) with ViT-B/16: predicts the features of a frozen `videomae-base` in V-JEPA's hidden
    blocks: 16 frames at 224 pixels, two masks per clip, an L1 feature loss and a predictor of 12 blocks of width 384.
    Set `model.teacher` to the teacher's run.

    Differences from the paper, besides those listed for `vjepa2-large` (the authors' code was not compared): the
    teacher is trained with tubes at 0.9 (authors: V-JEPA's blocks); every fourth frame is used, as by the teacher;
    targets are channel-normalised, as in V-JEPA; learning rates, weight decay and run length are V-JEPA 2's.
    """
    return replace(
        vjepa2_large(),
        name="salt-base",
        data=VideoData(
            clip=VideoClip(frames=16, stride=4, size=224),
            mask=MASKS,
            augment=SharedCrop(crop=RandomResizedCrop(scale=(0.3, 1.0), flip=0.5)),
            views=2,
        ),
        model=SaltConfig(predictor_depth=12, distance="l1", masks=2, autoencoder=VIDEOMAE_BASE),
    )


def salt_tiny() -> Recipe[VideoBatch]:
    """Scaled down to two CPU cores: 256 tokens of 8 frames at 64 pixels, an encoder of 0.6 M parameters, 100 steps of 8
    clips, with a `videomae-tiny` teacher.
    """
    return replace(
        vjepa2_tiny(),
        name="salt-tiny",
        schedule=ScheduleConfig(base_lr=3.2e-2, min_lr=3.2e-4, warmup=0.1, steps=100),
        model=SaltConfig(
            width=120,
            depth=3,
            heads=4,
            predictor_width=60,
            predictor_depth=2,
            predictor_heads=2,
            distance="l1",
            masks=2,
            autoencoder=VideoAutoencoderConfig(
                width=128,
                depth=4,
                heads=4,
                decoder_width=128,
                decoder_depth=2,
                decoder_heads=4,
                target="pixels",
                positions="grid",
            ),
        ),
    )
