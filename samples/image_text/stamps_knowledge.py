"""Questions about stamps of Tux Paint that need knowledge, whose answers WordNet gives.

A stamp takes part if its caption, without its article, is a noun of WordNet. A sample is a stamp with a question, its
answer, a rationale and passages:

- kind: "what kind of thing is this?", answered by the nearest hypernym;
- is: "is this a kind of bird?", yes or no; the other kind is that of another stamp;
- part: "what does this have as a part?", answered by a part;
- gloss: "which of these is it?" with four glosses as choices.

The label is the answer, if it occurs twice in train. Passages are the glosses of the stamp's noun, which give the
answer of `gloss` away, and of its hypernyms. A stamp's questions are in one split, and so are those of all stamps with
one caption. Packages: tuxpaint-stamps-default (GPL-2) and wordnet-base (WordNet's licence).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from maskstream.preprocess.datasets.dataset import Dataset, answer_labels, held_out_groups
from maskstream.preprocess.encode.image.encoder import ImageEncoder
from maskstream.preprocess.encode.image_text.encoder import ImageTextEncoder
from maskstream.preprocess.source import Source
from maskstream.samples.debian import debian_folder
from maskstream.shards.errors import DatasetError

from .tuxpaint_stamps import SHORT_SIDE, Stamp, alike, captioned_stamps
from .wordnet import Synset, WordNet

NAME = "stamps-knowledge"
ARTICLES = ("a ", "an ", "the ", "some ")
TOO_WIDE = frozenset({"entity", "physical entity", "abstraction", "object", "whole", "thing", "matter"})
CHOICES = 4


def stamps_knowledge(root: Path) -> Dataset:
    """The questions, of packages fetched into `root`. DatasetError if that fails."""
    net = WordNet.read(debian_folder("wordnet-base", "usr/share/wordnet", root))
    every = list(captioned_stamps(root))
    group_of = dict(zip((stamp.inside for stamp in every), alike(every), strict=True))
    stamps = [(stamp, found) for stamp in every if (found := net.first(named_noun(stamp.caption))) is not None]
    if not stamps:
        raise DatasetError(f"{NAME}: no caption below {root} is a noun of WordNet; remove its folders and try again")
    labels = sorted({stamp.label for stamp, _ in stamps})
    val = held_out_groups((labels.index(stamp.label), group_of[stamp.inside]) for stamp, _ in stamps)
    splits: dict[str, list[Source]] = {"train": [], "val": []}
    for number, (stamp, synset) in enumerate(stamps):
        others = [stamps[(number + step) % len(stamps)][1] for step in (97, 193, 286, 61, 131)]
        split = "val" if group_of[stamp.inside] in val else "train"
        splits[split] += _sources(stamp, synset, others, net)
    label_names, splits = answer_labels(splits, least=2)
    encoder = ImageTextEncoder(image=ImageEncoder(short_side=SHORT_SIDE))
    return Dataset(name=NAME, label_names=label_names, splits=splits, encoder=encoder)


def named_noun(caption: str) -> str:
    """What a caption names: without its article and its full stop."""
    words = caption.strip().rstrip(".!").lower()
    article = next((one for one in ARTICLES if words.startswith(one)), "")
    return words.removeprefix(article)


def _sources(stamp: Stamp, synset: Synset, others: list[Synset], net: WordNet) -> Iterator[Source]:
    above = [one for one in net.all_above(synset) if one.word not in TOO_WIDE]
    passages = [f"{one.word}: {one.gloss}" for one in (synset, *above[:3])]
    for kind, asked in _questions(synset, above, others, net):
        yield Source(
            id=f"{stamp.inside}:{kind}",
            path=stamp.path,
            meta={"kind": kind.partition(" ")[0], "noun": synset.word, **asked, "passage": passages},
        )


def _questions(
    synset: Synset, above: list[Synset], others: list[Synset], net: WordNet
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The kind of each question, and its texts."""
    noun = synset.word
    if above:
        near = above[0].word
        said = f"this is {noun}; {noun} is a kind of {near}"
        yield "kind", {"question": "what kind of thing is this?", "answer": near, "rationale": said}
        yield "is yes", {"question": f"is this a kind of {near}?", "answer": "yes", "rationale": said}
    kinds = {noun, *(one.word for one in above)}
    for other in others:
        wrong = next((one.word for one in net.all_above(other) if one.word not in TOO_WIDE), noun)
        if wrong not in kinds:
            said = f"this is {noun}; {noun} is no kind of {wrong}"
            yield "is no", {"question": f"is this a kind of {wrong}?", "answer": "no", "rationale": said}
            break
    if parts := [net.synsets[offset].word for offset in synset.parts]:
        said = f"this is {noun}; {noun} has {parts[0]} as a part"
        yield "part", {"question": "what does this have as a part?", "answer": parts[0], "rationale": said}
    glosses = list(dict.fromkeys(one.gloss for one in others if one.gloss != synset.gloss))[: CHOICES - 1]
    if len(glosses) == CHOICES - 1:
        choices = sorted([synset.gloss, *glosses])
        said = f"this is {noun}"
        asked = {"question": "which of these is it?", "choice": choices, "answer": synset.gloss, "rationale": said}
        yield "gloss", asked
