"""The report of several runs: what differs first, a column for each run, and each run's picture of the same samples."""

import numpy as np
import pytest

from maskstream.cli import main
from maskstream.modalities import MODALITIES
from maskstream.pages.report.compared import compare_runs, draw_loss_chart, make_unique_names, score_rows
from maskstream.pages.report.report import write_report
from maskstream.pipelines.masks import Random, Tube
from maskstream.train import train
from maskstream.train.evaluate.evaluation import Evaluation, Score

from ..pipelines.every_modality import write_split
from .pages import Page, complete_in_itself
from .reported import steps, tiny


def test_figures_stand_in_columns_and_baselines_below_their_scores():
    one = Evaluation(
        scores=(
            Score(name="error", value=0.5, unit="deviations", baselines={"mean": 0.4, "copy": 0.6}),
            Score(name="right", value=0.25, unit="%", lower_is_better=False),
        ),
        notes={"bits": 7.0},
    )
    other = Evaluation(
        scores=(Score(name="error", value=0.3, unit="deviations", baselines={"mean": 0.7, "copy": 0.6}),)
    )
    scores, others = score_rows([one, other])
    assert scores == [
        ("error, in deviations", ("0.5", "0.3")),
        ("  best baseline: mean", ("0.4", "")),
        ("  best baseline: copy", ("", "0.6")),
        ("right", ("25.0%", "")),
    ]
    assert others == [
        ("error, in deviations", ("", "")),
        ("  mean", ("0.4", "0.7")),
        ("  copy", ("0.6", "0.6")),
        ("bits", ("7", "")),
    ]


def test_losses_of_runs_are_lines_of_one_chart_and_a_shorter_run_ends_where_it_ended():
    losses = [3.0, *np.linspace(1, 0.5, 99)]
    found = draw_loss_chart([steps(losses), steps([1.0] * 50)], ["long", "short"])
    thick = [line for line in found.lines if not line.thin]
    assert [(line.name.partition(",")[0], line.hue, line.x[-1]) for line in thick] == [
        ("long", 0, 100),
        ("short", 1, 50),
    ]
    assert found.top == 1.5 * max(np.quantile(losses, 0.9), 1.0)


def test_runs_of_one_name_are_told_by_their_paths(tmp_path):
    assert make_unique_names([tmp_path / "a/run", tmp_path / "b"]) == ("run", "b")
    assert make_unique_names([tmp_path / "a/run", tmp_path / "b/run"]) == ("a/run", "b/run")
    assert make_unique_names([tmp_path / "a/x/0", tmp_path / "b/x/0", tmp_path / "b/y/0"]) == (
        "a/x/0",
        "b/x/0",
        "b/y/0",
    )
    assert make_unique_names([tmp_path / "a", tmp_path / "a"]) == (f"{tmp_path}/a", f"{tmp_path}/a")


@pytest.mark.slow
def test_runs_with_different_masks_side_by_side(tmp_path, monkeypatch, capsys):
    split = write_split("video", tmp_path)
    runs = [tmp_path / "tube", tmp_path / "random"]
    for run, mask in zip(runs, (Tube(ratio=0.75), Random(ratio=0.5)), strict=True):
        train(tiny(mask), split, run, steps=2, seed=3, device="cpu", threads=1, progress=False)
    page = tmp_path / "both.html"
    words = ["report", *map(str, runs), "--data", str(split), "--same-split"]
    monkeypatch.setattr("sys.argv", ["maskstream", *words, "--out", str(page)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    head, title, differs, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["tube", "random"]
    assert title == "What differs"
    assert differs.split() == ["data.mask", "Tube(ratio=0.75)", "Random(ratio=0.5)"]
    text = page.read_text()
    complete_in_itself(text)
    shown = Page(text)
    modality = MODALITIES["video"]
    for column, run in enumerate(runs):
        alone = write_report(modality, run, split, tmp_path / "one.html", same_split=True)
        figure = next(value for name, value in alone.facts.items() if name.startswith("squared error"))
        line = next(line for line in lines if line.startswith("  squared error"))
        assert line.split()[column - 2] == figure.split(",")[0].split()[0]
    cards = [attrs["data-key"] for tag, attrs in shown.tags if tag == "article"]
    assert len(cards) == 2 * 4
    assert cards[::2] == cards[1::2], "each sample as the first run makes it, then as the second does"
    assert text.index("What differs") < text.index("On held-out samples of t/train") < text.index("Loss by step")
    monkeypatch.setattr("sys.argv", ["maskstream", "evaluate", *words[1:]])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    _, differs, shown_steps, *_ = capsys.readouterr().out.splitlines()
    assert differs.split() == ["data.mask", "Tube(ratio=0.75)", "Random(ratio=0.5)"]
    assert shown_steps.split() == ["step", "2", "step", "2"]
    with pytest.raises(ValueError, match="was trained on"):
        compare_runs(modality, runs, split)
    monkeypatch.setattr("sys.argv", ["maskstream", *words, "--unseen", str(split)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code
    assert "applies to the report of one run, got 2 runs" in " ".join(capsys.readouterr().err.split())
