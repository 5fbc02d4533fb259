"""AVSiam and DiffMAViL: shared weights, parts of several ratios, matching, noise, and runs with their reports."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from maskstream.pipelines import TokenGrid, VideoClip, masks
from maskstream.pipelines.augment import CenterCrop
from maskstream.pipelines.modalities.audiovisual.batch import AudioVisualBatch
from maskstream.pipelines.stream.rng import Place
from maskstream.preprocess.encode.audiovisual.encoder import AudioVisualEncoder
from maskstream.preprocess.source import Source
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.sample import Sample
from maskstream.shards.members.text import json_member
from maskstream.train import load_model, named_recipe, read_metrics, train
from maskstream.train.core.optimiser import ScheduleConfig
from maskstream.train.evaluate.pairs import PairRetrieval, measure_errors
from maskstream.train.nn.grid import build_grid_positions
from maskstream.train.nn.objectives import average_valid_tokens, matching
from maskstream.train.papers.avsiam.model import AUDIO, VIDEO, SiameseConfig, divide_by_count
from maskstream.train.papers.diffmavil.model import NOISE, AudioVisualDiffusionConfig

from ...flash_and_beep import write
from ...pages.pages import write_report
from ...splits import write_samples
from ..core import matching_ranks
from ..core.test_torchrun import torchrun

FRAME = TokenGrid.video(1, 32, 32, tubelet=1, patch=8)
CLIP = TokenGrid.video(4, 32, 32, tubelet=2, patch=8)
SOUND = TokenGrid(axes=("time", "freq"), shape=(8, 4), patch=(8, 8))
RATIOS = (0.0, 0.2, 0.4, 0.6, 0.8)
SIZES = SiameseConfig(width=32, depth=2, heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2)
NOISY = AudioVisualDiffusionConfig(width=32, depth=1, heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2)


def data(n, frames=1):
    generator = torch.Generator().manual_seed(n)
    video = torch.randint(0, 255, (n, frames, 32, 32, 3), generator=generator, dtype=torch.uint8)
    return video, torch.randn(n, 64, 32, generator=generator)


def draws(n, seed=0):
    return [masks.Draw.of(seed, 0, f"s{i}", 0, Place(row=i, rows=n), masks.Cues()) for i in range(n)]


def mask(n, tokens, ratio, name="r"):
    grid = TokenGrid(axes=("token",), shape=(tokens,), patch=(1,))
    schedule = ratio if isinstance(ratio, float) else masks.MultiRatio(ratios=ratio, name=name)
    drawn = masks.Random(ratio=schedule)
    return (drawn if isinstance(ratio, float) else masks.Padded(mask=drawn)).draw(grid, draws(n))


def padded_views(n, tokens, name):
    """Masks of n samples with two views: one at several ratios, one at 0.75."""
    grid = TokenGrid(axes=("token",), shape=(tokens,), patch=(1,))
    several = masks.Random(ratio=masks.MultiRatio(ratios=RATIOS, name=name))
    both = masks.Padded(mask=masks.ByView(masks=(several, masks.Random(ratio=0.75))))
    rows = [
        masks.Draw.of(0, 0, f"s{i}", view, Place(row=i, rows=n), masks.Cues()) for i in range(n) for view in range(2)
    ]
    return both.draw(grid, rows)


def pairs(n, frames=1, **changes):
    """A batch of n pairs in random pixels and values."""
    video, sound = data(n, frames)
    plain = {"waveform": sound, "length": torch.full((n,), 64), "label": torch.zeros(n), "key": ["a"] * n}
    times = {"pts_s": torch.zeros(n, frames), "audio_start_s": torch.zeros(n)}
    masks_of = {"video_mask": None, "audio_mask": None, "flow": None}
    return AudioVisualBatch(video=video, spectrogram=sound, **{**plain, **times, **masks_of, **changes})


def siamese_batch(n=10):
    return pairs(2 * n, video_mask=padded_views(n, 16, "v"), audio_mask=padded_views(n, 32, "a"))


def test_blocks_are_shared_and_norms_and_embeddings_are_not():
    model = SIZES.build({"video": FRAME, "audio": SOUND})
    names = {name for name, _ in model.named_parameters()}
    assert {f"encoder.stacks.0.blocks.0.norm1.of.{kind}.weight" for kind in (0, 1)} <= names
    assert {"encoder.embed.0.weight", "encoder.embed.1.weight"} <= names
    assert sum("attention.qkv" in name for name in names if name.startswith("encoder")) == SIZES.depth
    model(siamese_batch()).loss().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for _, p in model.named_parameters())
    video, sound = data(3)
    before = [one.clone() for one in model.match(video, sound)]
    with torch.no_grad():
        model.encoder.stacks[0].blocks[0].norm1.of[AUDIO].weight.mul_(3)
    after = model.match(video, sound)
    assert torch.equal(before[VIDEO], after[VIDEO])
    assert not torch.allclose(before[AUDIO], after[AUDIO])


@pytest.mark.parametrize("n", [5, 7, 10, 13])
def test_ratio_parts_hold_every_row_once_with_its_own_tokens(n):
    padded = mask(n, 40, RATIOS)
    parts = divide_by_count(padded.visible, padded.n_visible, 5)
    seen = {}
    for rows, visible, valid in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        for row, tokens, real in zip(rows.tolist(), visible, valid, strict=True):
            assert row not in seen
            seen[row] = tokens[real]
    assert sorted(seen) == list(range(n))
    for row, tokens in seen.items():
        assert torch.equal(tokens, (~padded.masked[row]).nonzero()[:, 0])
    if n % 5 == 0:
        assert all(valid.all() for valid in parts[2::3])
        assert [visible.shape for visible in parts[1::3]] == [(n // 5, v) for v in (40, 32, 24, 16, 8)]
    assert sum(valid.numel() for valid in parts[2::3]) < n * 40, "less than padding all to the longest"


def test_a_part_and_its_padding_give_what_each_sample_gives_alone():
    model = SIZES.build({"video": FRAME, "audio": SOUND}).eval()
    video, _ = data(7)
    padded = mask(7, 16, RATIOS)
    tokens = model.video.split(video)
    with torch.inference_mode():
        together = model._match_tokens(VIDEO, tokens, divide_by_count(padded.visible, padded.n_visible, 5))
        for i in range(7):
            visible = (~padded.masked[i]).nonzero()[None, :, 0]
            alone = average_valid_tokens(model._encoded(VIDEO, tokens[i : i + 1], visible))
            torch.testing.assert_close(together[i], alone[0], rtol=1e-4, atol=1e-5)


def test_matching_is_bidirectional_cross_entropy_in_units_of_guessing():
    one, other = (F.normalize(torch.randn(6, 8, generator=torch.Generator().manual_seed(s)), dim=1) for s in (1, 2))
    scores = (one.double() @ other.double().T / 0.05).numpy()
    expected = 0.0
    for table in (scores, scores.T):
        for i, row in enumerate(table):
            expected += np.log(np.exp(row - row.max()).sum()) + row.max() - row[i]
    assert float(matching(one, other, 0.05).mean()) == pytest.approx(expected / 12 / np.log(6), rel=1e-5)
    assert float(matching(one, one, 0.05).mean()) < 1e-2
    same = F.normalize(torch.ones(6, 8), dim=1)
    assert float(matching(same, same, 0.05).mean()) == pytest.approx(1)


@pytest.mark.slow
def test_ranks_match_their_pairs_among_those_of_all(tmp_path):
    status, output = torchrun(2, Path(matching_ranks.__file__), tmp_path / "sum.pt")
    assert status == 0, output
    got = torch.load(tmp_path / "sum.pt", weights_only=True)
    torch.testing.assert_close(got, matching_ranks.gradient(slice(0, 8)), rtol=1e-4, atol=1e-6)


def test_the_loss_is_its_parts_and_reconstruction_sees_no_hidden_token():
    model = SIZES.build({"video": FRAME, "audio": SOUND}).eval()
    batch = siamese_batch()
    with torch.inference_mode():
        losses = model(batch)
        means = losses.means()
        assert float(losses.loss()) == pytest.approx(
            0.5 * reconstruction(losses) + 0.5 * float(means["matching"]), rel=1e-6
        )
        shown = model.select_reconstruction_rows(batch)
        of_video, of_sound = shown.video_mask, shown.audio_mask
        assert (of_video.visible.shape, of_sound.visible.shape) == ((10, 4), (10, 8))
        made = model.predict(shown)
        spoilt = model.audio.split(shown.spectrogram).clone()
        spoilt.scatter_(1, of_sound.target[..., None].expand(-1, -1, spoilt.shape[2]), 7.0)
        sound = spoilt.reshape(-1, 8, 4, 8, 8).transpose(2, 3).reshape(shown.spectrogram.shape)
        again = model.predict(replace(shown, spectrogram=sound))
        whole = model.reconstructed(batch)
    assert all(torch.equal(a, b) for a, b in zip(made, again, strict=True))
    errors = [
        float((one - kind.targets(kind.split(x)[torch.arange(10)[:, None], m.target])).square().mean())
        for one, kind, x, m in zip(
            made, (model.video, model.audio), (shown.video, shown.spectrogram), (of_video, of_sound), strict=True
        )
    ]
    assert reconstruction(losses) == pytest.approx(sum(errors) / 2, rel=1e-5)
    assert torch.equal(whole.video, model.video.paint(shown.video, of_video.target, made[0]))
    assert torch.equal(batch.video[1::2], shown.video)


def reconstruction(losses):
    means = losses.means()
    return float(means["video"] + means["audio"]) / 2


def noisy_batch(n=4, time=None):
    parts = {}
    for name, tokens, values in (("video", 32, 2 * 8 * 8 * 3), ("audio", 32, 64)):
        parts[f"{name}_mask"] = mask(n, tokens, 0.75)
        parts[f"{name}_noise"] = torch.randn(n, 24, values, generator=torch.Generator().manual_seed(values))
        parts[f"{name}_time"] = torch.arange(n) * 100 if time is None else torch.full((n,), time)
    return pairs(n, 4, **parts)


def test_video_patches_in_noise_look_at_seen_tokens_only():
    """Cross-attention: what is predicted of one does not depend on another; in the sound's decoder it does."""
    model = NOISY.build({"video": CLIP, "audio": SOUND}).eval()
    seen = torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(0))
    target, time = torch.arange(5).repeat(2, 1), torch.tensor([3, 900])
    for decoder, independent in ((model.video_decoder, True), (model.audio_decoder, False)):
        noisy = torch.randn(2, 5, decoder.embed.in_features, generator=torch.Generator().manual_seed(1))
        changed = noisy.clone()
        changed[:, 4] += 1
        with torch.inference_mode():
            one, other = decoder(noisy, time, target, seen), decoder(changed, time, target, seen)
            later = decoder(noisy, time.flip(0), target, seen)
        assert torch.allclose(one[:, :4], other[:, :4], atol=1e-6) == independent
        assert not torch.allclose(one[:, 4], other[:, 4])
        assert not torch.allclose(one, later), "the time counts"


