"""A few of each attack, and what the runner says of them."""

import os
from collections import Counter
from pathlib import Path

import pytest
import torch

from ..preprocess.raw_files import tar_of
from . import __main__ as runner
from .archives import is_unprotected
from .attacks import ATTACKS, BAD, Attack, broken, line
from .reach import OLD_S, World
from .where import HERE


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.filterwarnings("ignore:Overlapped entries")  # of Python 3.13, of a zip where two files begin at one place
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if attack.slow else []) for name, attack in ATTACKS.items()]
)
def test_no_attack_breaks_a_promise(name: str, tmp_path: Path) -> None:
    attack = ATTACKS[name]
    ends = attack(attack.few, 1, tmp_path)
    print(line(name, ends, 0))
    assert ends.total() == attack.few
    assert set(ends) <= set(attack.ends)
    assert attack.timed or set(ends) == set(attack.ends)


def test_every_module_of_the_folder_is_registered() -> None:
    found = {path.stem for path in Path(__file__).parent.glob("*.py") if "\ndef attack(" in path.read_text()}
    assert found == {attack.module for attack in ATTACKS.values()}


@pytest.fixture
def fake(monkeypatch):
    """Registers an attack of which every third ends badly."""

    def run(self, count, seed, folder, where):
        assert where is HERE
        assert folder.is_dir()
        assert not list(folder.iterdir())
        return Counter(["exact", "exact", self.module][n % 3] for n in range(seed, seed + count))

    monkeypatch.setattr(Attack, "__call__", run)
    return lambda name, **fields: monkeypatch.setitem(ATTACKS, name, Attack(few=1, ends=(), **fields))


@pytest.mark.parametrize("end", BAD)
def test_the_runner_counts_bad_ends_and_fails(fake, capsys, end):
    fake("lure", module=end, cost=10)
    assert runner.main(["lure", "-n", "65", "--seed", "2"]) == 1
    shown = capsys.readouterr().out
    assert shown.startswith("lure: 6 attacks: ")
    assert f" 2 {BAD[end]}" in shown
    assert "; 4 exact; 0 s" in shown


def test_the_runner_is_content_with_good_ends_and_does_one_at_least(fake, capsys):
    fake("calm", module="refused", cost=100)
    assert runner.main(["calm", "calm", "-n", "1"]) == 0
    assert capsys.readouterr().out.count("calm: 1 attacks: 0 signals, 0 hangs, 0 foreign exceptions, 0 wrong") == 2


def test_other_names_are_refused(capsys):
    with pytest.raises(SystemExit):
        runner.main(["lure"])
    assert "no attack is named lure; there are " in capsys.readouterr().err


def test_an_attack_that_a_store_does_not_have_is_refused(fake, capsys):
    fake("calm", module="refused")
    with pytest.raises(SystemExit):
        runner.main(["calm", "--store", "s3"])
    possible = ", ".join(name for name, attack in ATTACKS.items() if "s3" in attack.stores)
    assert f"not with s3 and local: calm; there are {possible}" in " ".join(capsys.readouterr().err.split())


def test_only_bad_ends_are_broken_promises():
    assert broken(Counter(exact=5, refused=2)) == 0
    assert broken(Counter(exact=5, wrong=2, hang=1)) == 3


def test_what_no_checksum_of_a_joined_tar_can_tell() -> None:
    """A long name behind the first end has none, the headers there have one."""
    long = "deep/" * 30 + "x.png"
    joined = tar_of({"a.png": b"a"}) + tar_of({long: b"b"})
    name, header = joined.index(long.encode()), joined.index(b"././@LongLink")
    for at, expected in ((name + 5, True), (header + 5, False), (joined.rindex(b"ustar"), False)):
        after = joined[:at] + bytes([joined[at] ^ 4]) + joined[at + 1 :]
        assert is_unprotected(joined, after, "tar") is expected


@pytest.mark.parametrize("act", ["make and delete", "write and set back", "link and unlink", "beside the output"])
def test_what_is_undone_at_the_end_is_seen_too(act: str, tmp_path: Path) -> None:
    world = World(tmp_path / "world")
    world.build()
    world.age()
    before, victim = world.seen(), world.victims[0]
    made = (world.out.parent if act == "beside the output" else victim.parent) / "made"
    if act == "write and set back":
        data = victim.read_bytes()
        victim.write_bytes(b"x")
        victim.write_bytes(data)
        os.utime(victim, (OLD_S, OLD_S))
    else:
        made.hardlink_to(victim) if act == "link and unlink" else made.write_bytes(b"x")
        made.unlink()
    assert world.seen() != before
