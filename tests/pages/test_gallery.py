"""The gallery: every scheme is on the page, drawn as its call says, and the page is whole whatever is missing."""

import re
from dataclasses import replace

import cv2
import numpy as np
import pytest

from maskstream.cli import main
from maskstream.modalities import MODALITIES
from maskstream.pages.figures.card import WordPieces
from maskstream.pages.figures.chart import draw_dots, lines
from maskstream.pages.gallery import gallery, gallery_page, own_gallery
from maskstream.pages.gallery.page import list_gallery_sections
from maskstream.pages.gallery.scheme import CardText, DrawnMask, count_facts
from maskstream.pages.gallery.solids import list_unique_edges, surface_points
from maskstream.pages.gallery.text import PAIR, cut, cut_pieces
from maskstream.pages.gallery.views import COMPLEX_RATIO, SPIKES, join_token_maps, sheet
from maskstream.pipelines import masks
from maskstream.shards.format.manifest import Manifest

from ..doc_tool import doc_tool
from ..pipelines.every_modality import write_split
from .pages import complete_in_itself, made_up_media, tetrahedron, without_library

PICTURES = doc_tool("pictures")

ENTRIES = [CardText.of(declared) for declared in (*masks.SCHEMES, *masks.SCHEDULES)] + [COMPLEX_RATIO, SPIKES, PAIR]


@pytest.fixture(scope="module")
def media():
    return made_up_media()


@pytest.fixture(scope="module")
def page(media):
    return gallery_page(media)


def test_every_scheme_has_a_card_with_its_call(page):
    for entry in ENTRIES:
        heading = f'<h3>{escaped(entry.title)}</h3>\n<p class="meta">{escaped(entry.source)}</p>'
        assert page.count(heading) == 1, entry.title
        assert escaped(entry.call) in page.replace("<wbr>", "")
        assert not entry.name or f"name: {entry.name}<" in page


def test_every_public_pattern_and_schedule_is_shown():
    shown = " ".join(entry.call for entry in ENTRIES)
    abstract = (masks.Mask, masks.RatioSchedule, masks.ProportionSchedule)
    for name in masks.__all__:
        thing = getattr(masks, name)
        if isinstance(thing, type) and issubclass(thing, masks.Mask | masks.RatioSchedule) and thing not in abstract:
            assert f"masks.{name}(" in shown, f"{name} is in no card of the gallery"


def test_the_page_has_a_picture_for_each_scheme_and_needs_nothing_else(page, media):
    articles = page.split('<article class="clip"')[1:]
    assert len(articles) == len(ENTRIES)
    for article in articles:
        assert (
            "data:image" in article
            or '<path class="' in article
            or '<p class="text">' in article
            or "data-chart" in article
        )
    assert "://" not in without_library(page)
    assert len(page) < 2e6
    assert page == gallery_page(media)
    assert page != gallery_page(media, seed=1)


def escaped(text):
    return text.replace("&", "&amp;").replace("'", "&#39;").replace('"', "&#34;")


@pytest.mark.parametrize(
    "titles",
    [
        {"video": "Video", "walk": "Skeletons"},
        {"speech": "Sound", "plane": "Points and meshes", "text": "Text"},
    ],
)
def test_what_is_missing_is_named_and_the_rest_is_shown(media, titles):
    page = gallery_page(replace(media, **dict.fromkeys(titles)), missing={name: f"no <{name}>" for name in titles})
    for name, title in titles.items():
        assert f"no &lt;{name}&gt;" in page
        section = page.split(f'<h2 class="part-title">{title}</h2>')[1].split("</section>")[0]
        assert "Not shown: no " in section
        assert "<article" not in section
    assert page.count("<article") > 20


def test_the_page_is_written(media, tmp_path):
    out = gallery(replace(media, video=None, speech=None, plane=None, walk=None), tmp_path / "new" / "page.html")
    assert out.read_text().startswith("<!doctype html>")
    assert [p.name for p in out.parent.iterdir()] == ["page.html"]