def test_less_noise_is_easier_once_it_has_learned():
    model = NOISY.build({"video": CLIP, "audio": SOUND})
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(60):
        torch.manual_seed(step)
        batch = noisy_batch()
        noise = {f"{name}_noise": torch.randn_like(getattr(batch, f"{name}_noise")) for name in ("video", "audio")}
        times = {f"{name}_time": torch.randint(0, 1000, (4,)) for name in ("video", "audio")}
        model(replace(batch, **noise, **times)).loss().backward()
        optimiser.step()
        optimiser.zero_grad()
    with torch.inference_mode():
        clean, pure = (reconstruction(model(noisy_batch(time=time))) for time in (0, NOISE.times - 1))
    assert clean < 0.9 * pure


def test_denoising_is_what_the_loss_measures():
    model = NOISY.build({"video": CLIP, "audio": SOUND}).eval()
    batch = noisy_batch()
    with torch.inference_mode():
        parts = model.denoise(batch)
        expected = sum(float((made - clean).square().mean()) for made, clean, _ in parts) / 2
        assert reconstruction(model(batch)) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="noise="):
        model.denoise(replace(batch, video_noise=None))
    with pytest.raises(ValueError, match="no masks"):
        model.denoise(replace(batch, audio_mask=None))


def test_positions_of_a_grid_tell_all_tokens_apart_and_depend_on_distance_along_an_axis():
    places = build_grid_positions((1, 7, 5), 32)
    assert places.shape == (35, 32)
    scores = places @ places.T
    assert (scores.argmax(dim=1) == torch.arange(35)).all()
    assert float(scores[0, 5]) == pytest.approx(float(scores[10, 15]), abs=1e-4), "one row further down"
    assert float(scores[0, 1]) == pytest.approx(float(scores[17, 18]), abs=1e-4), "one column to the right"
    with pytest.raises(ValueError, match="multiple of 4"):
        build_grid_positions((7, 5), 30)


