"""A few of the attacks over each store and executor. `make attack STORE=s3 EXECUTOR=ray` does more."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..attacks.attacks import ATTACKS, line
from ..attacks.where import opened

pytestmark = pytest.mark.services

FEW = {"flips": 16, "shard-kills": 4}
PLACES = (("s3", "local"), ("az", "local"), ("http", "local"), ("local", "ray"), ("s3", "ray"))


@pytest.mark.parametrize(
    ("name", "store", "executor"),
    [(name, *place) for name, attack in ATTACKS.items() for place in PLACES if attack.is_for(*place)],
)
def test_no_attack_breaks_a_promise(name: str, store: str, executor: str, tmp_path: Path) -> None:
    attack = ATTACKS[name]
    with opened(store, executor, tmp_path) as where:
        ends = attack(FEW[name], 2, tmp_path, where)
    print(f"{store}, {executor}: {line(name, ends, 0)}")
    assert ends.total() == FEW[name]
    assert set(ends) <= set(attack.ends)
