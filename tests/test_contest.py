"""benchmarks/contest.py: readers that take turns, and benchmarks/loader.py: the page that gets their tables."""

from dataclasses import dataclass
from importlib import import_module

import numpy as np
import pytest

from . import pretended_card


@dataclass(frozen=True)
class Item:
    key: str
    value: int


@dataclass(frozen=True)
class Batch:
    key: list[str]
    rows: np.ndarray


ITEMS = [Item(key=f"k{i}", value=i) for i in range(6)]


@pytest.fixture
def module(monkeypatch):
    """The module of a name below benchmarks/."""
    monkeypatch.syspath_prepend(str(pretended_card.BENCHMARKS))
    return import_module


@pytest.fixture
def contest(module):
    """A contest whose first reader gives each item's number, the last item first."""
    made = module("contest").Contest(
        name="numbers",
        title="numbers: CPU time of one",
        unit="ms",
        items=lambda epoch: ITEMS,
        rows_of=lambda batch: batch.rows,
        difference=lambda one, other: abs(float(one) - float(other)),
        most=0.0,
    )

    def batches(items):
        yield Batch(key=[item.key for item in ITEMS[::-1]], rows=np.array([item.value for item in ITEMS[::-1]]))

    made.add("ours", "", lambda: batches)
    return made


def test_readers_of_the_same_items_are_measured_in_turns(module, contest) -> None:
    bench, order = module("contest"), []

    def told(name):
        return bench.batched(lambda item: order.append((name, item.value)) or item.value, 4)

    contest.add("mixed", "", lambda: told("mixed"))
    contest.add("stream", "", lambda: bench.streamed(lambda: iter(range(6)), lambda one, item: one, 4), in_order=True)
    contest.warm_up()
    assert contest.differs == {"mixed": 0.0, "stream": 0.0}
    for number in range(1, 4):
        contest.round(number)
    shown = [value for _, value in order]
    assert shown[:6] == [0, 1, 2, 3, 4, 5]
    assert all(sorted(shown[n : n + 6]) == shown[:6] for n in (6, 12, 18))
    assert [len(taken) for taken in contest.taken.values()] == [3, 3, 3]
    other = module("contest").Contest(**{**vars(contest), "column": "again", "readers": contest.readers[:2]})
    table = bench.table([contest, other])
    assert "| | CPU ms | again |" in table
    assert "| **ours** |" in table
    assert "| stream |" in table


@pytest.mark.parametrize("wrong", [lambda item: item.value + 1, lambda item: 0])
def test_a_reader_of_something_else_ends_the_run(module, contest, wrong) -> None:
    contest.add("wrong", "", lambda: module("contest").batched(wrong, 4))
    with pytest.raises(SystemExit, match="wrong returns different data"):
        contest.warm_up()


def test_a_reader_that_leaves_samples_out_ends_the_run(module, contest) -> None:
    contest.add("short", "", lambda: lambda items: iter([np.arange(3)]))
    with pytest.raises(SystemExit, match="returned 3 rows for 6 items"):
        contest.warm_up()


def test_a_peer_that_is_not_installed_is_named(module, contest) -> None:
    contest.add("some peer", "no_such_module", lambda: None)
    contest.warm_up()
    contest.round(1)
    assert "\n- Missing: some peer: No module named 'no_such_module'." in module("contest").table([contest])


def test_tables_replace_what_stands_between_the_marks(module, tmp_path) -> None:
    write_between, page = module("loader").write_between, tmp_path / "page.md"
    page.write_text("before\n<!-- bench text -->\nold\n<!-- end of bench text -->\nafter\n")
    for text in ("new", "newer"):
        write_between(page, "text", text)
    assert page.read_text() == "before\n<!-- bench text -->\n\nnewer\n\n<!-- end of bench text -->\nafter\n"
    with pytest.raises(SystemExit, match="has no lines"):
        write_between(page, "points", "new")


def test_every_modality_has_marks_in_the_page(module) -> None:
    page = (pretended_card.BENCHMARKS.parent / "docs/benchmarks.md").read_text()
    assert all(
        f"<!-- bench {name} -->" in page and f"<!-- end of bench {name} -->" in page
        for name in module("loader").MODULES
    )