def test_diffmavil_base_builds_at_full_size_within_its_budget():
    recipe = named_recipe("diffmavil-base")
    with torch.device("meta"):
        model = recipe.build()
    count = sum(p.numel() for p in model.parameters())
    assert 1.9e8 < count < 2.8e8, "two ViT-B encoders of 85 M, two fusion blocks of 7 M, two decoders of 25 M and more"
    assert (model.video.n_tokens, model.audio.n_tokens) == (784, 512)
    assert [len(stack.blocks) for stack in model.encoder.stacks] == [12, 12]
    seen = [recipe.data.video_mask.ratio.at(end) for end in (0, 1)]
    assert [1040 // (int(784 * (1 - r) + 1e-9) + int(512 * (1 - r) + 1e-9)) for r in seen] == [8, 4]


def test_counts_of_the_recipes():
    base, tiny = named_recipe("avsiam-base"), named_recipe("avsiam-tiny")
    video, audio = base.data.grids["video"], base.data.grids["audio"]
    assert (video.shape, video.patch, audio.shape, audio.patch) == ((1, 14, 14), (1, 16, 16), (64, 8), (16, 16))
    assert (base.model.width, base.model.depth, base.model.decoder_width, base.model.temperature) == (
        768,
        12,
        512,
        0.05,
    )
    assert sum(p.numel() for p in tiny.build().parameters()) < 3e6
    noisy = named_recipe("diffmavil-tiny")
    assert noisy.data.noise == NOISE
    assert (noisy.data.video_mask.ratio.at(0), noisy.data.video_mask.ratio.at(1)) == (0.9, 0.8)
    with pytest.raises(ValueError, match="cannot be divided into tokens"):
        replace(tiny.data, seconds=1.01)
    with pytest.raises(ValueError, match="is not a positive multiple"):
        replace(tiny.data, clip=VideoClip(frames=1, stride=1, size=100))


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    """The folder of the splits train and val, of videos with flashes and beeps."""
    folder = tmp_path_factory.mktemp("splits")
    for split, count in (("train", 10), ("val", 5)):
        (folder / split).mkdir()
        samples = []
        for number in range(count):
            path = write(folder / f"{split}{number}.mp4", (4 + 3 * number % 30,), frames=40)
            made = AudioVisualEncoder().encode(Source(id=f"{split}{number}", path=path))
            members = {**made.members, "json": json_member(made.meta)}
            samples.append(Sample(key=f"{split}{number}", members=members, source=f"{number}", label=0, sums=made.sums))
        write_samples(folder / split, samples, "audiovisual", split=split, label_names=("beep",))
    return folder


def small(name):
    recipe = named_recipe(name)
    clip = replace(recipe.data.clip, frames=min(recipe.data.clip.frames, 4), size=32)
    sizes = {"patch": 8, "audio_patch": (16, 16), "seconds": 0.64, "augment": CenterCrop()}
    return replace(
        recipe,
        data=replace(recipe.data, clip=clip, **sizes),
        batch_size=5 if name == "avsiam-tiny" else 1,
        token_budget=None if recipe.token_budget is None else 40,
        model=SIZES if name == "avsiam-tiny" else NOISY,
        schedule=ScheduleConfig(base_lr=0.1, warmup=0.1, steps=12),
    )


@pytest.mark.parametrize("name", ["avsiam-tiny", "diffmavil-tiny"])
def test_a_run_saves_and_reports(name, splits, tmp_path):
    recipe = small(name)
    whole = train(recipe, splits / "train", tmp_path / "a", device="cpu", threads=1, progress=False, save_every=5)
    assert whole.finished
    losses = [row.loss for row in read_metrics(tmp_path / "a/metrics.jsonl")]
    assert len(losses) == 12
    assert np.isfinite(losses).all()
    model = load_model(tmp_path / "a/model.safetensors")
    fresh = recipe.build()
    fresh.load_state_dict(model.state_dict())
    batch = next(iter(recipe.loader(splits / "val", seed=1, device="cpu", threads=1, steps=12)))
    with torch.inference_mode():
        assert float(model(batch).loss()) == float(fresh.eval()(batch).loss())
    page = write_report(tmp_path / "a", splits / "val", recipe=recipe, clips=2).read_text()
    for words in ("5 pairs", "10 pairs", "The encoder saw", "beep", "matching by chance"):
        assert words in page
    assert page.count('<article class="clip') == 2 + 2
    if name == "diffmavil-tiny":
        assert "denoised video" in page
        sizes = [len(batch) for batch in recipe.loader(splits / "train", threads=1, device="cpu", steps=12)]
        assert sizes[0] > sizes[-1]


def test_errors_are_beside_those_of_guessing_and_count_padding_nothing(splits):
    recipe = small("avsiam-tiny")
    model = recipe.build().eval()
    video, audio = measure_errors(recipe.data, model, Manifest.load(splits / "val"), Manifest.load(splits / "train"))
    mean, average = "each patch's mean", "the average patch of its position"
    assert video.count == 5
    assert video.baselines[mean] < 0.01, "frames of one colour have no variance to be normalised"
    assert 0.3 < audio.baselines[mean] <= 1, "digital silence is flat too"
    assert audio.baselines[average] < audio.baselines[mean]
    assert audio.best == average
    with torch.no_grad():
        for head in model.decoder.head:
            head.weight.zero_()
            head.bias.zero_()
    for same in measure_errors(recipe.data, model, Manifest.load(splits / "val"), None):
        assert same.baselines == {mean: pytest.approx(same.value)}


def test_recall_is_the_share_of_pairs_among_the_nearest():
    scores = torch.tensor([[0.9, 0.1, 0.0], [0.8, 0.2, 0.5], [0.0, 0.3, 0.4]])
    found = PairRetrieval(similarity=scores, keys=["a", "b", "c"])
    assert found.recall(1) == pytest.approx((2 / 3, 1 / 3))
    assert found.recall(3) == (1, 1)
    scores = list(found.scores("val"))
    assert [(one.name, one.value) for one in scores[:2]] == [
        ("recall at 1, clip to sound, split val", pytest.approx(2 / 3)),
        ("recall at 1, sound to clip, split val", pytest.approx(1 / 3)),
    ]
    assert [one.baselines["chance"] for one in scores] == [1 / 3, 1 / 3, 1, 1]
