"""Drawings of the docs as SVG, whose colours are seen on light and on dark pages."""

from __future__ import annotations

from html import escape

from maskstream.pages.figures.card import Card, Drawing, WordPieces
from maskstream.pipelines.stream.order import Order

STRONG, PALE, THIRD, INK = "#1394b8", "#98a4ae", "#d9822b", "#6e7a85"
_FILLED = {"visible": STRONG, "target": PALE, "skipped": PALE}
_STROKED = {
    "line-hidden": (PALE, 0.5),
    "line-frame": (STRONG, 1.2),
    "line-visible": (STRONG, 1.2),
    "dot-hidden": (PALE, 1.8),
    "dot-visible": (STRONG, 4.5),
    "dot-kept": (THIRD, 4.5),
}
_PX = 7.8
"""The width of a letter of 13 px, to which all text is stretched, whatever font is there."""
_LINE, _ACROSS = 24, 62
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


def of_card(card: Card) -> str | None:
    """The first text or drawing of a card; None if it has none."""
    for figure in card.figures:
        if isinstance(figure, WordPieces):
            return words_svg(figure)
        if isinstance(figure, Drawing):
            return drawing_svg(figure)
    return None


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


def words_svg(words: WordPieces, lines: int = 4) -> str:
    """The first lines of a text: what is hidden is a box, other ids in its place are in another colour."""
    shapes, x, y, last = [], 0, 0, 0
    for piece, state, spaced in words.pieces:
        kind = state.split()[0] if state.strip() else ""
        if kind == "special":
            continue
        n = len(piece)
        x += int(spaced and x > 0)
        if x + n > _ACROSS:
            x, y = 0, y + 1
            if y == lines:
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
    ("order", "keys, frames, crops", "of (seed, epoch), before a byte is read"),
    ("read", "bytes of the GOPs", "one or two ranges of a tar, checked by sums"),
    ("decode", "frames at their size", "no packet that no wanted frame needs"),
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