def test_the_docs_have_a_picture_of_every_scheme_and_modality(media, tmp_path):
    walk = np.zeros((4, 12, 16, 3), np.uint8), np.full((4, 12, 16), 4000, np.uint16)
    media = replace(media, corridor=walk)
    made = PICTURES.doc_pictures(media, list_gallery_sections(media))
    modalities = {"video", "audio", "audiovisual", "image", "image-text", "trajectory"}
    assert set(made) == {
        *(scheme.picture for scheme in masks.SCHEMES),
        *(f"{name}.webp" for name in (*modalities, "motion-light", "motion-dark")),
        "order.svg",
        "life-of-a-clip.svg",
        "target-spikes.webp",
        "target-complex-ratio.webp",
    }
    assert PICTURES.write_pictures(made, tmp_path) == sorted(made)
    assert PICTURES.write_pictures(made, tmp_path) == []
    for path in tmp_path.iterdir():
        head = path.read_bytes()[:12]
        assert head[:4] == (b"<svg" if path.suffix == ".svg" else b"RIFF")
        assert path.suffix == ".svg" or cv2.imread(str(path)) is not None


def test_a_file_that_shows_the_same_stays_and_another_is_written(tmp_path):
    made = np.random.default_rng(0).integers(0, 240, (20, 30, 3), dtype=np.uint8)
    PICTURES.write_pictures({"a.webp": made, "a.svg": "<svg/>"}, tmp_path)
    rounded, other = made + np.uint8(3), made.copy()
    other[:2, :5] += 15
    assert PICTURES.write_pictures({"a.webp": rounded, "a.svg": "<svg/>"}, tmp_path) == []
    assert PICTURES.write_pictures({"a.webp": other, "a.svg": "<svg></svg>"}, tmp_path) == ["a.svg", "a.webp"]
    assert (cv2.imread(str(tmp_path / "a.webp"))[..., ::-1] == other).all()


def test_hidden_tokens_nearly_have_the_colour_of_the_page():
    picture, hidden = np.full((8, 8, 3), 128, np.uint8), np.eye(2, dtype=bool)
    light, dark = (PICTURES.masked(picture, hidden, 4, theme=theme) for theme in ("light", "dark"))
    assert (light[:4, :4] > 220).all()
    assert (dark[:4, :4] < 80).all()
    assert (light[:4, 4:] == 128).all()


def test_hidden_words_are_boxes_and_no_letters():
    drawn = PICTURES.words_svg(WordPieces(pieces=(("she", "", False), ("<b>", "gone", True), ("is", "random", True))))
    assert ">she</text>" in drawn
    assert "b&gt;" not in drawn
    assert drawn.count("<rect") == 2
    assert 'textLength="15.6"' in drawn


def shown(*masks_of_a_card):
    """The facts of a card, each in one line."""
    grid = masks.TokenGrid.video(16, 224, 224)
    facts = count_facts([DrawnMask(mask=mask.draw(grid, [np.random.default_rng(0)])) for mask in masks_of_a_card])
    return [" ".join(filter(None, (fact.name, fact.value, fact.of, fact.note))) for fact in facts]


def test_the_numbers_of_a_card():
    visible, hidden, targets = shown(masks.Dual())
    assert (visible, hidden) == ("Visible tokens 160 of 1,568", "Hidden 89.8\xa0%")
    assert re.fullmatch(r"Targets of the decoder 784 \d+ without weight in the loss", targets)
    assert shown(masks.Tube(), masks.Tube())[0] == "Visible tokens 160 of 1,568"
    assert shown(masks.Random(), masks.Random(ratio=0.75)) == ["Visible tokens 156 and 392 of 1,568"]


def test_planes_side_by_side():
    planes = np.ones((3, 2, 2), dtype=bool)
    assert sheet(planes, 2).astype(int).tolist() == [
        [1, 1, 0, 1, 1], [1, 1, 0, 1, 1], [0, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 0, 0, 0],
    ]  # fmt: skip
    drawn = join_token_maps([("visible", planes), ("target", ~planes)], 2, title="t", keys=("a", "b"))
    assert drawn.keys == (("visible", "a"), ("target", "b"))
    assert drawn.paths[1] == ("target", "")


def test_dots_and_lines_are_paths():
    assert draw_dots(np.array([[1.0, 2.0]])) == "M1.0 2.0h0"
    assert lines(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[0, 1]])) == "M1 2L3 4"


