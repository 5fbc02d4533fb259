"""The driver runs what the ledger does not have, records what finishes, and tells how far it is."""

from dataclasses import dataclass, field

import pytest

from maskstream.preprocess.executors.base import Finished, Progressed, Restarted
from maskstream.preprocess.job.ledger import run_tasks
from maskstream.shards.progress import Progress


@dataclass(frozen=True)
class Part:
    name: str
    units: int


class Scripted:
    """An executor of another kind: each task reports one unit, dies once after it, and is stopped before `stop`."""

    def __init__(self, stop=None):
        self.stop, self.closed = stop, False

    def run(self, work, tasks):
        try:
            for task in tasks:
                if task.name == self.stop:
                    raise KeyboardInterrupt
                yield Progressed(task, "begins")
                yield Progressed(task, "")
                yield Restarted(task, "a process died")
                yield Progressed(task, "")
                yield Finished(task, work(task, print))
        finally:
            self.closed = True


@dataclass
class Kept:
    """A ledger in memory."""

    records: dict = field(default_factory=dict)
    restarts: list = field(default_factory=list)

    def stands(self, task):
        return self.records.get(task.name)

    def record(self, task, done, restarts):
        assert task.name not in self.records
        self.records[task.name] = done
        self.restarts += [task.name] * restarts


class Told(Progress):
    def __init__(self):
        self.phases, self.units, self.words, self.tallies = [], 0, [], []

    def phase(self, name, total, done=0, unit="sources"):
        self.phases.append((name, total, done, unit))

    def advance(self, units):
        self.units += units

    def tally(self, what, count=1):
        self.tallies.append(what)

    def say(self, text):
        self.words.append(text)


TASKS = [Part("a", 3), Part("b", 1), Part("c", 2)]


def length(task, report):
    return 10 * task.units


def run(executor, ledger, told):
    run_tasks(executor, length, TASKS, ledger, told, phase="encode", unit="parts")


def test_what_stands_is_not_done_again():
    ledger, stopped, told = Kept(), Scripted(stop="c"), Told()
    with pytest.raises(KeyboardInterrupt):
        run(stopped, ledger, told)
    assert stopped.closed
    assert ledger.records == {"a": 30, "b": 10}
    assert (told.phases, told.units) == ([("encode", 6, 0, "parts")], 4)
    told = Told()
    run(Scripted(), ledger, told)
    assert ledger.records == {"a": 30, "b": 10, "c": 20}
    assert (told.phases, told.units, told.words) == (
        [("encode", 6, 4, "parts")],
        2,
        ["c: a process died; restarting it"],
    )
    assert ledger.restarts[-1] == "c"
    assert told.tallies == ["restarts"]
    told = Told()
    run(Scripted(stop="a"), ledger, told)
    assert (told.phases, told.units) == ([], 0)


def test_an_error_of_the_ledger_ends_the_executor():
    executor, ledger = Scripted(), Kept({"b": 0})
    ledger.stands = lambda task: None
    with pytest.raises(AssertionError):
        run(executor, ledger, Told())
    assert executor.closed
