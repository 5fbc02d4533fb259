"""Every kind of page in a browser: as complete, legible and safe as it says, with a mouse, a keyboard and a phone."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maskstream.modalities import MODALITIES, modality_of
from maskstream.pages.curated import writing_curated
from maskstream.pages.figures.words import short_key
from maskstream.pages.flow import write_flow_page
from maskstream.pages.gallery import gallery_page, own_gallery
from maskstream.pages.generated import write_generated
from maskstream.pages.kbvqa import write_kbvqa_page
from maskstream.pages.page import write_page
from maskstream.pages.preview import preview, preview_page
from maskstream.pages.report.compared import compare_runs
from maskstream.pages.report.report import write_report
from maskstream.pages.report.rollout_report import compare_rollouts
from maskstream.pages.roar import write_roar_page
from maskstream.preprocess.curate import curate
from maskstream.preprocess.encode.text.tokenizer import load_tokenizer
from maskstream.preprocess.versions import remove
from maskstream.shards.format import sample
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.sample import Sample
from maskstream.train import train
from maskstream.train.papers.kbvqa.evaluate import KbvqaResult, Prompt, Question, Replied
from maskstream.train.papers.roar.roar import RoarCurve, RoarResult

from ..pages.pages import made_up_media
from ..pipelines.every_modality import MODALITIES as EVERY
from ..pipelines.every_modality import write_split
from ..pipelines.modalities.packed.small_kinds import video_sample
from ..pipelines.small_media import SAMPLES
from ..train.test_every_recipe import CUTS
from ..with_new_checksum import renew_checksum
from .look import PLANT, WIDTHS, Browser, plays, url_of

pytestmark = [pytest.mark.services, pytest.mark.filterwarnings("ignore::UserWarning")]

RECIPES = {
    "audio": "audiomae-tiny",
    "audiovisual": "avsiam-tiny",
    "image": "mae-tiny",
    "image-text": "m3ae-tiny",
    "mesh": "meshmask-tiny",
    "points": "pointmae-tiny",
    "pose": "mpm-tiny",
    "text": "bert-tiny",
    "trajectory": "where2imagine-tiny",
    "video": "mgmae-tiny",
}
PLAYED = {"audio", "audiovisual", "video", "trajectory"}
"""Modalities whose samples move or sound."""


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A forged split of each modality: keys and labels begin with `PLANT`."""

    def forged(name: str, raw: Path) -> list[Sample]:
        return [replace(one, key=f"{PLANT} {one.key}") for one in EVERY[name].samples(raw)]

    found = {}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sample, "KEY_PATTERN", re.compile(".*"))
        for name in RECIPES:
            found[name] = write_split(name, tmp_path_factory.mktemp(name), partial(forged, name))
            renew_checksum(found[name], label_names=[f"{PLANT} {i}" for i in range(2)])
    return found


def run_of(name: str, split: Path, folder: Path, **options: Any) -> Path:
    """The folder of a short run, which is named `PLANT`."""
    out = folder / PLANT
    cuts = [*CUTS[name.partition("-")[0]], *options.pop("set", ())]
    train(name, split, out, set=cuts, steps=2, device="cpu", threads=1, progress=False, **options)
    return out


def test_every_modality_is_looked_at() -> None:
    assert RECIPES.keys() == MODALITIES.keys()


@pytest.mark.parametrize("name", RECIPES)
def test_a_preview(browser: Browser, splits: dict[str, Path], tmp_path: Path, name: str) -> None:
    modality, split = modality_of(Manifest.load(splits[name])), splits[name]
    data = modality.shown(Manifest.load(split))
    loader = data.loader(split, batch_size=2, seed=0, device="cpu", rank=0, world_size=1, steps=1)
    batch = next(iter(loader))
    loader.close()
    batch = replace(batch, label=torch.zeros_like(batch.label))
    text = preview_page([("", modality.figures(data, Manifest.load(split)), batch)], title=PLANT, facts={PLANT: PLANT})
    url = url_of(write_page(text, tmp_path / "preview.html"))
    labels = [] if name == "trajectory" else [f"label {PLANT} 0"]
    assert browser.faults(url, [*map(short_key, batch.key), *labels]) == []
    if name in PLAYED:
        with browser.opened(url) as page:
            plays(page)


