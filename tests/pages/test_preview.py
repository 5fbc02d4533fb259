"""The preview of a split of any modality: what is on the page is what its loader gives."""

import os
import re
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from maskstream.cli import app
from maskstream.modalities import MODALITIES
from maskstream.pages.figures.words import short_key
from maskstream.pages.page import render, write_page
from maskstream.pipelines import VideoClip, masks
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.shards.errors import ShardError
from maskstream.shards.format.manifest import Manifest

from ..pipelines.every_modality import write_split
from ..pipelines.small_media import SAMPLES
from .pages import Page, complete_in_itself, fill, preview

SMALL = {
    "audio": (["clip.seconds=0.32"],),
    "audiovisual": (["frames=4", "size=32", "seconds=0.32"],),
    "image": (["size=32"],),
    "image-text": (["size=32", "length=24", 'text=["phrase", "caption"]'],),
    "mesh": ([],),
    "points": (["points=64", "resolution=16"],),
    "pose": (["clip.frames=12"],),
    "text": (["length=32", "packing=row"],),
    "trajectory": (["clip.frames=4", "size=32"],),
    "video": (["frames=4", "size=32"], ["random"]),
}
SHOWN = 3
PICTURES = {
    "audio": {"spectrogram of {}": 1, "masked spectrogram of {}": 1},
    "audiovisual": {"spectrogram of {}": 1, "masked spectrogram of {}": 1, "picture 4": 1, "seen 4": 1},
    "image": {"image {}": 1, "visible tokens of {}": 1},
    "image-text": {"image {}": 1, "visible tokens of {}": 1, "box in {}": 1},
    "mesh": {"Field0 of {}": 1, "Visible nodes of {}": 1},
    "points": {f"{what} of {{}}, angle {i}": 1 for what in ("The cloud", "Visible tokens") for i in (1, 2)},
    "pose": {},
    "text": {},
    "trajectory": {"picture 4": 1, "seen 4": 1, "depth 4 of {}": 1},
    "video": {"picture 4": 1, "seen 4": 1, "flow 4": 1},
}


@pytest.fixture(scope="module", params=list(MODALITIES))
def kind(request, tmp_path_factory):
    """A modality, the folder of its split, and settings of its loader that cost little."""
    folder = write_split(request.param, tmp_path_factory.mktemp(request.param))
    return request.param, folder, MODALITIES[request.param].shown(Manifest.load(folder), *SMALL[request.param])


@pytest.fixture(scope="module")
def page(kind, tmp_path_factory):
    _, folder, settings = kind
    out = tmp_path_factory.mktemp("page") / "page.html"
    return preview(folder, out=out, samples=SHOWN, data=settings, seed=4).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def batch(kind):
    """What a loader with the page's settings gives first."""
    _, folder, settings = kind
    loader = settings.loader(folder, batch_size=SHOWN, seed=4, device="cpu", steps=100)
    first = next(iter(loader))
    loader.close()
    return first


def masks_of(name, batch):
    """For each sample its masks, as (noun, tokens, visible, targets, weightless targets)."""
    if name == "mesh":
        mask, spans = (
            batch.mask,
            list(zip(batch.node_offset[:-1].tolist(), batch.node_offset[1:].tolist(), strict=True)),
        )
        inside = [(mask.target[0] >= a) & (mask.target[0] < b) for a, b in spans]
        return [
            [("nodes", b - a, int((~mask.masked[0, a:b]).sum()), int(of.sum()), int((mask.weight[0][of] == 0).sum()))]
            for (a, b), of in zip(spans, inside, strict=True)
        ]
    parts = {"audiovisual": ("video_mask", "audio_mask"), "pose": ("mask_2d", "mask_3d")}
    parts["image-text"] = ("image_mask", "text_mask")
    parts = parts.get(name, ("mask",))
    several = [getattr(batch, part) for part in parts]
    return [
        [
            (
                "joints" if name == "pose" else "tokens",
                mask.masked.shape[1],
                int((~mask.masked[i]).sum()),
                int(mask.target_valid[i].sum()),
                int((mask.weight[i][mask.target_valid[i]] == 0).sum()),
            )
            for mask in several
        ]
        for i in range(len(batch))
    ]


