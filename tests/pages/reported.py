"""What the tests of reports draw: a tiny recipe, metrics, clips, and the page of them."""

from dataclasses import replace

import numpy as np
import torch

from maskstream.pages.figures.card import Section
from maskstream.pages.figures.video import VideoFigures
from maskstream.pages.report.report import report_page as any_page
from maskstream.pipelines import VideoClip
from maskstream.pipelines.masks import TokenGrid, Tube
from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.train.core.metrics import StepMetrics
from maskstream.train.core.optimiser import ScheduleConfig
from maskstream.train.core.recipe import Recipe
from maskstream.train.evaluate.evaluation import NORMALISED, Evaluation
from maskstream.train.models import VideoAutoencoderConfig
from maskstream.train.papers.videomae.evaluate import READING, explain_unpredicted

GRID = TokenGrid.video(4, 32, 32, tubelet=2, patch=8)


SIZES = VideoAutoencoderConfig(width=32, depth=1, heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2)


def tiny(mask):
    return Recipe(
        name="report-test",
        data=VideoData(clip=VideoClip(frames=4, stride=4, size=32), mask=mask, patch=8),
        batch_size=3,
        model=SIZES,
        schedule=ScheduleConfig(base_lr=0.1, min_lr=0.001, warmup=0.2, epochs=2),
    )


def steps(losses, first=1):
    return [
        StepMetrics(
            step=first + i,
            epoch=0,
            loss=loss,
            parts={"reconstruction": loss},
            lr=1e-4 * (i + 1),
            grad_norm=1.0,
            clips_per_s=20.0 + i,
            data_wait_share=0.25,
        )
        for i, loss in enumerate(losses)
    ]


def clips(n=2, mask=None, key="clip"):
    generator = torch.Generator().manual_seed(1)
    rngs = [np.random.default_rng(i) for i in range(n)]
    return VideoBatch(
        video=torch.randint(60, 256, (n, 4, 32, 32, 3), generator=generator).to(torch.uint8),
        mask=(mask or Tube(ratio=0.75)).draw(GRID, rngs),
        flow=None,
        label=torch.zeros(n, dtype=torch.int64),
        key=[f"{key}{i}" for i in range(n)],
        pts_s=torch.arange(4, dtype=torch.float64).mul(0.5).expand(n, 4).contiguous(),
    )


def report_page(metrics, batches, made, facts, *, title, grid, label_names=()):
    figures = VideoFigures(grid=grid, label_names=label_names)
    rows = [
        (batch, replace(batch, video=torch.from_numpy(m)), i)
        for batch, m in zip(batches, made, strict=True)
        for i in range(len(batch))
    ]
    sections = (
        Section(
            title="Reconstructions",
            words=READING + NORMALISED + explain_unpredicted(batches[0]),
            cards=tuple(figures.compared(*row) for row in rows),
            layout="grid",
        ),
        Section(title="The same", cards=tuple(figures.sample(batch, i) for batch, _, i in rows)),
    )
    return any_page(metrics, Evaluation(scores=()), sections, facts, title=title)
