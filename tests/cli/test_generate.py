import json

import pytest
from typer.testing import CliRunner

from maskstream.cli import app
from maskstream.modalities import modality_of
from maskstream.shards.format.manifest import Manifest
from maskstream.train import train

from ..pipelines.every_modality import write_split
from .test_opened_once import asked

SMALL = ("model.width=16", "model.depth=1", "model.heads=2", "data.length=32", "batch_size=2", "schedule.steps=2")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("generate")
    split = write_split("text", root)
    train("pmlm-tiny", split, root / "run", set=SMALL, device="cpu", progress=False)
    return root / "run", split


def written(place, *options):
    run, split = place
    paper = "bert" if modality_of(Manifest.load(split)).name == "text" else "mage"
    return CliRunner().invoke(app, ["paper", paper, str(run), "--data", str(split), *options])


def test_texts_keep_what_is_given_and_a_seed_decides_the_rest(place):
    options = ["--text", "the lazy[MASK][MASK] dog", "--blanks", "4", "--count", "2", "--json"]
    first, again = written(place, *options), written(place, *options)
    assert first.exit_code == 0, first.output
    texts = json.loads(first.output)["texts"]
    assert len(texts) == 2
    assert all(text.startswith("the lazy") and " dog" in text and len(text) > 12 for text in texts)
    assert again.output == first.output
    assert written(place, *options, "--seed", "5").output != first.output


def test_the_former_name_says_the_new_one_and_opens_the_split_once(place):
    run, split = place
    with asked(split) as (url, counts):
        result = CliRunner().invoke(app, ["generate", str(run), "--data", url, "--count", "1", "--json"])
    assert len(json.loads(result.stdout)["texts"]) == 1
    assert "is now `maskstream paper" in result.stderr
    assert set(counts.values()) == {1}, counts


def test_a_text_longer_than_the_model_reads_is_refused(place):
    result = written(place, "--blanks", "40")
    assert result.exit_code == 1
    assert "up to 32 tokens" in str(result.exception)


def test_a_run_of_another_model_is_refused(place, tmp_path):
    result = CliRunner().invoke(app, ["paper", "bert", str(tmp_path), "--data", str(place[1])])
    assert result.exit_code == 1
    assert "model.safetensors" in str(result.exception)


def test_a_report_shows_predictions_and_what_counts_predict(place, tmp_path):
    run, split = place
    page = tmp_path / "report.html"
    result = CliRunner().invoke(app, ["report", str(run), "--data", str(split), "--out", str(page), "--same-split"])
    assert result.exit_code == 0, f"{result.output} {result.exception}"
    text = page.read_text()
    assert "cross-entropy by counts of pairs" in text
    assert "With the predictions" in text


QUANTISER = ("quantiser.levels=[4,8]", "model.quantiser.stem=4", "model.quantiser.widths=[8,16]", "quantiser.rounds=1")
PICTURES = (
    *("model.width=16", "model.depth=1", "model.heads=2", "model.decoder_depth=1", "model.decoder_heads=2"),
    *("data.size=32", "batch_size=2", "schedule.steps=2", "model.vq=null", *QUANTISER),
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    split = write_split("image", root)
    train("mage-tiny", split, root / "run", set=PICTURES, device="cpu", progress=False)
    return root / "run", split


def test_a_page_shows_generated_pictures_beside_real_ones(pictures, tmp_path):
    options = ["--count", "3", "--rounds", "4", "--json", "--out"]
    pages = []
    for name, more in (("one", ()), ("again", ()), ("other", ("--seed", "5"))):
        result = written(pictures, *options, str(tmp_path / f"{name}.html"), *more)
        assert result.exit_code == 0, f"{result.output} {result.exception}"
        pages.append((tmp_path / f"{name}.html").read_text())
    assert json.loads(result.output)["page"].endswith("other.html")
    assert "over 4 rounds" in pages[0]
    assert all(f'alt="{kind} 3"' in pages[0] for kind in ("Generated", "Real", "Real, drawn from their ids"))
    assert 'alt="Real 4"' not in pages[0]
    assert pages[0] == pages[1]
    assert pages[0] != pages[2]


def test_a_report_shows_predicted_cells_and_what_counts_predict(pictures, tmp_path):
    run, split = pictures
    page = tmp_path / "report.html"
    result = CliRunner().invoke(app, ["report", str(run), "--data", str(split), "--out", str(page), "--same-split"])
    assert result.exit_code == 0, f"{result.output} {result.exception}"
    text = page.read_text()
    assert "cross-entropy by counts next to the nearest visible id" in text
    assert "Generated pictures" in text


def test_a_run_of_pictures_that_generates_nothing_is_refused(pictures, tmp_path):
    cuts = ("data.size=32", "model.width=16", "model.depth=1", "model.heads=2", "batch_size=2", "schedule.steps=1")
    decoder = ("model.decoder_width=16", "model.decoder_depth=1", "model.decoder_heads=2")
    train("mae-tiny", pictures[1], tmp_path, set=(*cuts, *decoder), device="cpu", progress=False)
    result = CliRunner().invoke(app, ["paper", "mage", str(tmp_path), "--data", str(pictures[1])])
    assert result.exit_code == 1
    assert "models that can: FrameIdsConfig, GenerativeEncoderConfig" in str(result.exception)


def test_the_former_name_says_the_new_one_and_does_the_same(place):
    run, split = place
    options = [str(run), "--data", str(split), "--text", "the lazy", "--blanks", "2", "--json"]
    now, before = (CliRunner().invoke(app, [*words, *options]) for words in (["paper", "bert"], ["generate"]))
    assert before.exit_code == now.exit_code == 0
    assert before.stdout == now.stdout
    assert "`maskstream generate` is now `maskstream paper bert, mage or maskvit`" in " ".join(before.stderr.split())
