"""Segments of whole recordings as AudioSet lists them, with several classes each, in Lightning's Trainer.

The user has the three csv files of AudioSet, whole recordings of one's own, and a training script that is finished.
"""

import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from maskstream.pipelines import AudioBatch, AudioClip, audio_loader

from .conftest import Command

RATE_HZ, SEGMENT_S = 16_000, 2
TONES_HZ = {"/m/low": 300, "/m/middle": 1000, "/m/high": 3000}
HEAD = "# Segments csv\n# num_ytids=2\n# YTID, start_seconds, end_seconds, positive_labels\n"


def write_audioset(root: Path) -> None:
    """Recordings of a minute; each segment has one tone or two, between segments is silence."""
    (root / "audio").mkdir(parents=True)
    names = list(TONES_HZ)
    rows = [f'{number},{name},"{name[3:]}"' for number, name in enumerate(names)]
    (root / "class_labels_indices.csv").write_text("\n".join(["index,mid,display_name", *rows]) + "\n")
    time = np.arange(SEGMENT_S * RATE_HZ) / RATE_HZ
    rng = np.random.default_rng(0)
    for list_name, recordings in {"balanced_train_segments": 3, "eval_segments": 1}.items():
        lines = []
        for number in range(recordings):
            ytid = f"{list_name[:4]}_______"[:10] + str(number)
            sound = np.zeros(60 * RATE_HZ)
            for start in range(1, 60, 2 * SEGMENT_S):
                heard = sorted(rng.choice(names, rng.integers(1, 3), replace=False))
                tones = sum(np.sin(2 * np.pi * TONES_HZ[name] * time) for name in heard)
                sound[start * RATE_HZ : (start + SEGMENT_S) * RATE_HZ] = 0.2 * tones
                lines.append(f'{ytid}, {start:.3f}, {start + SEGMENT_S:.3f}, "{",".join(heard)}"\n')
            with wave.open(str(root / f"audio/{ytid}.wav"), "wb") as file:
                file.setparams((1, 2, RATE_HZ, len(sound), "NONE", ""))
                file.writeframes((sound * 32767).astype(np.int16).tobytes())
        (root / f"{list_name}.csv").write_text(HEAD + "".join(lines))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*:UserWarning", "ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning")
def test_lightning_learns_the_classes_of_segments(maskstream: Command, tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning.pytorch")
    write_audioset(tmp_path / "raw")
    maskstream("datasets audioset")
    maskstream("shards audioset --root raw --out shards --set balanced=true --set whole=true --workers 1")
    maskstream("inspect shards/train")

    class Classes(lightning.LightningModule):
        """A linear layer over the mean spectrum."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.LazyLinear(len(TONES_HZ))

        def forward(self, batch: AudioBatch) -> torch.Tensor:
            logits: torch.Tensor = self.layer(batch.spectrogram.float().flatten(1, -2).mean(1))
            return logits

        def training_step(self, batch: AudioBatch, index: int) -> torch.Tensor:
            wanted = torch.as_tensor(np.asarray(batch.fields["labels"])).float()
            return torch.nn.functional.binary_cross_entropy_with_logits(self(batch), wanted)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), 0.1)

    def loader(split: str, **options: bool):
        clip = AudioClip(seconds=1.28)
        return audio_loader(tmp_path / "shards" / split, clip=clip, fields=("labels",), batch_size=5, seed=0, **options)

    module = Classes()
    module(next(iter(loader("train"))))
    trainer = lightning.Trainer(
        max_epochs=30,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, train_dataloaders=loader("train"))
    right = total = 0
    for batch in loader("val", shuffle=False):
        wanted = torch.as_tensor(np.asarray(batch.fields["labels"])) > 0
        right += int(((module(batch) > 0) == wanted).sum())
        total += wanted.numel()
    assert total == 15 * len(TONES_HZ)
    assert right / total > 0.95
