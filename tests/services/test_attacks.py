"""A few of the attacks over each store and executor. `make attack STORE=s3 EXECUTOR=ray` does more."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..attacks.attacks import ATTACKS, line
from ..attacks.where import opened

pytestmark = pytest.mark.services

FEW = {"flips": 16, "forged": 14, "outages": 2, "part-kills": 2, "shard-kills": 4, "sources": 11, "train-kills": 3}
"""How many are done; 3 of others."""
PLACES = (("s3", "local"), ("az", "local"), ("http", "local"), ("local", "ray"), ("s3", "ray"), ("local", "slurm"))
EVERYWHERE = ("flips", "shard-kills")
ONCE = (
    *(("forged", "http", "local"), ("outages", "s3", "ray"), ("part-kills", "local", "slurm")),
    *(("sources", "local", "ray"), ("train-kills", "az", "local"), ("worker-kills", "s3", "local")),
)


@pytest.mark.parametrize(
    ("name", "store", "executor"),
    [*((name, *place) for name in EVERYWHERE for place in PLACES if ATTACKS[name].is_for(*place)), *ONCE],
)
def test_no_attack_breaks_a_promise(name: str, store: str, executor: str, tmp_path: Path) -> None:
    attack = ATTACKS[name]
    with opened(store, executor, tmp_path) as where:
        ends = attack(FEW.get(name, 3), 2, tmp_path, where)
    print(f"{store}, {executor}: {line(name, ends, 0)}")
    assert ends.total() == FEW.get(name, 3)
    assert set(ends) <= set(attack.ends)