def test_the_page_is_one_file_that_shows_each_sample_once_with_its_mask(kind, page, batch):
    name, _, _ = kind
    whole = complete_in_itself(page)
    assert whole.attributes("article", "data-key") == list(batch.key)
    for article, key in zip(whole.articles, batch.key, strict=True):
        assert short_key(key) in article.text
        alts = article.attributes("img", "alt")
        for alt, count in PICTURES[name].items():
            assert alts.count(alt.format(key)) == count
    assert len(page) < 1_500_000


def test_the_counts_are_those_of_the_masks(kind, page, batch):
    name, _, _ = kind
    for article, own in zip(Page(page).articles, masks_of(name, batch), strict=True):
        for noun, tokens, visible, targets, weightless in own:
            assert f"Visible {noun} {visible} of {tokens}" in article.text
            assert f"Hidden {100 * (1 - visible / tokens):.1f} %" in article.text
            words = f"Targets of the decoder {targets}"
            assert words + (f" {weightless} without weight in the loss" if weightless else "") in article.text


def test_the_page_says_what_was_shown(kind, page):
    name, folder, settings = kind
    text = Page(page).text
    assert "mask" in text
    assert f"location {folder}" in text
    assert f"samples {SAMPLES}" in text
    assert f"on {folder.name}" in text  # not what the dataset is called
    assert "seed 4" in text
    for argument in (where.name for where in MODALITIES[name].masks):
        assert repr(getattr(settings, argument)) in text


def test_the_same_seed_gives_the_same_page_and_another_one_another(kind, page, tmp_path):
    _, folder, settings = kind
    again = preview(folder, out=tmp_path / "again.html", samples=SHOWN, data=settings, seed=4)
    other = preview(folder, out=tmp_path / "other.html", samples=SHOWN, data=settings, seed=5)
    assert again.read_text(encoding="utf-8") == page
    assert other.read_text(encoding="utf-8") != page


def test_a_mask_that_is_named_again_is_compared_sample_by_sample(tmp_path):
    folder, out = write_split("video", tmp_path / "video"), tmp_path / "a.html"
    words = ["--mask", "tube", "--mask", "motion-guided", "--size", "32", "--frames", "4", "--samples", "2"]
    done = CliRunner().invoke(app, ["preview", str(folder), *words, "--out", str(out)])
    assert done.exit_code == 0, (done.output, done.exception)
    page = Page(out.read_text(encoding="utf-8"))
    keys = page.attributes("article", "data-key")
    assert len(keys) == 4
    assert keys[0::2] == keys[1::2]
    for name in ("Tube", "MotionGuided"):  # in the list of contents, and above each sample
        assert [page.text.count(f"{short_key(key)}, {name} mask") for key in keys[::2]] == [2, 2]
    assert re.search(r"flow .* for illustration; the mask does not use it \(Tube\); .* \(MotionGuided\)", page.text)
    assert "Tube and MotionGuided masks on" in page.text


def test_views_are_shown_one_after_the_other(kind, tmp_path):
    _, folder, settings = kind
    page = Page(
        preview(folder, out=tmp_path / "a.html", samples=2, data=replace(settings, views=2)).read_text(encoding="utf-8")
    )
    keys = page.attributes("article", "data-key")
    assert keys[0::2] == keys[1::2]
    assert len(set(keys)) == 2
    assert ["view 1" in article.text for article in page.articles] == [True, False, True, False]
    assert ["view 2" in article.text for article in page.articles] == [False, True, False, True]


def test_without_a_mask_the_page_says_so(kind, tmp_path):
    name, folder, settings = kind
    none = {where.name: None for where in MODALITIES[name].masks}
    text = preview(folder, out=tmp_path / "a.html", samples=1, data=replace(settings, **none)).read_text(
        encoding="utf-8"
    )
    page = complete_in_itself(text)
    assert "built without a mask" in page.text
    assert "Hidden" not in page.articles[0].text
    assert re.search("No masks? on split", page.text)


