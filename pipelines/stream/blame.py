"""The error for a batch at which worker processes died again and again: it names the samples, so they can be found."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Generic

from maskstream.shards.errors import SampleError, WorkerDiedError

from .produce import BatchPlan
from .sampler import DraftT, HostT, RequestT, Sampler, Wanted


@dataclass(frozen=True, slots=True)
class Blame(Generic[RequestT, DraftT, HostT]):
    """Names the samples of plans."""

    sampler: Sampler[RequestT, DraftT, HostT]

    def error(self, plan: BatchPlan, row: int | None, how: str) -> WorkerDiedError:
        """The error for a batch; `row` is the one that the last process was making, `how` is how that process ended."""
        epoch, batch = plan.number
        wanted = plan.wanted if row is None else [plan.wanted[row]]
        what = "its samples are" if row is None else "it made one sample after the other and did not finish"
        return WorkerDiedError(
            f"several worker processes died while they made batch {batch} of epoch {epoch}; the last one {how}; {what} "
            f"{self._names(wanted)}. If a sample crashes its decoder (SIGSEGV), make the shards without it; if memory "
            "ran out (SIGKILL), use fewer workers or threads; if a batch takes longer, raise worker_timeout"
        )

    def _names(self, wanted: list[Wanted]) -> str:
        keys: defaultdict[str, list[str]] = defaultdict(list)
        for one in wanted:
            shard, key = self._name(one)
            keys[shard].append(key)
        return "; ".join(f"{', '.join(map(repr, own))} in {shard}" for shard, own in keys.items())

    def _name(self, wanted: Wanted) -> tuple[str, str]:
        """The shard and the key of a sample."""
        try:
            request = self.sampler.request(wanted)
        except SampleError as error:
            return error.shard, error.key
        return next((part.name for part in request.ranges), "no shard"), request.key
