"""What is held out: whole groups, of every label, the same each time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from maskstream.preprocess.datasets.dataset import choose_held_out_groups

SOURCES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), max_size=200).map(
    lambda pairs: [(label, f"{label}/{group}") for label, group in pairs]
)


@given(SOURCES)
def test_every_label_keeps_a_group_and_holds_one_out_if_it_has_two(sources: list[tuple[int, str]]) -> None:
    held = choose_held_out_groups(sources)
    for label in {label for label, _ in sources}:
        groups = {group for one, group in sources if one == label}
        assert groups - held
        assert bool(groups & held) == (len(groups) > 1)


@given(SOURCES)
def test_the_order_of_sources_does_not_matter(sources: list[tuple[int, str]]) -> None:
    assert choose_held_out_groups(sources[::-1]) == choose_held_out_groups(sources)


def test_the_share_is_nearly_met_where_groups_are_small() -> None:
    sources = [(label, f"{label}/{n}") for label in range(5) for n in range(100) for _ in range(2)]
    held = choose_held_out_groups(sources, 0.3)
    for label in range(5):
        assert sum(group in held for one, group in sources if one == label) == 60
