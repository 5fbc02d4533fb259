"""Errors about data. Wrong arguments and settings raise ValueError instead.

MaskstreamError
├── ShardError      a shard is missing, truncated or damaged
├── SampleError     one sample cannot be read or decoded (names the shard, the key, the component and the reason)
│   ├── RemovedError    the sample was removed from the split
│   └── MovedError      the sample is now in another tar; repeating the request finds it
├── StoreError      a store cannot read or write bytes
│   ├── MissingFileError   the store has no file of this name
│   └── UnlistedError      the store cannot list its files
├── OutageError     a read or a resource failed for now; no bytes are known to be damaged
├── ResumeError     a saved state cannot be resumed exactly
├── UnfinishedError shards of a job are not written yet
├── BusyError       another run writes to the same folder
├── MainModuleError  a worker process cannot import the main module, which it needs
├── WorkerDiedError the worker processes of one task or batch died repeatedly
└── DatasetError    raw data do not have the published layout
"""

from functools import partial


class DataError(ValueError):
    """Bytes or numbers of a sample violate their format; the message describes the violation.

    Parsers and decoders raise it. It never leaves a loader or a command: `Manifest.reading` turns it into a
    SampleError, and `verify` into a problem.
    """


class MaskstreamError(Exception):
    """Base class of all errors about data."""


class ShardError(MaskstreamError):
    """A shard, or a file that belongs to it, is missing, truncated, or differs from its index."""


class SampleError(MaskstreamError):
    """A sample cannot be used; `shard`, `key` and `component` identify it, and `reason` explains why."""

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
    """A sample was removed from its split. It is replaced like an unusable one, but is not a sign of damage."""


class MovedError(SampleError):
    """The tar of a sample was replaced after the request was made; repeating the request reads the new tar."""


class StoreError(MaskstreamError):
    """A store cannot read the requested bytes or write the given ones."""


class MissingFileError(StoreError):
    """The store has no file of this name."""


class UnlistedError(StoreError):
    """The store cannot list its files; a split's files are listed in its dataset.json."""


class OutageError(MaskstreamError):
    """A read failed, or the machine ran out of a resource. No bytes are known to be damaged, so rerunning the command
    continues once this is fixed.
    """


class ResumeError(MaskstreamError):
    """A saved state cannot be resumed exactly; the message lists the differences."""


class UnfinishedError(MaskstreamError):
    """A job cannot be finished, because shards are not written yet; the message lists them."""


class BusyError(MaskstreamError):
    """Another run writes to the folder; the message identifies its process and suggests a remedy."""


class WorkerDiedError(MaskstreamError):
    """The worker processes of one task or batch died repeatedly; the message identifies it and explains how."""


class DatasetError(MaskstreamError):
    """Raw data do not have the expected layout; the message lists the missing files and how to get them."""


class MainModuleError(MaskstreamError):
    """A worker process needs the main module for an object but cannot import it; the message identifies the object."""
