"""The run report: curves that are the metrics, reconstructions that are the model's, and one safe file."""

import base64
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import av
import cv2
import numpy as np
import pytest
import torch

from maskstream.cli import main
from maskstream.pages.figures.card import Section
from maskstream.pages.figures.video import VideoFigures, complete
from maskstream.pages.figures.work import Work
from maskstream.pages.report.curves import run_curves
from maskstream.pages.report.report import report_page as any_page
from maskstream.pages.report.report import with_unseen
from maskstream.pages.report.works.video import reading
from maskstream.pipelines import VideoClip
from maskstream.pipelines.masks import Dual, MotionGuided, PartDecoded, Random, TokenGrid, Tube, mask_batch
from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.preprocess.encode.video.video import PROFILES, encode_video
from maskstream.shards.errors import ResumeError, ShardError
from maskstream.shards.format.dataset import finish_split
from maskstream.shards.format.sample import DatasetInfo, Sample
from maskstream.shards.format.writer import write_shard
from maskstream.shards.members.text import json_member
from maskstream.shards.members.video import video_member
from maskstream.train import train
from maskstream.train.core.metrics import StepMetrics
from maskstream.train.core.recipe import Recipe
from maskstream.train.core.schedule import ScheduleConfig
from maskstream.train.evaluate.held_out import HeldOut
from maskstream.train.evaluate.probe import ProbeResult, Reached
from maskstream.train.models import VideoAutoencoderConfig

