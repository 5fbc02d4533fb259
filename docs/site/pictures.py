"""The pictures of README.md and docs/: a clip with its flow and its mask, one of each scheme, one of each modality.

    python docs/site/pictures.py [FOLDER]     writes them into docs/pictures; sample media are fetched if missing

Rasters are lossless WebP, drawings SVG, whose colours are seen on light and on dark pages. `write_pictures` leaves a
file as it is if it shows the same, so the bytes stay the same on a machine whose WebP encoder, or whose last bits of a
float, are others.
"""

import base64
import sys
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pages.figures.card import Card, Drawing, PictureGrid, Section, WordPieces
from maskstream.pages.figures.pictures import LUMA, draw_hatch, grown, resize
from maskstream.pages.gallery import views
from maskstream.pages.gallery.page import list_gallery_sections
from maskstream.pages.gallery.scheme import Corridor, GalleryScene, Media
from maskstream.pages.gallery.text import LENGTH, cut_pieces, draw_pair_masks
from maskstream.pipelines.flow import dis_flow
from maskstream.pipelines.flow.picture import choose_flow_scale, flow_to_image
from maskstream.pipelines.masks import SCHEMES, Tube
from maskstream.pipelines.stream.order import Order
from maskstream.samples.gallery import fetch_gallery_media
from maskstream.shards.arrays import Bools, UInt8s

ROOT = Path(__file__).parents[2]

STRONG, PALE, THIRD, INK = "#1394b8", "#98a4ae", "#d9822b", "#6e7a85"
_FILLED = {"visible": STRONG, "target": PALE, "skipped": PALE}
_STROKED = {
    "line-hidden": (PALE, 0.5),
    "line-visible": (STRONG, 1.2),
    "dot-hidden": (PALE, 1.8),
    "dot-visible": (STRONG, 4.5),
}
_PX = 7.8
"""The width of a letter of 13 px, to which all text is stretched, whatever font is there."""
_LINE, _ACROSS, _LINES = 24, 62, 4
_SHARDS = (STRONG, THIRD, "#7a9a3a")


def svg(width: float, height: float, inside: str) -> str:
    """A file with these shapes; letters are in 13 px."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'font-family="ui-monospace,Menlo,Consolas,monospace" font-size="13">{inside}</svg>\n'
    )


def text(x: float, y: float, words: str, colour: str = INK) -> str:
    """Words from x on, `_PX` a letter."""
    return (
        f'<text x="{x:g}" y="{y:g}" fill="{colour}" textLength="{len(words) * _PX:g}" '
        f'lengthAdjust="spacingAndGlyphs">{escape(words)}</text>'
    )


def box(x: float, y: float, width: float, height: float, colour: str, opacity: float = 1.0) -> str:
    """A filled box with round corners."""
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="3" fill="{colour}" '
        f'fill-opacity="{opacity:g}"/>'
    )


def of_card(card: Card) -> UInt8s | str:
    """The first figure of a card: a text, a drawing, or the first of its pictures."""
    match card.figures[0]:
        case WordPieces() as words:
            return words_svg(words)
        case Drawing() as drawing:
            return drawing_svg(drawing)
        case PictureGrid() as grid:
            return decode(grid.items[0].uri)
    raise TypeError(f"no picture is made of the card {card.key!r}")


def decode(uri: str) -> UInt8s:
    """The pixels (H, W, 3) of a `data:` address."""
    data = np.frombuffer(base64.b64decode(uri.partition(",")[2]), np.uint8)
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1], np.uint8)


def drawing_svg(drawing: Drawing) -> str:
    """The paths of a drawing, without the page's style sheet."""
    paths = []
    for name, path in drawing.paths:
        if name in _FILLED:
            paths.append(f'<path fill="{_FILLED[name]}" d="{path}"/>')
        else:
            colour, width = _STROKED[name]
            paths.append(
                f'<path fill="none" stroke="{colour}" stroke-width="{width:g}" stroke-linecap="round" d="{path}"/>'
            )
    return svg(drawing.width, drawing.height, "".join(paths))


def words_svg(words: WordPieces) -> str:
    """The first four lines of a text: what is hidden is a box, other ids in its place are in another colour."""
    shapes, x, y, last = [], 0, 0, 0
    for piece, state, spaced in words.pieces:
        kind = state.split()[0] if state.strip() else ""
        if kind == "special":
            continue
        n = len(piece)
        x += int(spaced and x > 0)
        if x + n > _ACROSS:
            x, y = 0, y + 1
            if y == _LINES:
                break
        left, top = x * _PX, y * _LINE + 4
        if kind == "gone":
            shapes.append(box(left + 0.5, top, n * _PX - 1, 17, STRONG))
        elif kind in ("random", "same"):
            shapes.append(box(left + 0.5, top, n * _PX - 1, 17, THIRD, 0.25))
        if kind != "gone":
            shapes.append(text(left, top + 13, piece, THIRD if kind in ("random", "same") else INK))
        if "first" in state:
            shapes.append(box(left, top + 18, n * _PX, 2, THIRD))
        x, last = x + n, y
    return svg(_ACROSS * _PX, (last + 1) * _LINE + 4, "".join(shapes))


