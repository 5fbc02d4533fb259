"""Audio-MAE: spectrogram tokens, local windows against plain masked attention, and a run with its report."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from maskstream.modalities import MODALITIES
from maskstream.pipelines import AudioClip, masks
from maskstream.preprocess.encode.audio.encoder import encode_sound
from maskstream.preprocess.encode.audio.sound import Sound
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.sample import Sample
from maskstream.shards.members.text import json_member
from maskstream.train import load_model, named_recipe, read_metrics, save_model, train
from maskstream.train.core.optimiser import ScheduleConfig
from maskstream.train.evaluate_run import EVALUATIONS, evaluate_model
from maskstream.train.models import SpectrogramAutoencoderConfig, VideoAutoencoderConfig
from maskstream.train.nn.grid import Windows
from maskstream.train.nn.media_tokens import SpectrogramTokens
from maskstream.train.nn.transformer import TransformerBlock
from maskstream.train.papers.audiomae.evaluate import measure_losses as held_out_losses
from maskstream.train.recipes import RECIPES

from ...pages.pages import without_library, write_report
from ...splits import write_samples

TOKENS = masks.TokenGrid(axes=("time", "freq"), shape=(8, 4), patch=(8, 8))
SIZES = SpectrogramAutoencoderConfig(
    width=32, depth=1, heads=2, decoder_width=16, decoder_depth=2, decoder_heads=2, decoder_window=(4, 4)
)


def spectrograms(n=3, frames=64, bins=32):
    return torch.randn(n, frames, bins, generator=torch.Generator().manual_seed(n))


def draw(n, grid=(8, 4), ratio=0.75):
    layout = masks.TokenGrid(axes=("time", "freq"), shape=grid, patch=(8, 8))
    return masks.Random(ratio=ratio).draw(layout, [np.random.default_rng(i) for i in range(n)])


def test_the_paper_s_counts_and_sizes():
    base = named_recipe("audiomae-base")
    tokens = SpectrogramTokens(base.data.grids["audio"])
    assert (tokens.grid, tokens.n_tokens, tokens.n_inputs) == ((64, 8), 512, 256)
    assert draw(2, (64, 8), base.data.mask.ratio).visible.shape == (2, 102)
    assert (base.model.decoder_depth, base.model.decoder_width, base.model.decoder_window) == (16, 512, (4, 4))
    assert base.optimiser.weight_decay == 1e-4
    tiny = named_recipe("audiomae-tiny")
    assert sum(p.numel() for p in tiny.build().parameters()) < 3e6
    assert tiny.data.grids["audio"].shape == (8, 8)


def test_tokens_are_time_major_and_paint_puts_them_back():
    tokens = SpectrogramTokens(TOKENS)
    data = spectrograms()
    patches = tokens.split(data)
    assert patches.shape == (3, 32, 64)
    for t, f in ((0, 0), (0, 3), (5, 2)):
        own = data[1, 8 * t : 8 * t + 8, 8 * f : 8 * f + 8]
        assert torch.equal(patches[1, t * 4 + f].reshape(8, 8), own)
    targets = tokens.targets(patches)
    own = patches[2, 7].double()
    wanted = (own - own.mean()) / (own.var(unbiased=True) + 1e-6).sqrt()
    assert torch.allclose(targets[2, 7].double(), wanted, atol=1e-5)
    index = torch.tensor([[0, 5, 31]] * 3)
    painted = tokens.paint(data, index, targets[:, [0, 5, 31]])
    assert torch.allclose(painted, data, atol=1e-5)
    flat = tokens.paint(data, index, torch.zeros(3, 3, 64))
    changed = (flat != data).reshape(3, 8, 8, 4, 8).any(dim=(2, 4)).flatten(1)
    assert [row.nonzero().flatten().tolist() for row in changed] == [[0, 5, 31]] * 3
    with pytest.raises(ValueError, match="use the same clip"):
        tokens.split(spectrograms(frames=72))


def test_positions_tell_time_from_frequency():
    positions = SpectrogramTokens(TOKENS).positions(16).reshape(8, 4, 16)
    assert torch.equal(positions[:, 0, :8], positions[:, 3, :8])
    assert torch.equal(positions[0, :, 8:], positions[7, :, 8:])
    assert len(torch.unique(positions.flatten(0, 1), dim=0)) == 32


@pytest.mark.parametrize("grid", [(8, 8), (16, 4), (4, 8)])
def test_windows_are_attention_among_those_that_share_one(grid):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        blocks = [TransformerBlock(16, 2, 2, 1e-6) for _ in range(3)]
        x = torch.randn(2, grid[0] * grid[1], 16)
    windows = Windows(grid, (4, 4))
    t, f = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    wanted = x
    for i, block in enumerate(blocks):
        shift = 2 if i % 2 and grid[0] > 4 else 0
        window = torch.stack(((t + shift) // 4, f // 4), dim=-1).reshape(-1, 2)
        together = (window[:, None] == window[None]).all(dim=-1)
        wanted = block(wanted, together)
    assert torch.allclose(windows(x, blocks), wanted, atol=1e-5)
    with pytest.raises(ValueError, match="does not divide"):
        Windows((6, 4), (4, 4))


def test_only_visible_tokens_reach_the_prediction():
    model = SIZES.build({"audio": TOKENS}).eval()
    mask, data = draw(3), spectrograms()
    before = model.predict(data, mask.visible, mask.target)
    assert before.shape == (3, 24, 64)
    hidden = model.tokens.paint(data, mask.target, torch.ones(3, 24, 64))
    assert torch.equal(model.predict(hidden, mask.visible, mask.target), before)
    seen = model.tokens.paint(data, mask.visible, torch.ones(3, 8, 64))
    assert not torch.allclose(model.predict(seen, mask.visible, mask.target), before)


def test_a_window_needs_tokens_in_a_grid_and_files_keep_it(tmp_path):
    with pytest.raises(ValueError, match="leave it out"):
        VideoAutoencoderConfig(decoder_window=(4, 4)).build({"video": masks.TokenGrid.video(4, 32, 32, patch=8)})
    model = SIZES.build({"audio": TOKENS}, seed=4)
    save_model(model, tmp_path / "m.safetensors")
    again = load_model(tmp_path / "m.safetensors")
    assert (again.config, again.grids) == (SIZES, {"audio": TOKENS})
    mask, data = draw(2), spectrograms(2)
    with torch.no_grad():
        made = [one.predict(data, mask.visible, mask.target) for one in (again, model.eval())]
        assert torch.equal(*made)


# A run


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """Sixteen chirps."""
    out = tmp_path_factory.mktemp("chirps")
    samples = []
    time = np.arange(12000) / 16000
    for i in range(16):
        rng = np.random.default_rng(i)
        sweep = np.sin(2 * np.pi * (rng.uniform(300, 900) * time + rng.uniform(500, 2500) * time**2))
        wave = np.rint(8000 * sweep + rng.normal(0, 60, len(time)))[:, None].astype(np.int32)
        made = encode_sound(Sound(samples=wave, bits=16, sample_rate=16000, codec="pcm_s16le", container="wav"))
        members = {**made.members, "json": json_member(made.meta)}
        samples.append(Sample(key=f"c{i}", members=members, source=f"{i}", label=i % 2, sums=made.sums))
    return write_samples(out, samples, "audio", dataset="c", profile="flac", label_names=("even", "odd"))


@pytest.fixture(scope="module")
def recipe():
    tiny = named_recipe("audiomae-tiny")
    return replace(
        tiny,
        name="audio-test",
        data=replace(tiny.data, clip=AudioClip(seconds=0.64)),
        batch_size=8,
        model=replace(SIZES, depth=2, width=64),
        schedule=ScheduleConfig(base_lr=0.1, min_lr=0.001, warmup=0.1, epochs=1),
    )


def test_a_run_learns_and_is_reported(recipe, split, tmp_path, monkeypatch):
    monkeypatch.setitem(RECIPES, recipe.name, lambda: recipe)
    settings = {"device": "cpu", "threads": 1, "progress": False}
    train(recipe, split, tmp_path / "whole", steps=60, **settings)
    losses = [m.loss for m in read_metrics(tmp_path / "whole/metrics.jsonl")]
    assert np.mean(losses[-10:]) < 0.9 < losses[0]
    model = load_model(tmp_path / "whole/model.safetensors")
    found = held_out_losses(recipe.data, model, Manifest.load(split))
    assert found.samples == 16
    assert found.model < 0.95 * min(found.mean, found.nearest)
    assert found.mean == pytest.approx(255 / 256, abs=0.02)
    out = write_report(tmp_path / "whole", split, clips=3)
    monkeypatch.delitem(EVALUATIONS, SpectrogramAutoencoderConfig)
    with pytest.raises(ValueError, match="SpectrogramAutoencoderConfig has no evaluation"):
        evaluate_model(recipe, model, Manifest.load(split), 1)
    page = out.read_text(encoding="utf-8")
    assert page.count('<article class="clip') == 3
    assert page.count("data:image/webp") >= 9
    assert "squared error of a normalised token of 16 sounds" in page
    assert "squared error of a normalised token by every token&#39;s mean" in page
    assert "://" not in without_library(page)


def test_pictures_show_what_was_hidden_and_what_was_made(recipe, split):
    batch = next(iter(recipe.loader(split, device="cpu", threads=1)))
    model = recipe.build().eval()
    with torch.inference_mode():
        made = model.reconstructed(batch).spectrogram
    hidden = torch.zeros(8, 4, 8, dtype=torch.bool).flatten(1)
    hidden.scatter_(1, batch.mask.target, True)
    pixels = hidden.reshape(8, 4, 8).repeat_interleave(16, 1).repeat_interleave(16, 2)
    assert torch.equal(made[~pixels], batch.spectrogram[~pixels])
    assert (made[pixels] != batch.spectrogram[pixels]).float().mean() > 0.9
    figures = MODALITIES["audio"].figures(recipe.data, Manifest.load(split))
    cards = [figures.compared(batch, replace(batch, spectrogram=made), i) for i in range(8)]
    assert {card.words.split(",")[0] for card in cards} == {"even", "odd"}
    assert all(len({row.items[0].uri for row in card.figures}) == 3 for card in cards)
    with pytest.raises(ValueError, match="pass mask= to the loader"):
        figures.compared(replace(batch, mask=None), batch, 0)
