"""Reports of runs from their folders: held-out clips, damage, and what is no run."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from maskstream.cli import main
from maskstream.pages.figures.card import Section
from maskstream.pages.report.report import list_evaluated_facts, list_evaluated_sections
from maskstream.pipelines.masks import Dual, MotionGuided, PartDecoded, Tube
from maskstream.preprocess.encode.video.video import PROFILES, encode_video
from maskstream.shards.errors import ResumeError, ShardError
from maskstream.shards.format.dataset import finish_split
from maskstream.shards.format.sample import DatasetInfo, Sample
from maskstream.shards.format.writer import write_shard
from maskstream.shards.members.text import json_member
from maskstream.shards.members.video import video_member
from maskstream.train import train
from maskstream.train.evaluate.evaluation import Evaluation, Score
from maskstream.train.evaluate.probe import ProbeResult, Reached

from ..videos import write_frames
from .pages import Page, write_report
from .reported import SIZES, tiny


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """Four clips of moving blocks as a split of shards."""
    raw, out = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("split")
    samples = []
    for n in range(4):
        texture = np.random.default_rng(n).integers(0, 255, (16, 16, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        pictures = (np.roll(texture, (i, 2 * i), (0, 1))[:48, :64] for i in range(36))
        write_frames(raw / f"{n}.mp4", pictures, options={"crf": "20", "preset": "veryfast"})
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
    page = Page(out.read_text(encoding="utf-8"))
    assert "short: report-test" in page.text
    assert "weights step 3" in page.text
    assert repr(recipe.data.mask) in page.text
    keys = [attrs["data-key"] for tag, attrs in page.tags if tag == "article"]
    assert sorted(keys) == ["v0", "v0", "v1", "v1", "v2", "v2", "v3", "v3"], "a reconstruction and the clip of each"
    assert "label odd (1)" in page.text
    assert sum(attrs["alt"].startswith("flow") for tag, attrs in page.tags if tag == "img") == 4 * 3
    assert ("neither shown nor predicted" in page.text) == isinstance(recipe.data.mask, Dual)
    assert re.search(r"squared error of a normalised patch of 4 clips \d\.\d+, \d+% (above|below)", page.text)
    other = write_report(folder, split, tmp_path / "other.html", recipe=recipe)
    assert other.read_bytes() == out.read_bytes()


def test_the_command_prints_what_the_page_says_of_held_out_clips(run, split, tmp_path, monkeypatch, capsys):
    _, folder = run
    page = tmp_path / "page.html"
    monkeypatch.setattr(
        "sys.argv", ["maskstream", "report", str(folder), "--data", str(split), "--out", str(page), "--same-split"]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    *facts, last = capsys.readouterr().out.splitlines()
    assert last == f"wrote {page}"
    assert any(re.match(r"  squared error of a normalised patch of 4 clips  +\d\.\d+, ", line) for line in facts)
    shown = Page(page.read_text(encoding="utf-8")).text
    for line in facts:
        name, value = line.strip().split("  ", 1)
        assert f"{name} {value.strip()}" in shown


def test_pixels_are_drawn_beside_interpolation_and_unseen_clips_apart(split, tmp_path):
    recipe = tiny(PartDecoded(mask=Tube(ratio=0.75)))
    recipe = replace(recipe, model=replace(SIZES, target="pixels", positions="grid", decoder_width=24))
    train(recipe, split, tmp_path / "run", steps=2, device="cpu", threads=1, progress=False)
    page = Page(write_report(tmp_path / "run", split, unseen=split, clips=2).read_text(encoding="utf-8"))
    assert re.search(
        r"MSE of hidden pixels of 24 centre crops \d\.\d+ squared per-channel standard deviations .*?, \d+% above ",
        page.text,
    )
    assert "neither shown nor predicted" not in page.text
    keys = [attrs["data-key"] for tag, attrs in page.tags if tag == "article"]
    assert len(keys) == 6, "reconstructions of two clips of both splits, and the clips of one"
    assert len(re.findall(r"Error \d\.\d\d, interpolation error \d\.\d\d", page.text)) == 4
    rows = [attrs["alt"].partition(" at ")[0] for tag, attrs in page.tags if tag == "img" and " at " in attrs["alt"]]
    assert rows[:16] == [row for row in ("original", "the encoder saw", "guess", "reconstruction") for _ in range(4)]
    assert "Reconstructions of unseen clips" in page.text
    with pytest.raises(ValueError, match="needs at least one clip"):
        write_report(tmp_path / "run", split, unseen=split, clips=0)


def test_scores_of_unseen_clips_are_named_and_their_examples_stand_second():
    seen, unseen = (
        Evaluation(scores=(Score(name="error", value=value, baselines={"the mean": 0.8}),)) for value in (0.4, 1)
    )
    assert list_evaluated_facts(seen, unseen, "clips") == {
        "error": "0.4, 50% below the mean (0.8)",
        "unseen clips: error": "1, 25% above the mean (0.8): the model does not generalise",
    }
    titles = ("Reconstructions", "The same clips")
    parts = [Section(title=title) for title in titles]
    found = list_evaluated_sections(parts, parts, seen, "clips")
    assert [section.title for section in found] == [
        *("Reconstructions", "Reconstructions of unseen clips", "The same clips", "Baselines and other numbers")
    ]
    assert found[-1].numbers == (("error by the mean", "0.8"),)


def test_a_recipe_that_cannot_be_rebuilt_must_be_given(run, split, tmp_path):
    recipe, folder = run
    copied = shutil.copytree(folder, tmp_path / "copied")
    about = json.loads((folder / "run.json").read_text())
    about["recipe"]["data"]["kind"] = "VideoDate"
    (copied / "run.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=r"'VideoDate' is not a kind of DataConfig, did you mean 'VideoData'.*recipe="):
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
    assert re.search(r"copied/model.safetensors is used: .*model.safetensors does not have the contents", caplog.text)
    (copied / "model.safetensors").unlink()
    with pytest.raises(ResumeError, match=r"model.safetensors does not have the contents"):
        write_report(copied, split)
    for damaged in (b"", b"\0" * 90, b"\xff", b"[" * 100_000, b"[]"):
        (copied / "run.json").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"run.json is .*write it again"):
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
    shown = Page(write_report(copied, split).read_text(encoding="utf-8")).text
    assert "linear probe accuracy on 4 samples: pre-trained 0.750, untrained 0.375, majority 0.500" in shown
    headline = (
        "The linear probe of the frozen features has an accuracy of 75.0% on 4 labelled samples, untrained "
        "features 37.5%, and the most frequent class 50.0%."
    )
    assert result.headline() == headline
    assert headline in shown
    assert replace(result, reached=result.reached[:1]).headline() == ""
    raw = Reached(encoder="inputs", probe="linear", values=(0.5,))
    assert (
        "features 37.5%, raw inputs 50.0%, and the most frequent class"
        in replace(result, reached=[*result.reached, raw]).headline()
    )
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
    with pytest.raises(ValueError, match="needs at least one clip"):
        write_report(folder, split, recipe=recipe, clips=0)
    assert not (tmp_path / "report.html").exists()
