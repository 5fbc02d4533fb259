"""A small count of the attacks on checkpoints."""

from pathlib import Path

import pytest
import torch

from .checkpoints import attack


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_random_damage_ends_in_the_exact_run_or_is_refused(tmp_path: Path) -> None:
    ends = attack(40, 1, tmp_path)
    assert set(ends) == {"exact", "refused"}
    assert ends["exact"] > ends["refused"] > 0
