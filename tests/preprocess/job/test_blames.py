"""Once blamed, a unit is a suspect and is tried first; twice, it is a reject."""

import pytest

from maskstream.preprocess.job.ledger import Blames
from maskstream.preprocess.source import RejectError


def test_a_unit_is_rejected_when_it_is_blamed_twice():
    blames = Blames().plus("a", "fell").plus("b", "hung")
    assert blames.suspects == ["b", "a"]
    for unit in "abc":
        blames.check(unit)
    blames = blames.plus("a", "fell again")
    assert blames.suspects == ["b"]
    blames.check("b")
    with pytest.raises(RejectError, match="decode: fell again, twice"):
        blames.check("a")
