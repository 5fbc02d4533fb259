"""What fixed seeds draw is what it was: golden vectors of orders, clips, crops and masks.

A run that was begun with one release goes on with the next only if all of this stays. So a change of any literal, here
or in golden.json, needs a bump of `ORDER_VERSION` (order.py), with which a saved position of before is refused; for a
mask that of its class's `version` will do, which refuses the positions with this mask. Then
`python -m tests.pipelines.golden_vectors` writes golden.json anew; new vectors may be added without a bump.
"""

from itertools import islice
from pathlib import Path

import pytest

from maskstream.pipelines import Loader, VideoBatch, VideoClip
from maskstream.pipelines.masks import MASKS, Random
from maskstream.pipelines.stream.mix import mix
from maskstream.pipelines.stream.order import ORDER_VERSION
from maskstream.pipelines.stream.sampler import Wanted
from maskstream.shards.errors import ResumeError

from .golden_vectors import GOLDEN, Vectors, as_text, budget, golden_vectors, mixture, read_golden, scheduled_mixture
from .sources import opened, source_of

STORED = read_golden()
KINDS = [kind for kind in STORED if kind != "version"]


@pytest.fixture(scope="module")
def found() -> Vectors:
    return golden_vectors()


def test_the_vectors_are_of_this_version_and_complete(found: Vectors) -> None:
    assert STORED["version"] == ORDER_VERSION
    assert {kind: list(rows) for kind, rows in found.items()} == {kind: list(STORED[kind]) for kind in KINDS}
    assert set(MASKS) <= set(STORED["mask"])


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in KINDS for name in STORED[kind]])
def test_what_is_drawn_is_what_was_drawn(found: Vectors, kind: str, name: str) -> None:
    assert found[kind][name] == STORED[kind][name]


def test_the_file_is_as_its_script_writes_it(found: Vectors) -> None:
    assert GOLDEN.read_text() == as_text(ORDER_VERSION, found)


SETTINGS = {
    "clip": VideoClip(frames=4, stride=2, size=32),
    "mask": Random(ratio=0.5),
    "patch": 16,
    "views": 2,
    "seed": 7,
}


def loader(split: Path, mixed: bool = False) -> Loader[VideoBatch]:
    source = source_of(split, **SETTINGS)
    if mixed:
        return Loader(mix([(source, 1)]), batch_size=2, threads=1, device="cpu")
    return Loader(source, batch_size=2, threads=1, device="cpu")


def test_a_loader_draws_by_the_names_that_it_did(split: Path) -> None:
    """Key, first frame and visible tokens of each row of the first two batches of epoch 3, and the crops of a sample:
    what depends on the purposes that generators are asked for.
    """
    run = loader(split)
    run.seek(3)
    rows = []
    for batch in islice(run, 2):
        assert batch.mask is not None
        first = batch.pts_s[:, 0].mul(30).round().int().tolist()
        rows += list(zip(batch.key, first, batch.mask.visible.tolist(), strict=True))
    assert rows == [
        ("clip4", 2, [0, 3, 4, 5]),
        ("clip4", 2, [1, 5, 6, 7]),
        ("clip10", 42, [1, 2, 5, 6]),
        ("clip10", 42, [3, 5, 6, 7]),
        ("clip3", 36, [0, 1, 4, 7]),
        ("clip3", 36, [1, 2, 4, 6]),
        ("clip2", 27, [2, 3, 4, 6]),
        ("clip2", 27, [0, 1, 3, 7]),
    ]
    crops = opened(split, **SETTINGS)[1].request(Wanted.of([4], 3)).plans[0].crops
    assert [(crop.x, crop.y, crop.width, crop.height) for crop in crops] == [(0, 10, 42, 42), (24, 6, 64, 56)]


def test_a_saved_position_of_another_version_is_refused(split: Path) -> None:
    for run in (loader(split), loader(split, mixed=True)):
        state = run.state_dict()
        assert state["version"] == ORDER_VERSION
        with pytest.raises(ResumeError, match=r"\(version: saved 0, here 1\)\. Use the release of maskstream that"):
            run.load_state_dict(state | {"version": 0})
        with pytest.raises(ResumeError, match="version: saved nothing"):
            run.load_state_dict({name: value for name, value in state.items() if name != "version"})


def test_all_orders_say_their_version() -> None:
    for order in (mixture(), scheduled_mixture(), mixture().streams[0], budget()):
        assert order.identity()["version"] == ORDER_VERSION
