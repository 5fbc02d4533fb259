"""Once it ended a process, a unit is a suspect and is tried first; twice, it is a reject."""

import pytest

from maskstream.preprocess.job.ledger import Crashes
from maskstream.preprocess.source import RejectError


def test_a_unit_is_rejected_when_it_is_blamed_twice():
    crashes = Crashes().plus("a", "fell").plus("b", "hung")
    assert crashes.suspects == ["b", "a"]
    for unit in "abc":
        crashes.check(unit)
    crashes = crashes.plus("a", "fell again")
    assert crashes.suspects == ["b"]
    crashes.check("b")
    with pytest.raises(RejectError, match="decode: fell again, twice"):
        crashes.check("a")