def test_samples_are_sorted_and_found(browser: Browser, splits: dict[str, Path], tmp_path: Path) -> None:
    split = Manifest.load(splits["text"])
    page = preview(MODALITIES["text"], split, out=tmp_path / "preview.html", samples=8)
    with browser.opened(url_of(page)) as opened:

        def special() -> list[int]:
            shown = opened.locator(".clip:visible .counts div", has_text="Special tokens").all_inner_texts()
            return [int(text.split()[2]) for text in shown]

        before = special()
        opened.locator(".sorter select").select_option(label="Special tokens, falling")
        assert special() == sorted(before, reverse=True)
        opened.locator(".sorter select").select_option(label="the order of the loader")
        assert special() == before
        key = opened.locator(".clip").nth(3).get_attribute("data-key")
        opened.locator(".sorter input").fill(key.upper())
        assert opened.locator(".clip:visible").count() == 1
        assert opened.locator(".sorter output").inner_text() == "1 of 8"
        middle = sorted(before)[4]
        opened.locator(".sorter input").fill(f"special tokens >= {middle}")
        assert sorted(special()) == sorted(one for one in before if one >= middle)
        opened.locator(".sorter input").fill(f"special tokens < {middle} and {key}")
        assert opened.locator(".clip:visible").count() == (before[3] < middle)


def test_charts_say_their_values_and_have_a_log_axis(browser: Browser, splits: dict[str, Path], tmp_path: Path) -> None:
    run = run_of(RECIPES["image"], splits["image"], tmp_path)
    modality = modality_of(Manifest.load(splits["image"]))
    page = write_report(modality, run, str(splits["image"]), clips=2, same_split=True).page
    faults: list[str] = []
    with browser.opened(url_of(page), faults) as opened:
        chart = opened.locator(".plotted.large")
        chart.scroll_into_view_if_needed()
        for scale in ("", "log"):
            box = chart.locator(".u-over").bounding_box()
            opened.mouse.move(box["x"] + 2, box["y"] + 50)
            assert re.fullmatch(r"1 · loss [\d.]+", chart.locator(".hovered").inner_text()), scale
            opened.mouse.move(0, 0)
            opened.get_by_role("button", name="Log axis").click()
    assert faults == []


def test_a_text_without_spaces_fits_a_phone(browser: Browser, splits: dict[str, Path], tmp_path: Path) -> None:
    modality, split = modality_of(Manifest.load(splits["text"])), splits["text"]
    data = modality.shown(Manifest.load(split))
    figures = modality.figures(data, Manifest.load(split))
    loader = data.loader(split, batch_size=2, seed=0, device="cpu", rank=0, world_size=1, steps=1)
    batch = next(iter(loader))
    loader.close()
    mark = load_tokenizer(figures.tokenizer).token_to_id(".")  # no space stands before one
    text = preview_page(
        [("", figures, replace(batch, tokens=torch.full_like(batch.tokens, mark)))], title=PLANT, facts={}
    )
    assert browser.faults(url_of(write_page(text, tmp_path / "preview.html"))) == []


@pytest.mark.parametrize("name", RECIPES)
def test_a_report(browser: Browser, splits: dict[str, Path], tmp_path: Path, name: str) -> None:
    run = run_of(RECIPES[name], splits[name], tmp_path)
    page = write_report(modality_of(Manifest.load(splits[name])), run, str(splits[name]), clips=2, same_split=True).page
    assert browser.faults(url_of(page), [f"{PLANT}: {RECIPES[name]}", f"{PLANT} s"]) == []


def test_runs_side_by_side(browser: Browser, splits: dict[str, Path], tmp_path: Path) -> None:
    runs = [run_of(RECIPES["image"], splits["image"], tmp_path / name) for name in "ab"]
    page = compare_runs(
        modality_of(Manifest.load(splits["image"])), runs, str(splits["image"]), clips=2, same_split=True
    ).page
    assert browser.faults(url_of(page), [PLANT]) == []


@pytest.mark.parametrize("name", ["image", "audio"])
def test_the_gallery_of_chosen_masks(browser: Browser, splits: dict[str, Path], tmp_path: Path, name: str) -> None:
    mask = {"image": "mae", "audio": "audio-mae"}[name]
    page = own_gallery(
        modality_of(Manifest.load(splits[name])),
        Manifest.load(str(splits[name])),
        [mask],
        tmp_path / "own.html",
        samples=1,
    )
    assert browser.faults(url_of(page), [PLANT]) == []


def test_the_flow_of_a_split(browser: Browser, splits: dict[str, Path], tmp_path: Path) -> None:
    data = MODALITIES["video"].shown(Manifest.load(splits["video"]))
    page = write_flow_page(str(splits["video"]), data, out=tmp_path / "flow.html", samples=1)
    assert browser.faults(url_of(page)) == []
    with browser.opened(url_of(page)) as opened:
        plays(opened)