def order_svg(seed: int = 0) -> str:
    """Two epochs of 24 samples in three shards: of batches of 8, two ranks take halves and four ranks quarters."""
    order, side, shapes = Order(shard_sizes=(8, 8, 8), global_batch=8, seed=seed), 21, []
    for epoch in range(2):
        top = 30 + epoch * 78
        shapes.append(text(0, top + 15, f"epoch {epoch}"))
        for place, index in enumerate(order.epoch(epoch).tolist()):
            left = 84 + place * side + place // 8 * 18
            shapes.append(box(left, top, side - 2, side - 2, _SHARDS[index // 8], 0.85))
            words = f"{index}"
            shapes.append(text(left + (side - 2 - len(words) * _PX) / 2, top + 14, words, "#ffffff"))
        for batch in range(3):
            left = 84 + batch * (8 * side + 18)
            for ranks, under in ((2, 28), (4, 44)):
                share = 8 // ranks
                for rank in range(ranks):
                    shapes.append(box(left + rank * share * side, top + under - 4, share * side - 3, 2, PALE))
    for batch in range(3):
        shapes.append(text(84 + batch * (8 * side + 18), 16, f"batch {batch}"))
    for epoch in range(2):
        for ranks, under in ((2, 28), (4, 44)):
            shapes.append(text(0, 30 + epoch * 78 + under + 1, f"{ranks} ranks", PALE))
    return svg(84 + 24 * side + 36, 178, "".join(shapes))


STAGES = (
    ("order", "keys, frames, crops", "from (seed, epoch), before any read"),
    ("read", "bytes of the GOPs", "one or two byte ranges of a tar, verified"),
    ("decode", "frames at their size", "only the packets that these frames need"),
    ("mask", "flow, hidden tokens", "along the motion, drawn from the sample's key"),
    ("batch", "video, mask, flow", "the same at any number of ranks and workers"),
)


def life_svg() -> str:
    """The five stages of a clip, from its place in the order to its row in a batch: what each makes, and how."""
    width, height, gap, shapes = 620, 34, 14, []
    for number, (name, made, words) in enumerate(STAGES):
        top = number * (height + gap)
        shapes += [
            box(0, top, width, height, STRONG, 0.12),
            box(0, top, 4, height, STRONG),
            text(14, top + 22, f"{number + 1} {name}", STRONG),
            text(92, top + 22, made),
            text(262, top + 22, words, PALE),
        ]
        if number:
            shapes.append(
                f'<path fill="none" stroke="{PALE}" stroke-width="2" d="M21 {top - gap + 2}v{gap - 5}m-4 -4l4 4l4 -4"/>'
            )
    return svg(width, len(STAGES) * (height + gap) - gap, "".join(shapes))


Found = dict[str, UInt8s | str]
"""Pictures by file name."""
GAP_PX = 4
MOVING_SEED = 283
"""Draws a motion-guided mask of which much lies on what moves in the sample clip."""
THEMES = ("light", "dark")
_MOST_SHOTS = 3
_STEP = 4
"""Colours are multiples of so many levels."""
_LEVELS, _SHARE = 4, 0.002
"""Two rasters show the same if no larger share of their pixels differs by more levels."""
_FAR_MM = 8000
_NAMED = {scheme.name: scheme for scheme in SCHEMES}


def doc_pictures(media: Media, sections: Iterable[Section], seed: int = 0) -> Found:
    """All pictures by file name: uint8 (H, W, 3), (H, W, 4) where gaps are transparent, or SVG.

    sections: those of the gallery, whose drawings and texts are shown. What needs media that are missing is left out.
    """
    cards = {card.key: card for section in sections for card in section.cards}
    found = Found(
        {one.picture: of_card(cards[one.name or one.title]) for one in SCHEMES if (one.name or one.title) in cards}
    )
    found |= {"order.svg": order_svg(seed), "life-of-a-clip.svg": life_svg()}
    if media.video is not None:
        found |= _of_clip(media.video, seed) | _of_pictures(media, seed)
    if media.speech is not None:
        found |= _of_sound(media.speech, media.video, seed)
    if media.corridor is not None:
        found["trajectory.webp"] = _of_walk(media.corridor, seed)
    if media.speech is not None and media.crowd is not None:
        one, ratio, product, clean = views.draw_mixed(media.speech, media.crowd).values()
        found["target-complex-ratio.webp"] = below([beside([one, ratio]), beside([product, clean])])
    return Found({name: made if isinstance(made, str) else in_steps(made) for name, made in found.items()})


def in_steps(picture: UInt8s) -> UInt8s:
    """The picture with fewer levels of each colour, which costs two thirds of the bytes and is hardly seen."""
    levels = np.rint(picture.astype(np.float32) / _STEP) * _STEP
    return levels.clip(0, 255).astype(np.uint8)


def write_pictures(pictures: Mapping[str, UInt8s | str], folder: Path) -> list[str]:
    """Writes the pictures that `folder` does not show already; returns the names of the files written."""
    folder.mkdir(parents=True, exist_ok=True)
    fresh = [name for name, made in sorted(pictures.items()) if not shows(folder / name, made)]
    for name in fresh:
        made = pictures[name]
        (folder / name).write_bytes(made.encode() if isinstance(made, str) else _webp(made))
    return fresh


def shows(path: Path, made: UInt8s | str) -> bool:
    """Whether the file is there and shows the picture: the same SVG, or the same pixels but for rounding."""
    if not path.exists():
        return False
    if isinstance(made, str):
        return path.read_text(encoding="utf-8") == made
    there = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if there is None or there.shape != made.shape:
        return False
    return bool(
        (np.abs(_seen(np.asarray(there, np.uint8)) - _seen(_turned(made))).max(axis=2) > _LEVELS).mean() <= _SHARE
    )


def _seen(picture: UInt8s) -> npt.NDArray[np.int16]:
    """The picture without colours where it is transparent, which files do not keep."""
    return np.where((picture[..., 3:] == 0).any(axis=2, keepdims=True), 0, picture).astype(np.int16)


def masked(picture: UInt8s, hidden: Bools, cell: int, *, theme: str = "dark", token: Bools | None = None) -> UInt8s:
    """`picture` with `cell` pixels a token; `hidden` tokens (rows, columns) nearly have the colour of the page.

    Those of `token` enter as the mask token and are hatched.
    """
    rows, columns = hidden.shape
    shown = resize(picture[None], rows * cell, columns * cell)[0]
    grey = (shown @ LUMA)[..., None]
    gone = 28 + 0.3 * grey if theme == "dark" else 255 - 0.15 * (255 - grey)
    out = np.where(grown(hidden, *shown.shape[:2])[..., None], gone, shown)
    if token is not None:
        out = np.where(grown(token, *shown.shape[:2])[..., None], draw_hatch(out.shape[:2])[..., None], out)
    return np.asarray(out.clip(0, 255), dtype=np.uint8)


def beside(pictures: Sequence[UInt8s]) -> UInt8s:
    """The pictures side by side on one middle line, with transparent gaps."""
    return _joined([one.swapaxes(0, 1) for one in pictures]).swapaxes(0, 1)


def below(pictures: Sequence[UInt8s]) -> UInt8s:
    """The pictures one below the other, with transparent gaps."""
    return _joined(pictures)


def _joined(pictures: Sequence[UInt8s]) -> UInt8s:
    if len(pictures) == 1:
        return pictures[0]
    width = max(one.shape[1] for one in pictures)
    parts: list[UInt8s] = []
    for one in pictures:
        solid = one if one.shape[2] == 4 else np.dstack([one, np.full(one.shape[:2], 255, np.uint8)])
        left = (width - one.shape[1]) // 2
        parts += [np.zeros((GAP_PX, width, 4), np.uint8)] if parts else []
        parts.append(np.pad(solid, ((0, 0), (left, width - one.shape[1] - left), (0, 0))))
    return np.concatenate(parts)


def _turned(picture: UInt8s) -> UInt8s:
    """Blue before red, as OpenCV has them."""
    way = cv2.COLOR_RGBA2BGRA if picture.shape[2] == 4 else cv2.COLOR_RGB2BGR
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(picture), way), dtype=np.uint8)


def _webp(picture: UInt8s) -> bytes:
    _, data = cv2.imencode(".webp", _turned(picture), [cv2.IMWRITE_WEBP_QUALITY, 101])
    return bytes(data.tobytes())


def _strip(frames: UInt8s, hidden: Bools, cell: int, theme: str = "dark") -> UInt8s:
    return beside([masked(frame, plane, cell, theme=theme) for frame, plane in zip(frames, hidden, strict=True)])


def _of_clip(clip: UInt8s, seed: int) -> Found:
    """The clip, its flow and its motion-guided mask over time for both themes; and its schemes."""
    scene, frames = views.make_clip_scene(clip), resize(clip, views.SIDE_PX, views.SIDE_PX)
    shown, found = frames[::2], Found()
    for scheme in views.VIDEO.schemes:
        own = MOVING_SEED if "flow" in scheme.mask.needs else seed
        found[scheme.picture] = below([_strip(shown, one.hidden, 5) for one in scene.draw_shots(scheme, own)])
    guided = scene.draw(_NAMED["motion-guided"].mask, MOVING_SEED).hidden
    flow = dis_flow(frames)
    steps = flow.vectors[np.maximum(2 * np.arange(len(shown)) - 1, 0)]
    coloured = flow_to_image(steps, scale_px=choose_flow_scale(flow.vectors, flow.valid))
    for theme in THEMES:
        colours = coloured if theme == "light" else coloured - coloured.min(axis=3, keepdims=True)
        rows = (resize(shown, 112, 112), resize(colours, 112, 112))
        found[f"motion-{theme}.webp"] = below([*(beside(list(row)) for row in rows), _strip(shown, guided, 8, theme)])
    found["video.webp"] = _strip(shown[::2], guided[::2], 5)
    return found


def _of_pictures(media: Media, seed: int) -> Found:
    """The schemes of images, an image, and an image beside a text."""
    assert media.video is not None
    scenes, found = views.make_image_scenes(media.video, media.box), Found()
    for scheme in views.IMAGES.schemes:
        scene, shots = scenes(scheme), []
        for one in scene.draw_shots(scheme, seed)[:_MOST_SHOTS]:
            planes = one.hidden.reshape(-1, *scene.grid.shape[-2:])
            token = None if one.mask.mask_token is None else one.mask.mask_token[0].numpy().reshape(planes.shape)[0]
            shots += [
                masked(scene.views[(one.shot.view + i) % len(scene.views)], plane, 112 // len(plane), token=token)
                for i, plane in enumerate(planes)
            ]
        found[scheme.picture] = beside(shots)
    whole, mae = media.video[-1:], scenes(_NAMED["mae"])
    hidden = mae.draw(_NAMED["mae"].mask, seed).hidden
    spikes = [one.repeat(3, axis=0).repeat(3, axis=1) for one in views.drop_elements(mae.views[0], seed)]
    found["target-spikes.webp"] = beside(spikes)
    found["image.webp"] = beside([resize(whole, 70, 70)[0], masked(whole[0], hidden, 5)])
    if media.text is not None:
        hidden, _ = draw_pair_masks(cut_pieces(media.text, LENGTH), seed)
        found["image-text.webp"] = masked(whole[0], hidden, 4)
    return found


def _of_sound(speech: npt.NDArray[np.float32], clip: UInt8s | None, seed: int) -> Found:
    """The schemes of sounds, a sound, and a clip with its sound."""
    scenes, found, sound = views.make_sound_scenes(speech), Found(), _NAMED["audio-mae"]
    scene = scenes(sound)
    shown = scene.views[0]
    for scheme in views.SOUND.schemes:
        shots = scenes(scheme).draw_shots(scheme, seed)[:_MOST_SHOTS]
        found[scheme.picture] = below([masked(shown, one.hidden, 8) for one in shots])
    hidden = scene.draw(sound.mask, seed).hidden
    found["audio.webp"] = masked(shown, hidden, 4)
    if clip is not None:
        tube = views.make_clip_scene(clip).draw(Tube(ratio=0.9), seed).hidden
        found["audiovisual.webp"] = below([_strip(clip[::4], tube[::2], 4), masked(shown, hidden, 4)])
    return found


def _of_walk(walk: Corridor, seed: int) -> UInt8s:
    """Colours and depth of a walk, the same places hidden in both."""
    colours, depth = walk
    near = np.rint(255 * (1 - np.minimum(depth, _FAR_MM) / _FAR_MM)).astype(np.uint8)
    scene = GalleryScene(grid=_NAMED["rgb-depth"].grid, paint=lambda drawn: ())
    hidden = scene.draw(_NAMED["rgb-depth"].mask, seed).hidden
    rows = (colours, near[..., None].repeat(3, axis=3))
    return below([beside([masked(one, plane, 4) for one in row]) for row, plane in zip(rows, hidden, strict=True)])


def main(folder: Path) -> None:
    """Writes the pictures into a folder. SystemExit if media are missing."""
    found = fetch_gallery_media(ROOT / "data/raw/sample")
    if found.missing:
        raise SystemExit(f"missing: {', '.join(found.missing.values())}")
    media = Media(**found.media)
    for name in write_pictures(doc_pictures(media, list_gallery_sections(media)), folder):
        print(f"wrote {folder / name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else ROOT / "docs/pictures")