def test_masks_by_default_are_those_of_the_modality(kind, tmp_path):
    name, folder, _ = kind
    rest = MODALITIES[name].shown(Manifest.load(folder), SMALL[name][0])
    text = Page(preview(folder, out=tmp_path / "a.html", samples=1, data=rest).read_text(encoding="utf-8")).text
    for where in MODALITIES[name].masks:
        assert repr(getattr(MODALITIES[name].data, where.name)) in text


def test_more_samples_than_there_are_shows_all(kind, tmp_path):
    _, folder, settings = kind
    page = Page(preview(folder, out=tmp_path / "a.html", samples=60, data=settings).read_text(encoding="utf-8"))
    assert len(page.attributes("article", "data-key")) == SAMPLES


@pytest.mark.parametrize("kind", ["audio", "video"], indirect=True)
def test_paths_of_tokens_are_the_mask(kind, page, batch):
    name, _, _ = kind
    paths = re.findall(r'class="visible" d="([^"]*)"', page)
    for i, path in enumerate(paths):
        seen = ~batch.mask.masked[i].numpy()
        expected = seen.reshape(2, 8).T[::-1] if name == "audio" else seen.reshape(2, 4)
        np.testing.assert_array_equal(fill(path, expected.shape), expected)
    assert len(paths) == SHOWN


# Video


def test_preview_of_video_shows_the_flow_that_guides_the_mask(split, tmp_path):
    out = tmp_path / "page.html"
    clip = VideoClip(frames=8, stride=4, size=32)
    assert preview(split, VideoData(clip=clip, mask=masks.MotionGuided(ratio=0.75)), out=out, samples=3, seed=2) == out
    page = Page(out.read_text(encoding="utf-8"))
    assert "1 of 4 per time step" in page.text
    assert "MotionGuided(ratio=0.75" in page.text
    assert "guides the mask" in page.text
    assert sum(alt.startswith("flow") for alt in page.attributes("img", "alt")) == 3 * 7
    assert any(f"label {name} (" in page.text for name in "abc")


def test_preview_of_video_shows_flow_with_any_mask(split, tmp_path):
    clip = VideoClip(frames=4, stride=2, size=32)
    page = Page(
        preview(
            split, VideoData(clip=clip, mask=masks.Tube(ratio=0.5), flow="dis"), out=tmp_path / "a.html", samples=5
        ).read_text()
    )
    assert sum(alt.startswith("flow") for alt in page.attributes("img", "alt")) == 5 * 3
    assert "the mask does not use it" in page.text


# Files


def test_a_page_replaces_the_old_one_whole(tmp_path):
    out, ours = tmp_path / "deep" / "page.html", '<p class="product">maskstream <span>preview</span></p>'
    assert write_page(f"one ≥ {ours}", out) == out
    write_page("two", out)
    assert out.read_text(encoding="utf-8") == "two"
    assert os.listdir(out.parent) == ["page.html"]
    with pytest.raises(ValueError, match=r"page\.html was not written by maskstream, so it is not overwritten"):
        write_page("three", out)
    assert out.read_text(encoding="utf-8") == "two"


def test_every_page_is_known_as_ours(tmp_path):
    text = render("base.html.j2", title="t", facts={})
    assert write_page(text, write_page(text, tmp_path / "page.html")).read_text(encoding="utf-8") == text


def test_a_page_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "page.html").mkdir()
    with pytest.raises(ValueError, match=r"page\.html cannot be overwritten \(is a folder, not a regular file\)"):
        write_page("x", tmp_path / "page.html")
    assert os.listdir(tmp_path) == ["page.html"]


def test_preview_refuses_what_it_cannot_show(split, tmp_path):
    with pytest.raises(ValueError, match="samples must be at least 1, got 0"):
        preview(split, out=tmp_path / "a.html", samples=0)
    with pytest.raises(ShardError):
        preview(tmp_path / "nothing", out=tmp_path / "a.html")
    assert not (tmp_path / "a.html").exists()
