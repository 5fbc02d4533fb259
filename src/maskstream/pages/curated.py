"""The page of a curation: removed samples and reasons, samples near each threshold, and duplicates and leaks side by
side.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from maskstream.pages.figures.card import Card, Section, WordPieces, join_picture_row
from maskstream.pages.figures.pictures import picture, shrunk
from maskstream.pages.figures.words import plural, short_key
from maskstream.pages.page import check_page, page, writing_page
from maskstream.preprocess.curate import SIGNALS, Curated, Measures
from maskstream.preprocess.curate.copies import match_frames
from maskstream.preprocess.curate.curated import check_list
from maskstream.shards.errors import SampleError
from maskstream.shards.stores.url import split_name

WHY: Mapping[str, str] = {
    "unreadable": "cannot be decoded",
    "rule": "do not meet the rule",
    "leak": "duplicate samples of an evaluation set",
    "copy": "duplicate other samples that are kept",
}
_NEAR, _GROUPS, _SIDE = 6, 12, 160

Shown = tuple[Measures, int, str]
"""A sample, by its measures and its place among them, and its caption."""


def list_beside(out: str | Path) -> Path:
    """Return the file of a page's list; raise ValueError if the page or the list would overwrite something else."""
    path = check_page(out)
    if path.suffix == ".parquet":
        raise ValueError(f"--out {out} is the name of the page's list; pass a page name, such as curated.html")
    check_list(listed := path.with_suffix(".parquet"))
    return listed


@contextmanager
def writing_curated(found: Curated, out: str | Path) -> Iterator[None]:
    """Write the page and the list next to it, which appear if the block ends without an error.

    Args:
        found: The curation.
        out: HTML file.
    """
    with found.writing_list(list_beside(out)), writing_page(_build_page(found), out):
        yield


def _build_page(found: Curated) -> str:
    own, counts = found.measures, found.counts
    left = len(own) - len(found.gone)
    location = split_name(own.manifest.location, own.manifest.info["split"])
    made = "nothing was changed" if found.version is None else f"version {found.version} excludes the others"
    return page(
        kind="curation",
        title=f"{left:,} of {plural(len(own), 'sample')} of {location} are kept",
        lede=f"Samples near each threshold, and duplicates; {made}.",
        facts={
            "location": own.manifest.location,
            "version": str(own.manifest.version),
            **{WHY[why]: f"{number:,}" for why, number in counts.items()},
            **({"rule": found.rule.text} if found.rule else {}),
            **{f"fail {what}": f"{number:,}" for what, number in found.failed.items()},
        },
        sections=[*_find_near_thresholds(found), *_draw_copies(found), *_draw_leaks(found)],
        by_section=True,
    )


def _find_near_thresholds(found: Curated) -> list[Section]:
    """Return, for each comparison of the rule, the samples nearest to its threshold on both sides."""
    own, sections = found.measures, []
    for name, number in found.rule.list_thresholds(own.signals) if found.rule else []:
        values = own.signals[name]
        order = np.argsort(values)
        at = int(np.searchsorted(values[order], number))
        below = order[max(at - _NEAR, 0) : at].tolist()
        above = order[at : at + _NEAR].tolist()
        cards = [
            _draw_card(f"{side} {number:.4g}", [(own, place, f"{values[place]:.4g}") for place in places])
            for side, places in (("below", below), ("from", above))
            if places
        ]
        what = SIGNALS.get(name, f"{name}, from a table or from the split")
        words = f"{what[:1].upper()}{what[1:]}. {plural(at, 'sample')} below {number:.4g}."
        sections.append(Section(title=f"Around {name} = {number:.4g}", words=words, cards=tuple(cards)))
    return sections


def _draw_copies(found: Curated) -> list[Section]:
    own = found.measures
    groups = [
        [
            (own, place, f"goes{_alike(own, place, own, group[0])}" if at else "stays")
            for at, place in enumerate(group[: 2 * _NEAR])
        ]
        for group in found.copies[:_GROUPS]
    ]
    words = (
        f"{plural(len(found.copies), 'group')} of duplicates; the first {{}} follow, each with its kept sample first."
    )
    if any(own.signals["seconds"][group[0]] * own.signals["pixels"][group[0]] for group in found.copies):  # clips
        words += " Between clips that differ in contrast, the choice of the original is uncertain."
    return _join_groups("Copies", words, groups)


def _draw_leaks(found: Curated) -> list[Section]:
    own, leaks = found.measures, [one for one in found.gone if one.why == "leak"]
    groups = [
        [
            (own, one.place, f"goes{_alike(own, one.place, *one.like) if one.like else ''}"),
            *([(*one.like, "evaluation set")] if one.like else []),
        ]
        for one in leaks[:_GROUPS]
    ]
    words = f"{plural(len(leaks), 'sample')}; the first {{}} follow, each next to the sample that it duplicates."
    return _join_groups("Leaks", words, groups)


def _join_groups(title: str, words: str, groups: list[list[Shown]]) -> list[Section]:
    """Return the section of groups of samples, each named by its first one; none without groups."""
    cards = [_draw_card(short_key(_read_key(*group[0][:2])), group) for group in groups]
    return [Section(title=title, words=words.format(len(cards)), cards=tuple(cards))] if cards else []


def _read_key(measures: Measures, place: int) -> str:
    return measures.manifest.key(int(measures.index[place]))


def _alike(own: Measures, place: int, theirs: Measures, there: int) -> str:
    """Describe which seconds of two samples match, and how far apart their hashes are."""
    match = match_frames(own, place, theirs, there)
    if match is None:
        return ""
    spans = [f"{first:.1f} to {last:.1f} s" for first, last in (match.ours_s, match.theirs_s)]
    times = f": {spans[0]} match {spans[1]}" if match.ours_s[1] + match.theirs_s[1] else ""
    return f"{times}; {match.bits} of 256 bits differ"


def _draw_card(title: str, samples: list[Shown]) -> Card:
    items, said, missing = [], [], []
    for measures, place, words in samples:
        key = _read_key(measures, place)
        try:
            text = measures.text(place)
            if text is not None:
                title_of = f"{short_key(key)}: {words}"
                said.append(WordPieces(pieces=tuple((word, "", True) for word in text.split()), title=title_of))
                continue
            pixels = measures.picture(place)
        except SampleError as error:
            missing.append(f"{short_key(key)}: {error.reason}")
            continue
        items.append(picture(shrunk(pixels, _SIDE), key, words))
    grids = tuple(join_picture_row(*items[at : at + 3], across=3) for at in range(0, len(items), 3))
    return Card(
        key=title, title=title, words=plural(len(samples), "sample"), figures=(*grids, *said), missing=tuple(missing)
    )