from .pages import write_report

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
            words=reading(batches[0]),
            cards=tuple(figures.compared(*row) for row in rows),
            layout="grid",
        ),
        Section(title="The same", cards=tuple(figures.sample(batch, i) for batch, _, i in rows)),
    )
    return any_page(metrics, Work(found=HeldOut(facts={}), sections=sections), facts, title=title)


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.stack, self.words = [], [], []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "link", "img", "input"}:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.stack
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if self.stack and self.stack[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def points(path):
    return np.array([[float(a), float(b)] for a, b in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", path)])


def decode(uri):
    data = np.frombuffer(base64.b64decode(uri.partition(",")[2]), dtype=np.uint8)
    return cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


# Curves


def test_curves_are_the_metrics():
    losses = [1.2, 1.1, 0.9, 0.95, 0.7, 0.72]
    curves = run_curves(steps(losses))
    xy = points(curves.loss.line)
    low, high = curves.loss.y_range
    np.testing.assert_allclose(1 + xy[:, 0] / 1000 * 5, [1, 2, 3, 4, 5, 6], atol=0.01)
    np.testing.assert_allclose(high - xy[:, 1] / 1000 * (high - low), losses, atol=0.001 * (high - low))
    assert curves.baseline_at == pytest.approx((high - 1.0) / (high - low))
    assert curves.last_loss == pytest.approx(np.mean(losses))
    assert (curves.steps, curves.last_steps, curves.edge) == (6, 6, None)
    assert curves.median_clips_per_s == pytest.approx(22.5)
    assert curves.mean_data_wait == pytest.approx(0.25)
    lr = points(curves.lr.line)
    assert curves.lr.y_range[0] == 0.0
    np.testing.assert_allclose((1 - lr[:, 1] / 1000) * curves.lr.y_range[1], 1e-4 * np.arange(1, 7), atol=1e-6)


def test_the_last_twenty_steps_are_averaged_whatever_the_order_of_the_rows():
    rows = steps(np.linspace(2.0, 0.5, 100).tolist())
    curves = run_curves(rows[::-1])
    assert curves.last_loss == pytest.approx(np.linspace(2.0, 0.5, 100)[-20:].mean())
    assert curves.last_steps == 20
    assert curves.loss.smooth


@pytest.mark.parametrize("losses", [[0.2, 0.3], [3.0, 2.0]])
def test_the_loss_of_predicting_the_mean_is_always_in_the_chart(losses):
    curves = run_curves(steps(losses))
    assert 0 <= curves.baseline_at <= 1


def test_first_steps_far_above_the_rest_are_drawn_at_the_edge():
    losses = [40.0, 5.0, *np.linspace(0.05, 0.01, 98).tolist()]
    curves = run_curves(steps(losses), 0.03)
    low, high = curves.loss.y_range
    assert high < 0.2
    drawn = high - points(curves.loss.line)[:, 1] / 1000 * (high - low)
    assert drawn[0] == drawn[1] == pytest.approx(curves.edge, abs=0.002 * (high - low))
    np.testing.assert_allclose(drawn[2:], losses[2:], atol=0.002 * (high - low))
    assert high - curves.baseline_at * (high - low) == pytest.approx(0.03)


@pytest.mark.parametrize("n", [2, 20, 150, 350, 800, 1600])
def test_every_chart_has_two_ticks_or_more_along_the_steps(n):
    curves = run_curves(steps(np.linspace(1.0, 0.5, n).tolist()))
    for chart in (curves.loss, curves.lr, curves.clips_per_s, curves.data_wait):
        assert 2 <= len(chart.x_ticks) <= 6


def test_a_page_tells_that_losses_are_drawn_lower_than_they_are():
    batch = clips(1)
    told = [
        "are drawn at that height"
        in report_page(steps(losses), [batch], [batch.video.numpy()], {}, grid=GRID, title="t")
        for losses in ([40.0] + [0.5] * 50, [1.5] + [0.5] * 50)
    ]
    assert told == [True, False]


def test_a_run_without_a_step_has_no_report():
    with pytest.raises(ValueError, match="at least one step"):
        run_curves([])


# Reconstructions


def model_of(recipe):
    return recipe.build(seed=0).eval()


def test_reconstruction_paints_the_targets_and_nothing_else():
    recipe = tiny(Tube(ratio=0.75))
    batch = clips()
    model = model_of(recipe)
    with torch.inference_mode():
        made, loss = model.reconstructed(batch).video.numpy(), float(model(batch).loss())
    masked = batch.mask.masked.reshape(2, 2, 4, 4).numpy()
    pixels = masked.repeat(2, 1).repeat(8, 2).repeat(8, 3)
    video = batch.video.numpy()
    np.testing.assert_array_equal(made[~pixels], video[~pixels])
    assert (made[pixels] != video[pixels]).mean() > 0.9
    assert loss > 0


def test_a_prediction_that_is_right_gives_the_original_back():
    batch = clips()
    model = model_of(tiny(Tube(ratio=0.75)))
    cubes = model.tokens.split(batch.video)
    truth = model.tokens.targets(cubes[torch.arange(2)[:, None], batch.mask.target])
    model.predict = lambda video, visible, target: truth
    with torch.inference_mode():
        made = model.reconstructed(batch).video.numpy()
    np.testing.assert_array_equal(made, batch.video.numpy())


def test_nothing_is_shown_as_the_models_work_that_is_not():
    video = np.full((1, 2, 2, 3), 200, dtype=np.uint8)
    made = np.full((1, 2, 2, 3), 7, dtype=np.uint8)
    masked = np.array([[[False, True], [True, False]]])
    targeted = np.array([[[False, True], [False, True]]])
    shown = complete(video, made, masked, targeted)[0, ..., 0]
    assert shown[0, 0] == 200  # seen
    assert shown[0, 1] == 7  # hidden and predicted
    assert 7 < shown[1, 0] < 100  # hidden, not predicted: darkened, not the original
    assert shown[1, 1] == 200  # predicted though seen: the original


def test_views_show_original_seen_and_reconstruction():
    batch = clips(1)
    batch = replace(batch, video=torch.full_like(batch.video, 220))
    made = replace(batch, video=torch.full_like(batch.video, 20))
    card = VideoFigures(grid=GRID).compared(batch, made, 0)
    assert [item.alt for item in card.figures[0].items] == [f"original at {s:.2f} s" for s in (0.0, 0.5, 1.0, 1.5)]
    assert "neither shown" not in reading(batch)
    masked = batch.mask.masked[0].reshape(2, 4, 4).numpy()
    for f in range(4):
        original, seen, made = (
            decode(uri).astype(float).mean(-1).reshape(4, 56, 4, 56).mean((1, 3))
            for uri in (row.items[f].uri for row in card.figures)
        )
        assert (original > 200).all()
        np.testing.assert_array_equal(seen < 150, masked[f // 2])
        np.testing.assert_array_equal(made < 150, masked[f // 2])
        assert (made[masked[f // 2]] < seen[masked[f // 2]]).all()


def test_clips_without_a_mask_and_wrong_shapes_are_refused():
    batch = clips()
    model = model_of(tiny(Tube(ratio=0.75)))
    with pytest.raises(ValueError, match="no mask"):
        model.reconstructed(replace(batch, mask=None))
    with pytest.raises(ValueError, match="shape of the clips"):
        VideoFigures(grid=GRID).compared(
            batch, replace(batch, video=torch.zeros(2, 4, 16, 16, 3, dtype=torch.uint8)), 0
        )
    with pytest.raises(ValueError, match="covers"):
        VideoFigures(grid=TokenGrid.video(8, 32, 32, tubelet=2, patch=8)).compared(batch, batch, 0)


# The page


def test_page_is_one_well_formed_file_with_every_part():
    batches = [clips(2), clips(1, Random(ratio=0.5), "other")]
    text = report_page(
        steps(np.linspace(1.2, 0.6, 60).tolist()),
        batches,
        [batch.video.numpy() for batch in batches],
        {"recipe": "tiny"},
        grid=GRID,
        title="A run",
    )
    page = Tags(text)
    assert "://" not in text.replace("http://www.w3.org/2000/svg", "")
    for tag, attrs in page.tags:
        for name in ("src", "href"):
            assert attrs.get(name, "#").startswith(("data:", "#")), (tag, attrs[name][:40])
    assert [attrs["data-key"] for tag, attrs in page.tags if tag == "article"] == ["clip0", "clip1", "other0"] * 2
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert "predicting every patch's mean" in page.text
    mean = np.linspace(1.2, 0.6, 60)[-20:].mean()
    assert f"Loss, mean of the last 20 steps {mean:.3f}" in page.text
    assert "Time spent waiting for data 25.0 %" in page.text
    told = ("Learning rate", "samples per second", "judge the pattern inside it", "standard deviation of the true")
    for words in told:
        assert words in page.text
    alts = [attrs["alt"] for tag, attrs in page.tags if tag == "img"]
    for row in ("original", "seen", "reconstruction"):
        assert sum(alt.startswith(f"{row} at ") for alt in alts) == 3 * 4


def test_the_drawn_loss_is_the_loss():
    losses = [1.3, 1.0, 0.8]
    batch = clips(1)
    text = report_page(steps(losses), [batch], [batch.video.numpy()], {}, grid=GRID, title="t")
    line = next(attrs["d"] for tag, attrs in Tags(text).tags if attrs.get("id") == "loss-line")
    curves = run_curves(steps(losses))
    low, high = curves.loss.y_range
    np.testing.assert_allclose(high - points(line)[:, 1] / 1000 * (high - low), losses, atol=0.001)
    reference = next(attrs["d"] for tag, attrs in Tags(text).tags if attrs.get("class") == "reference")
    assert high - points(reference)[0, 1] / 1000 * (high - low) == pytest.approx(1.0, abs=0.001)


def test_tokens_that_nobody_predicted_are_told():
    masked = np.ones((1, 32), dtype=bool)
    masked[0, :8] = False
    target = np.zeros((1, 32), dtype=bool)
    target[0, 8:20] = True
    batch = replace(clips(1), mask=mask_batch(masked, target, grid=GRID))
    some = report_page(steps([1.0]), [batch], [batch.video.numpy()], {}, grid=GRID, title="t")
    every = report_page(steps([1.0]), [clips(1)], [clips(1).video.numpy()], {}, grid=GRID, title="t")
    assert "neither shown nor predicted" in Tags(some).text
    assert "neither shown nor predicted" not in Tags(every).text


def test_names_are_escaped():
    hostile = "<img src=x onerror=alert(1)>"
    batch = clips(1, key=hostile)
    text = report_page(
        steps([1.0]),
        [batch],
        [batch.video.numpy()],
        {hostile: hostile},
        grid=GRID,
        title=hostile,
        label_names=[hostile],
    )
    assert hostile not in text
    assert Tags(text).text.count(hostile) >= 5


# From a run's folder


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """Four clips of moving blocks as a split of shards."""
    raw, out = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("split")
    samples = []
    for n in range(4):
        texture = np.random.default_rng(n).integers(0, 255, (16, 16, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        with av.open(str(raw / f"{n}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=30, options={"crf": "20", "preset": "veryfast"})
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for i in range(36):
                picture = np.ascontiguousarray(np.roll(texture, (i, 2 * i), (0, 1))[:48, :64])
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
        video = encode_video(raw / f"{n}.mp4", PROFILES["train"])
        members = {"mp4": video_member(video.data, video.index), "json": json_member(video.meta)}
        samples.append(Sample(key=f"v{n}", members=members, source=f"{n}.mp4", label=n % 2))
    info = DatasetInfo(dataset="blocks", split="val", modality="video", profile="train", label_names=("even", "odd"))
    finish_split(out, info, [write_shard(out / "v-000000.tar", samples)], [])
    return out


@pytest.fixture(scope="module", params=["motion-guided", "dual"])
def run(request, split, tmp_path_factory):
    """A recipe and the folder of a short run of it."""
    mask = MotionGuided(ratio=0.75) if request.param == "motion-guided" else Dual(encoder=Tube(ratio=0.75))
    recipe, out = tiny(mask), tmp_path_factory.mktemp("runs") / "short"
    train(recipe, split, out, steps=3, device="cpu", threads=1, progress=False)
    return recipe, out


def test_report_of_a_run(run, split, tmp_path):
    recipe, folder = run
    out = write_report(folder, split)
    assert out == folder / "report.html"
    page = Tags(out.read_text(encoding="utf-8"))
    assert "short: report-test" in page.text
    assert "weights step 3" in page.text
    assert repr(recipe.data.mask) in page.text
    keys = [attrs["data-key"] for tag, attrs in page.tags if tag == "article"]
    assert sorted(keys) == ["v0", "v0", "v1", "v1", "v2", "v2", "v3", "v3"], "a reconstruction and the clip of each"
    assert "label odd (1)" in page.text
    assert sum(attrs["alt"].startswith("flow") for tag, attrs in page.tags if tag == "img") == 4 * 3
    assert ("neither shown nor predicted" in page.text) == isinstance(recipe.data.mask, Dual)
    assert re.search(r"loss on 4 of these clips \d\.\d{3}, \d+% (above|below)", page.text)
    other = write_report(folder, split, tmp_path / "other.html", recipe=recipe)
    assert other.read_bytes() == out.read_bytes()


def test_the_command_prints_what_the_page_says_of_held_out_clips(run, split, tmp_path, monkeypatch, capsys):
    _, folder = run
    page = tmp_path / "page.html"
    monkeypatch.setattr("sys.argv", ["maskstream", "report", str(folder), "--data", str(split), "--out", str(page)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    *facts, last = capsys.readouterr().out.splitlines()
    assert last == f"wrote {page}"
    assert any(re.match(r"  loss on 4 of these clips  +\d\.\d{3}, ", line) for line in facts)
    shown = Tags(page.read_text(encoding="utf-8")).text
    for line in facts:
        name, value = line.strip().split("  ", 1)
        assert f"{name} {value.strip()}" in shown


def test_pixels_are_drawn_beside_interpolation_and_unseen_clips_apart(split, tmp_path):
    recipe = tiny(PartDecoded(mask=Tube(ratio=0.75)))
    recipe = replace(recipe, model=replace(SIZES, target="pixels", positions="grid", decoder_width=24))
    train(recipe, split, tmp_path / "run", steps=2, device="cpu", threads=1, progress=False)
    page = Tags(write_report(tmp_path / "run", split, unseen=split, clips=2).read_text(encoding="utf-8"))
    assert re.search(r"error on 24 centre crops \d\.\d{3}; \d+% above ", page.text)
    assert "neither shown nor predicted" not in page.text
    keys = [attrs["data-key"] for tag, attrs in page.tags if tag == "article"]
    assert len(keys) == 6, "reconstructions of two clips of both splits, and the clips of one"
    assert len(re.findall(r"Error \d\.\d\d, of the interpolation \d\.\d\d", page.text)) == 4
    rows = [attrs["alt"].split()[0] for tag, attrs in page.tags if tag == "img" and " at " in attrs["alt"]]
    assert rows[:16] == [row for row in ("original", "seen", "guess", "reconstruction") for _ in range(4)]
    assert "Reconstructions of unseen clips" in page.text
    with pytest.raises(ValueError, match="shows 1 or more clips"):
        write_report(tmp_path / "run", split, unseen=split, clips=0)


def test_facts_of_unseen_clips_are_named_and_not_repeated():
    works = [
        Work(found=HeldOut(facts={"clip": "4 frames", "error": error}), sections=(Section(title="Reconstructions"),))
        for error in ("0.4", "0.5")
    ]
    both = with_unseen(*works, "clips")
    assert both.found.facts == {"clip": "4 frames", "error": "0.4", "unseen clips: error": "0.5"}
    assert [section.title for section in both.sections] == ["Reconstructions", "Reconstructions of unseen clips"]


def test_a_recipe_that_cannot_be_rebuilt_must_be_given(run, split, tmp_path):
    recipe, folder = run
    copied = shutil.copytree(folder, tmp_path / "copied")
    about = json.loads((folder / "run.json").read_text())
    about["recipe"]["data"]["kind"] = "VideoDate"
    (copied / "run.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=r"'VideoDate' is no DataConfig, did you mean 'VideoData'.*recipe="):
        write_report(copied, split)
    assert write_report(copied, split, recipe=recipe).exists()


def test_damage_of_a_run_is_said_and_what_is_whole_is_shown(run, split, tmp_path, caplog):
    _, folder = run
    copied = shutil.copytree(folder, tmp_path / "copied")
    metrics = (copied / "metrics.jsonl").read_bytes()
    (copied / "metrics.jsonl").write_bytes(metrics + b"\0" * 900)
    assert write_report(copied, split).exists()
    assert "the 3 steps before it are used" in caplog.text
    newest = max((copied / "checkpoints").iterdir())
    whole = (newest / "model.safetensors").read_bytes()
    (newest / "model.safetensors").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert write_report(copied, split).exists()
    assert re.search(r"copied/model.safetensors is used: .*model.safetensors has other contents", caplog.text)
    (copied / "model.safetensors").unlink()
    with pytest.raises(ResumeError, match=r"model.safetensors has other contents"):
        write_report(copied, split)
    for damaged in (b"", b"\0" * 90, b"\xff", b"[" * 100_000, b"[]"):
        (copied / "run.json").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"run.json is .*writes it again"):
            write_report(copied, split)


def test_a_probed_run_shows_its_figures(run, split, tmp_path):
    _, folder = run
    copied = shutil.copytree(folder, tmp_path / "copied")
    result = ProbeResult(
        recipe="short",
        metric="accuracy",
        classes=2,
        train=9,
        test=4,
        seeds={"pre-trained": (0,), "untrained": (0,)},
        majority=0.5,
        reached=[
            Reached(encoder="pre-trained", probe="linear", values=(0.75,)),
            Reached(encoder="untrained", probe="linear", values=(0.25, 0.5)),
        ],
    )
    (copied / "probe.json").write_text(json.dumps(result.to_dict()))
    shown = Tags(write_report(copied, split).read_text(encoding="utf-8")).text
    assert "linear probe accuracy on 4 samples: pre-trained 0.750, untrained 0.375, majority 0.500" in shown
    (copied / "probe.json").write_text('{"recipe": 3}')
    with pytest.raises(ValueError, match=r"probe\.json is damaged"):
        write_report(copied, split)


def test_what_is_not_a_run_is_refused(run, split, tmp_path):
    recipe, folder = run
    with pytest.raises(ValueError, match=r"metrics\.jsonl"):
        write_report(tmp_path, split, recipe=recipe)
    (tmp_path / "metrics.jsonl").write_text((folder / "metrics.jsonl").read_text())
    with pytest.raises(ValueError, match=r"run\.json"):
        write_report(tmp_path, split, recipe=recipe)
    (tmp_path / "run.json").write_text((folder / "run.json").read_text())
    with pytest.raises(ValueError, match="neither a checkpoint"):
        write_report(tmp_path, split, recipe=recipe)
    with pytest.raises(ShardError):
        write_report(folder, tmp_path, recipe=recipe)
    with pytest.raises(ValueError, match="1 or more clips"):
        write_report(folder, split, recipe=recipe, clips=0)
    assert not (tmp_path / "report.html").exists()