def test_the_gallery(browser: Browser, tmp_path: Path) -> None:
    text = gallery_page(replace(made_up_media(), crowd=None), missing={"crowd": PLANT})
    page = write_page(text, tmp_path / "gallery.html")
    assert browser.faults(url_of(page), [PLANT]) == []
    with browser.opened(url_of(page)) as opened:
        link = opened.locator(".contents a").last
        link.focus()
        opened.keyboard.press("Enter")
        assert opened.evaluate("() => document.querySelector(location.hash).getBoundingClientRect().top") < 900


@pytest.mark.parametrize("name", ["image", "video", "audio"])
def test_a_curation(browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Thresholds, copies and leaks, each of which is reached from the contents by Tab and Enter."""
    monkeypatch.setattr(sample, "KEY_PATTERN", re.compile(".*"))

    def different(raw: Path) -> list[Sample]:
        return [video_sample(raw, i) for i in range(SAMPLES)] if name == "video" else EVERY[name].samples(raw)

    def doubled(raw: Path) -> list[Sample]:
        made = different(raw)
        half = len(made) // 2
        twice = [("a", one) for one in made[:half]] + [("b", one) for one in made[: len(made) - half]]
        return [replace(one, key=f"{PLANT} {again} {one.key}") for again, one in twice]

    split = write_split(name, tmp_path / "split", doubled)
    exam = write_split(name, tmp_path / "exam", different)
    remove(exam, Manifest.load(exam).keys(range(4, len(Manifest.load(exam)))))
    found = curate(split, keep="bytes>p20", copies=True, against=[exam], dry_run=True)
    assert {*found.counts} == {"rule", "leak", "copy"}
    with writing_curated(found, tmp_path / "curated.html"):
        pass
    url = url_of(tmp_path / "curated.html")
    best = found.measures.manifest.key(int(found.measures.index[found.copies[0][0]]))
    assert browser.faults(url, [short_key(best)]) == []
    with browser.opened(url) as page:
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            sections = page.locator(".contents a").all()
            assert len(sections) == 3
            for link in sections:
                page.evaluate("() => { document.activeElement.blur(); scrollTo(0, 0) }")
                link.focus()
                page.keyboard.press("Enter")
                reached = "document.getElementById(decodeURIComponent(location.hash.slice(1)))"
                assert page.evaluate(f"() => {reached}.getBoundingClientRect().top") < 900


def test_rollouts(browser: Browser, splits: dict[str, Path], tmp_path: Path) -> None:
    run = run_of("meshmask-tiny-next", splits["mesh"], tmp_path)
    page = tmp_path / "rollout.html"
    compare_rollouts([run], splits["mesh"], page)
    assert browser.faults(url_of(page), [PLANT]) == []


def test_generated_pictures(browser: Browser, splits: dict[str, Path], tmp_path: Path) -> None:
    run = run_of("mage-tiny", splits["image"], tmp_path)
    split = str(splits["image"])
    page = write_generated(
        MODALITIES["image"], run, Manifest.load(split), None, count=4, rounds=2, temperature=None, seed=0
    )
    assert browser.faults(url_of(page), [PLANT]) == []


def test_measures_of_importance(browser: Browser, tmp_path: Path) -> None:
    curves = [
        RoarCurve(measure=name, seed=seed, values=(0.9, 0.5 + seed / 9, 0.3))
        for name in ("random", PLANT)
        for seed in range(2)
    ]
    result = RoarResult(recipe=PLANT, recursive=True, levels=(0, 50, 100), test=9, majority=0.3, curves=curves)
    assert browser.faults(url_of(write_roar_page(result, "texts", tmp_path / "roar.html")), [PLANT]) == []


def test_questions_that_need_knowledge(browser: Browser, tmp_path: Path) -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    question = Question(key="q", image=image, text=PLANT, answers=(PLANT,), kind="kind")
    prompt = Prompt(id="q commonsense 0", image=image, text=PLANT, question=PLANT, choices=())
    result = KbvqaResult(
        predictor=PLANT,
        data="questions",
        shots=0,
        glosses=0,
        questions={"all": 1},
        scores={"commonsense": {"all": {"exact": 0.5}}},
        frequent={"all": 0.1},
        occluded={0.5: 0.2},
    )
    page = write_kbvqa_page(
        result, [Replied(question=question, prompt=prompt, answer=PLANT, rationale=PLANT)], tmp_path / "kbvqa.html"
    )
    assert browser.faults(url_of(page), [f"{PLANT} Right: {PLANT}. Replied: {PLANT}."]) == []