def test_points_lie_on_the_surface_in_proportion_to_area():
    vertices = np.array([[0, 0, 0], [3, 0, 0], [0, 1, 0], [0, 0, 5], [1, 0, 5], [0, 1, 5]], dtype=np.float32)
    points = surface_points(
        (vertices, np.array([[0, 1, 2], [3, 4, 5]], dtype=np.int32)), 4000, np.random.default_rng(0)
    )
    low = points[points[:, 2] == 0]
    assert len(low) + (points[:, 2] == 5).sum() == 4000
    assert len(low) == pytest.approx(3000, abs=120)
    assert (low[:, 0] / 3 + low[:, 1] <= 1 + 1e-5).all()
    np.testing.assert_allclose(low.mean(axis=0), [1, 1 / 3, 0], atol=0.05)
    assert list_unique_edges(tetrahedron()[1]).shape == (2, 6)


def test_pieces_of_a_text():
    assert cut("Sherlock") == ["Sher", "lock"]
    assert cut("woman") == ["woman"]
    pieces = cut_pieces("He sees, she sees Sherlock.", 8)
    assert pieces.text == ("[CLS]", "He", "sees", ",", "she", "sees", "Sher", "[SEP]")
    assert pieces.cues.words.tolist() == [-1, 0, 1, 2, 3, 4, 5, -1]
    assert pieces.cues.classes.tolist() == [-1, 0, 1, -1, 0, 1, 1, -1]
    assert pieces.spaced[3:5] == (False, True)
    assert pieces.cues.tokens[2] == pieces.cues.tokens[5]
    assert pieces.cues.scores[6] > pieces.cues.scores[2] > pieces.cues.scores[0]


def test_the_command_shows_a_clip_of_a_split(split, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    words = ["gallery", split, "--root", tmp_path / "raw", "--out", tmp_path / "page.html"]
    monkeypatch.setattr("sys.argv", ["maskstream", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    page = (tmp_path / "page.html").read_text()
    assert re.search(r"<dt>Visible tokens</dt><dd>160 <span>of 1,568</span>", page)
    assert "Not shown: no audio clip was found." in page
    assert "pyvista==0.47.1 could not be downloaded" in page
    assert "pyvista" in capsys.readouterr().err


def test_chosen_masks_are_drawn_on_poses_which_have_several(tmp_path):
    split = Manifest.load(write_split("pose", tmp_path))
    page = own_gallery(MODALITIES["pose"], split, ["mpm"], tmp_path / "own.html", samples=2).read_text()
    assert page.count("name: mpm<") == 2
    assert "From the camera" in page


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "chosen", "settings", "others"),
    [
        ("image", ["mae", "beit"], ["size=112"], "cropmae"),
        ("text", ["m3ae-text"], ["length=32", "packing=row"], "mosaicbert"),
        ("audiovisual", ["audio_mask=avsiam-audio"], ["frames=4", "size=32"], "audio-mae"),
    ],
)
def test_chosen_masks_are_drawn_on_samples_of_a_split_beside_those_of_papers(kind, chosen, settings, others, tmp_path):
    split = write_split(kind, tmp_path)
    modality = MODALITIES[kind]
    page = own_gallery(
        modality, Manifest.load(split), chosen, tmp_path / "own.html", settings=settings, samples=3, seed=1
    ).read_text()
    complete_in_itself(page.replace("<wbr>", ""))
    asked, papers = page.rsplit(">Masks of papers", 1)
    for name in (one.rpartition("=")[2] for one in chosen):
        assert asked.count(f"name: {name}<") == 3
        assert f"name: {name}<" not in papers
    assert f"name: {others}<" in papers
    batch = next(
        iter(modality.shown(Manifest.load(split), settings, chosen[:1]).loader(split, batch_size=3, seed=1, steps=10))
    )
    visible = getattr(batch, modality.field_of(chosen[0]).name)
    assert all(key in asked for key in batch.key)
    assert f"{visible.visible.shape[1]:,} <span>of {visible.grid.size:,}</span>" in asked
    with pytest.raises(ValueError, match="is not a mask"):
        own_gallery(modality, Manifest.load(split), ["nothing"], tmp_path / "no.html")
