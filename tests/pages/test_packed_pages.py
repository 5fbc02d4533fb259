"""Packed rows on pages and in commands: each row is drawn, and a run of `native-tiny` is shown, measured and probed."""

import base64
import json
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from maskstream.cli import app
from maskstream.modalities import WAYS, modality_of
from maskstream.modalities.native import NATIVE
from maskstream.pages.figures.packed import ACROSS, CELL_PX, EMPTY, PackedFigures, _colour, _frames, _join_montage
from maskstream.pipelines import masks, packed_loader
from maskstream.pipelines.augment import Native
from maskstream.shards.format.manifest import Manifest
from maskstream.train import named_recipe, train
from maskstream.train.core.recipe import check_modality

from ..pipelines.every_modality import write_split
from ..pipelines.small_media import packed_image_samples
from ..train.test_every_recipe import CUTS
from ..with_new_checksum import renew_checksum

ROOM = 12


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    made = write_split("image", tmp_path_factory.mktemp("split"), packed_image_samples)
    renew_checksum(made, label_names=["one", "other"])
    return made


@pytest.fixture(scope="module")
def run(split, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    train("native-tiny", split, out, set=CUTS["native"], steps=2, device="cpu", threads=1, progress=False)
    return out


@pytest.fixture(scope="module")
def batch(split):
    native = Native(patch=8, tubelet=2, least=4, most=48)
    loader = packed_loader(
        split, native=native, mask=masks.Random(ratio=0.75), row_tokens=ROOM, rows=2, device="cpu", scaling=0
    )
    found = next(iter(loader))
    loader.close()
    return found


def pixels(uri):
    data = np.frombuffer(base64.b64decode(uri.partition(",")[2]), np.uint8)
    return cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def command(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_row_has_a_cell_of_the_colour_of_its_sample_for_each_visible_token(batch):
    figures = PackedFigures()
    for row in range(2):
        card = figures.sample(batch, row)
        first, last = batch.cu_rows[row : row + 2].tolist()
        counts = batch.mask.cu_visible[first : last + 1].diff().tolist()
        expected = [_colour(i) for i, n in enumerate(counts) for _ in range(n)]
        expected += [EMPTY] * (ROOM - len(expected))
        image = pixels(card.figures[0].items[0].uri)
        assert image.shape == (CELL_PX, ACROSS * CELL_PX, 3)
        middle = CELL_PX // 2
        assert [tuple(image[middle, CELL_PX * i + middle].tolist()) for i in range(ROOM)] == expected
        assert len(card.figures[1].items) == last - first
        assert card.words == f"{last - first} sample{'s'[: last - first != 1]}, {sum(counts)} of {ROOM} visible tokens"


def test_a_sample_is_drawn_at_its_aspect_with_its_hidden_tokens(batch):
    for i in range(len(batch)):
        _, h, w = batch.grid_thw[i].tolist()
        frames, hidden = _frames(batch, i, 160)
        cell = frames.shape[1] // h
        assert frames.shape == (1, h * cell, w * cell, 3)
        own = slice(*batch.cu_seqlens[i : i + 2].tolist())
        assert (hidden.ravel() == batch.mask.masked[own].numpy()).all()
        true = batch.tokens[own].view(h, w, 2, 8, 8, 3)[:, :, 0].float().mean(dim=(2, 3)).numpy()
        seen = frames[0].reshape(h, cell, w, cell, 3).mean(axis=(1, 3))
        assert np.abs(seen - true).max() < 4


def test_steps_of_a_clip_are_shown_in_order(batch):
    own = slice(*batch.cu_seqlens[:2].tolist())
    _, h, w = batch.grid_thw[0].tolist()
    clip = replace(
        batch,
        tokens=torch.cat([batch.tokens[own], 255 - batch.tokens[own]]),
        cu_seqlens=torch.tensor([0, 2 * h * w], dtype=torch.int32),
        grid_thw=torch.tensor([[2, h, w]]),
        mask=None,
    )
    frames, hidden = _frames(clip, 0, 160)
    assert frames.shape[0] == 2
    assert (_join_montage(frames)[:, : frames.shape[2]] == frames[0]).all()
    assert (_join_montage(frames)[:, frames.shape[2] :] == frames[1]).all()
    assert _join_montage(frames[[0, 1, 0]]).shape == (2 * frames.shape[1], 2 * frames.shape[2], 3)
    assert not hidden.any()
    assert np.abs(frames[0].astype(int) + frames[1] - 255).max() <= 1


def test_preview_draws_rows(split, tmp_path):
    page = tmp_path / "rows.html"
    chosen = [f"--set={one}" for one in ("row_tokens=24", "native.patch=8", "native.least=4", "native.most=48")]
    command("preview", split, "--modality", "native", "--samples", 2, "--out", page, *chosen)
    text = page.read_text()
    assert text.count("Each cell is a visible token") == 2
    assert {"Row 1", "Row 2"} <= set(re.findall(r"Row \d", text))
    assert "one (0)" in text


def test_bench_says_how_empty_rows_are_and_how_evenly_ranks_decode(split):
    chosen = [f"--set={one}" for one in ("row_tokens=12", "native.patch=8", "native.least=4", "native.most=48")]
    words = ["bench", split, "--modality", "native", "--batch-size", 1, "--seconds", 0.2, *chosen]
    found = json.loads(command(*words, "--json"))
    assert 0 <= found["empty"] < 0.5
    balance = found["decode_balance"]
    assert balance is None or 1 <= balance["median"] <= balance["worst"] < 4
    assert "empty" in command(*words)


def test_a_run_is_reported_evaluated_and_probed(split, run, tmp_path):
    page = tmp_path / "report.html"
    command("report", run, "--data", split, "--same-split", "--out", page)
    assert "the encoder saw" in page.read_text()
    found = json.loads((run / "evaluation.json").read_text())["evaluations"][0]["scores"][0]
    assert found["name"] == "squared error of a normalised patch"
    assert set(found["baselines"]) == {"every patch's mean", "a copy of the nearest visible patch"}
    probed = json.loads(
        command(
            *("probe", run, "--data", split, "--test", split, "--same-split", "--probes", "knn10,linear"),
            *("--seeds", 1, "--json"),
        )
    )
    assert {(one["encoder"], one["probe"]) for one in probed["reached"]} == {
        (encoder, probe) for encoder in ("pre-trained", "untrained") for probe in ("knn10", "linear")
    }
    assert probed["train"] == probed["test"] > 10


def test_ways_to_load_are_of_known_modalities(split):
    for way in WAYS.values():
        assert set(way.of)
    assert modality_of(Manifest.load(split)).name == "image"
    assert modality_of(Manifest.load(split), "native").name == "native"
    assert modality_of(Manifest.load(split), data=WAYS["native"].data).name == "native"


def test_the_same_recipe_trains_on_clips(tmp_path):
    videos = write_split("video", tmp_path / "videos")
    chosen = [*CUTS["native"], "data.native.most=96", "data.row_tokens=96", "data.clip.seconds=[0.5,1]", "batch_size=1"]
    train("native-tiny", videos, tmp_path / "run", set=chosen, steps=2, device="cpu", threads=1, progress=False)
    command("report", tmp_path / "run", "--data", videos, "--same-split")
    assert "the encoder saw" in (tmp_path / "run/report.html").read_text()
    page = tmp_path / "rows.html"
    small = [f"--set={one}" for one in ("row_tokens=96", "native.patch=8", "native.tubelet=2", "clip.seconds=[0.5,1]")]
    command("preview", videos, "--modality", "native", "--samples", 1, "--out", page, *small)
    assert re.search(r"\d x \d+ x \d+, \d+ visible", page.read_text())
    recipe = named_recipe("native-tiny")
    with pytest.raises(ValueError, match=r"is for image or image-text or video or audio, but .* contains text"):
        check_modality(recipe, Manifest.load(write_split("text", tmp_path / "texts")))


def test_masks_by_name_are_those_of_pictures_and_of_clips():
    chosen = NATIVE.chosen(["mask.energy=stored"], ["by-energy"])
    assert chosen.mask == masks.ByEnergy(ratio=0.75, energy="stored")
    assert {"mae", "tube", "by-energy"} <= set(NATIVE.masks[0].legal())
    with pytest.raises(ValueError, match=r"tokens of native, which have no flow; choose from .*by-energy"):
        NATIVE.chosen(masks=["motion-guided"])
