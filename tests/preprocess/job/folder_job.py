"""The job of the tests: a folder of small videos, how far it came, and what it wrote."""

import hashlib
from dataclasses import replace

from maskstream.preprocess import PROFILES, make_shards
from maskstream.shards.format.records import RECORDS
from maskstream.shards.progress import Progress

FAST = replace(PROFILES["train"], preset="ultrafast")


def contents(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and RECORDS not in path.parts  # they hold the times of the sources
    }


class Told(Progress):
    """Keeps what it is told; `stop_after` clips it interrupts."""

    def __init__(self, stop_after=None):
        self.n_sources, self.phases, self.words, self.tallies, self.stop_after = 0, [], [], [], stop_after

    def phase(self, name, total, done=0, unit="clips"):
        self.phases.append((name, total, done))

    def advance(self, units):
        if self.phases[-1][0] == "encode":
            self.n_sources += units
            if self.n_sources == self.stop_after:
                raise KeyboardInterrupt

    def tally(self, what, count=1):
        self.tallies += [what] * count

    def say(self, text):
        self.words.append(text)


def run(raw, out, **settings):
    return make_shards(
        "folder", raw, out, **{"profile": FAST, "samples_per_shard": 3, "workers": 0, "max_rejects": 1, **settings}
    )
