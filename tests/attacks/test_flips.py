"""A few hundred flips; `python -m tests.attacks.flips` does more."""

from pathlib import Path

from .flips import attack


def test_every_flipped_bit_is_noticed_and_gives_no_other_sample(tmp_path: Path) -> None:
    ends = attack(300, 1, tmp_path)
    assert set(ends) == {"right", "refused"}
