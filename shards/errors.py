"""The errors about data. Wrong arguments and settings raise ValueError instead.

MaskstreamError
├── ShardError      a shard is missing, truncated or damaged
├── SampleError     one sample cannot be read or decoded (names the shard, the key, the component and the reason)
│   ├── RemovedError    the sample was removed from the split
│   └── MovedError      the sample is in another tar now; the same request, made again, finds it
├── StoreError      a store cannot read or write bytes
│   ├── MissingFileError   the store has no file of this name
│   └── UnlistedError      the store cannot list its files
├── OutageError     something cannot be read or had now; nothing is known to be wrong with the bytes
├── ResumeError     a saved state cannot be resumed exactly
├── UnfinishedError shards of a job are not written yet
├── BusyError       another run writes to the same folder
├── MainModuleError  a worker process cannot import the main module, which it needs
├── WorkerDiedError the worker processes of one task or batch died repeatedly
└── DatasetError    raw data do not have the published layout (says what is missing, where, and how to get it)
"""

from functools import partial


class DataError(ValueError):
    """Bytes or numbers of a sample are not as their format says; the message says how.

    Parsers and decoders raise it. It leaves no loader and no command: `Manifest.reading` makes a SampleError of it, and
    `verify` a problem.
    """


class MaskstreamError(Exception):
    """The root of all errors about data."""


class ShardError(MaskstreamError):
    """A shard, or a file that belongs to it, is missing, truncated, or differs from its index."""


class SampleError(MaskstreamError):
    """A sample cannot be used; `shard`, `key`, `component` and `reason` say which one and why."""

    def __init__(self, *, shard: str, key: str, component: str, reason: str) -> None:
        super().__init__(f"sample {key!r} in {shard}, component {component!r}: {reason}")
        self.shard = shard
        self.key = key
        self.component = component
        self.reason = reason

    def __reduce__(self) -> tuple[object, ...]:
        given = {"shard": self.shard, "key": self.key, "component": self.component, "reason": self.reason}
        return partial(type(self), **given), ()


class RemovedError(SampleError):
    """A sample was removed from its split. It is replaced as one that cannot be used, and is no sign of damage."""


class MovedError(SampleError):
    """The tar of a sample was replaced after the request was made; the same request, made again, reads the new tar."""


class StoreError(MaskstreamError):
    """A store cannot read the requested bytes or write the given ones."""


class MissingFileError(StoreError):
    """The store has no file of this name."""


class UnlistedError(StoreError):
    """The store cannot list its files; those of a split are named by its dataset.json."""


class OutageError(MaskstreamError):
    """Something cannot be read, or the machine has nothing left to give, now. Nothing is known to be wrong with the
    bytes, so the same command continues when this is mended.
    """


class ResumeError(MaskstreamError):
    """A saved state cannot be resumed exactly; the message says what differs."""


class UnfinishedError(MaskstreamError):
    """A job cannot be finished, because shards are not written yet; the message says how many and which."""


class BusyError(MaskstreamError):
    """Another run writes to the folder; the message names its process and says what to do."""


class WorkerDiedError(MaskstreamError):
    """The worker processes of one task or batch died repeatedly; the message says how, and of which."""


class DatasetError(MaskstreamError):
    """Raw data do not have the expected layout; the message says what is missing, where, and how to get it."""


class MainModuleError(MaskstreamError):
    """A worker process needs the main module but cannot import it; the message says for which object."""
