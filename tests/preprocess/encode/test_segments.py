"""Segments as COCO writes them: polygons and runs come out as the pixels that they mean, and others are rejected."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from maskstream.pipelines import image_text_loader
from maskstream.preprocess import make_shards
from maskstream.preprocess.datasets.dataset import Dataset
from maskstream.preprocess.encode.encoder import prepared
from maskstream.preprocess.encode.image.encoder import ImageEncoder
from maskstream.preprocess.encode.image_text.encoder import ImageTextEncoder, draw_segment
from maskstream.preprocess.source import RejectError, Source
from maskstream.shards.media.npy import read_npy

WIDTH, HEIGHT = 60, 40


def runs_of(segment: np.ndarray) -> list[int]:
    """Lengths of runs of 0 and 1 in turn, down the columns: COCO's uncompressed form."""
    flat = segment.T.reshape(-1)
    runs = np.diff([0, *(np.flatnonzero(np.diff(flat)) + 1), len(flat)]).tolist()
    return [0, *runs] if flat[0] else runs


def as_string(runs: list[int]) -> str:
    """COCO's compressed form: differences to the run before the last, five bits a letter, the lowest first."""
    text = ""
    for n, run in enumerate(runs):
        value, more = run - (runs[n - 2] if n > 2 else 0), True
        while more:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text += chr(48 + bits + 32 * more)
    return text


def test_runs_are_the_pixels_that_they_count() -> None:
    segment = np.zeros((HEIGHT, WIDTH), bool)
    cv2.circle(canvas := segment.astype(np.uint8), (22, 18), 13, 1, -1)
    segment = canvas.astype(bool)
    segment[30:36, 40:58] = True
    runs = runs_of(segment)
    assert sum(runs) == WIDTH * HEIGHT
    for counts in (runs, as_string(runs)):
        found = draw_segment({"size": [HEIGHT, WIDTH], "counts": counts}, WIDTH, HEIGHT)
        np.testing.assert_array_equal(found, segment)


def test_polygons_are_what_lies_within_and_several_are_united() -> None:
    """Against the distance of each pixel's middle to the nearest edge."""
    angles = np.linspace(0, 2 * np.pi, 30, endpoint=False)
    first = np.stack([24 + 17 * np.cos(angles), 20 + 15 * np.sin(angles)], axis=1)
    second = np.array([[45.5, 5.5], [58.5, 5.5], [58.5, 30.5], [45.5, 30.5]])
    found = draw_segment([first.reshape(-1).tolist(), second.reshape(-1).tolist()], WIDTH, HEIGHT)
    polygons = [one.astype(np.float32)[:, None] for one in (first, second)]
    for y, x in np.ndindex(HEIGHT, WIDTH):
        inside = max(cv2.pointPolygonTest(one, (x + 0.5, y + 0.5), True) for one in polygons)
        if abs(inside) > 1:
            assert found[y, x] == (inside > 0), (x, y, inside)


@pytest.mark.parametrize(
    ("segment", "why"),
    [
        ([], "neither COCO polygons nor runs"),
        ([[1, 2, 3, 4]], "three or more points"),
        ([[1, 2, 3, 4, 5, 6, 7]], "three or more points"),
        ([["a", "b", "c", "d", "e", "f"]], "neither COCO polygons nor runs"),
        ([[1, 2, 3, 1e9, 5, 6]], "outside the image of 60x40"),
        ([[1, 2, 3, float("nan"), 5, 6]], "outside the image of 60x40"),
        (7, "neither COCO polygons nor runs"),
        ({"counts": [5]}, "neither COCO polygons nor runs"),
        ({"size": [WIDTH, HEIGHT], "counts": [5]}, r"it has the size \[60, 40\], but the image \[40, 60\]"),
        ({"size": [HEIGHT, WIDTH], "counts": [5, 90_000]}, "neither COCO polygons nor runs"),
        ({"size": [HEIGHT, WIDTH], "counts": "not runs"}, "neither COCO polygons nor runs"),
    ],
)
def test_what_is_no_segment_is_rejected(segment: Any, why: str) -> None:
    with pytest.raises(RejectError, match=why):
        draw_segment(segment, WIDTH, HEIGHT)


def source(tmp_path: Path, **meta: Any) -> Source:
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    return Source(
        id="a", path=path, meta={"phrase": ["left", "right"], "box": [[0, 0, 20, 40], [30, 10, 20, 20]]} | meta
    )


LEFT, RIGHT = [[0, 0, 20, 0, 20, 40, 0, 40]], [[30, 10, 50, 10, 50, 30, 30, 30]]


def test_segments_belong_to_phrases_and_shrink_with_the_picture(tmp_path: Path) -> None:
    one = source(tmp_path, segment=[LEFT, RIGHT])
    encoder = prepared(ImageTextEncoder(tokenizer="train:wordpiece:300"), {"train": [one]})
    small = replace(encoder, image=ImageEncoder(short_side=20))  # type: ignore[type-var]
    for made, scale in ((encoder, 1), (small, 2)):
        members = made.encode(one).members
        segments = np.unpackbits(read_npy(members["segments.npy"].data), axis=-1, count=WIDTH // scale).astype(bool)
        assert segments.shape == (2, HEIGHT // scale, WIDTH // scale)
        boxes = read_npy(members["boxes.npy"].data) * ([WIDTH, HEIGHT] * 2)
        for segment, box in zip(segments, boxes, strict=True):
            rows, columns = np.nonzero(segment)
            found = scale * np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            np.testing.assert_allclose(found, box, atol=scale)
    with pytest.raises(RejectError, match="has 1 segments for 2 phrases"):
        encoder.encode(source(tmp_path, segment=[LEFT]))


def test_the_loader_shows_the_pixels_of_the_phrase(tmp_path: Path) -> None:
    one = source(tmp_path, segment=[LEFT, RIGHT])
    encoder = ImageTextEncoder(tokenizer="train:wordpiece:300")
    dataset = Dataset(name="own", label_names=(), splits={"train": [one]}, encoder=encoder)
    make_shards(lambda _: dataset, tmp_path, tmp_path / "out", workers=0)
    loader = image_text_loader(
        tmp_path / "out/train",
        size=48,
        text=("phrase",),
        length=8,
        segments=True,
        batch_size=1,
        device="cpu",
        threads=1,
    )
    batch = next(iter(loader))
    loader.close()
    assert batch.segment is not None
    x0, y0, x1, y1 = (batch.box[0] * 48).round().int().tolist()
    inside = batch.segment[0, y0:y1, x0:x1]
    assert inside.float().mean() > 0.85
    assert inside.sum() >= 0.95 * batch.segment[0].sum() > 0
