"""Loaders over a store that reads ahead: the same batches, in threads and workers, and nothing is left announced."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from maskstream.pipelines.stream.loader import Loader
from maskstream.pipelines.stream.mix import mix
from maskstream.pipelines.stream.produce import BatchMaker, Threads, plans, yield_from_threads
from maskstream.pipelines.stream.sampler import Wanted
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.stores.base import Range, ShardFile, Store
from maskstream.shards.stores.local import LocalStore
from maskstream.shards.stores.read_ahead import ReadAhead

from ..every_modality import MODALITIES, write_split
from ..test_modalities import opened, source_of
from .numbered import NumberRequest, Numbers, maker


class Remote(LocalStore):
    """A folder as if it were far away: counts what the threads of a `ReadAhead` read, and what others do."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.ahead = self.alone = 0

    def __reduce__(self) -> tuple[Callable[..., Remote], tuple[Path]]:
        return Remote, (self.folder,)

    def read(self, name: str, offset: int, size: int) -> bytes:
        if threading.current_thread().name.startswith("maskstream-read"):
            self.ahead += 1
        else:
            self.alone += 1
        return super().read(name, offset, size)

    def of_split(self, shards: Mapping[str, ShardFile], *, outside: bool) -> Remote:
        return self

    def is_near(self, one: Range) -> bool:
        return False

    def read_many(self, ranges: Sequence[Range]) -> list[bytes]:
        return [self.read(*one) for one in ranges]


@pytest.fixture(scope="module", params=list(MODALITIES))
def kind(request, tmp_path_factory):
    """A modality and the folder of its split."""
    return MODALITIES[request.param], write_split(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture
def far(monkeypatch, kind):
    """Splits are opened over a `ReadAhead`; the stores that were made."""
    stores: list[ReadAhead] = []
    open_ = Manifest.open

    def far_away(store: Store, **options: Any) -> Manifest:
        manifest = open_(ReadAhead(Remote(Path(store.location)), threads=4), **options)
        stores.append(manifest.store)
        return manifest

    monkeypatch.setattr(Manifest, "open", far_away)
    return stores


def nothing_announced(stores: list[ReadAhead]) -> bool:
    return not any(store._spans or store._held_bytes for store in stores)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_batches_are_the_same_and_readers_find_what_was_announced(kind, far, monkeypatch, workers):
    with monkeypatch.context() as near:
        near.undo()
        wanted = [kind[0].rows(batch) for batch in islice(opened(kind).repeat(), 5)]
    with closing(opened(kind, workers=workers)) as loader:
        batches = loader.repeat()
        got = [kind[0].rows(batch) for batch in islice(batches, 5)]
        batches.close()
    assert got == wanted
    assert far
    assert nothing_announced(far)
    if not workers:
        assert sum(store._store.ahead for store in far) > 0


def test_a_seek_and_the_end_of_an_epoch_leave_nothing_announced(kind, far):
    with closing(opened(kind, batch_size=3)) as loader:
        for stop in (1, 2, len(loader)):
            loader.seek(0)
            for number, _ in enumerate(loader, start=1):
                if number == stop:
                    break
    assert nothing_announced(far)


@pytest.mark.parametrize("kind", ["video"], indirect=True)
def test_the_parts_of_a_mixture_announce_to_their_own_stores(kind, far):
    parts = [source_of(kind), source_of(kind)]
    list(islice(Loader(mix([(part, 1) for part in parts]), batch_size=4, device="cpu").repeat(), 2))
    assert all(part.sampler.manifest.store._store.ahead for part in parts)
    assert nothing_announced(far)


@dataclass(frozen=True, kw_only=True)
class Failing(Numbers):
    """Numbers whose request for number `bad` fails."""

    bad: int

    def request(self, wanted: Wanted) -> NumberRequest:
        if self.bad in wanted.indexes:
            raise RuntimeError("of batch 4")
        return super().request(wanted)


def test_an_error_of_a_request_ahead_is_raised_at_its_batch():
    order = maker().order
    wanted = list(plans(order, 0, 0, 0, 1))
    failing = BatchMaker(sampler=Failing(bad=int(wanted[4].indexes[3])), order=order)
    made = yield_from_threads(failing, wanted, Threads.of(1), 1)
    assert len(list(islice(made, 4))) == 4
    with pytest.raises(RuntimeError, match="of batch 4"):
        next(made)
