"""The one tree of errors for data; configuration mistakes are ValueError.

MaskstreamError
├── ShardError      a shard is truncated, has a wrong checksum or a wrong form
├── SampleError     one sample cannot be read or decoded (names the shard, the key, the component and the reason)
├── StoreError      a store did not give bytes, or has no room for them
├── ResumeError     a state that cannot be resumed exactly
├── BusyError       another run writes to the same folder
└── DatasetError    raw data is not laid out as its publishers do (names what was looked for, where, how to get it)
"""


class MaskstreamError(Exception):
    """The root of all errors about data."""


class ShardError(MaskstreamError):
    """A shard, or a file beside it, is missing, truncated, or not what its index says."""


class SampleError(MaskstreamError):
    """One sample cannot be used; `shard`, `key`, `component` and `reason` say which and why."""

    def __init__(self, *, shard: str, key: str, component: str, reason: str) -> None:
        super().__init__(f"sample {key!r} in {shard}, component {component!r}: {reason}")
        self.shard = shard
        self.key = key
        self.component = component
        self.reason = reason

    def __reduce__(self) -> tuple[object, ...]:
        return (_sample_error, (self.shard, self.key, self.component, self.reason))


def _sample_error(shard: str, key: str, component: str, reason: str) -> SampleError:
    return SampleError(shard=shard, key=key, component=component, reason=reason)


class StoreError(MaskstreamError):
    """A store did not give the bytes that were asked for, or did not take those that were to be written."""


class ResumeError(MaskstreamError):
    """A saved position cannot be continued exactly; the message says which part differs."""


class BusyError(MaskstreamError):
    """Another run writes to the folder; the message says which process that is, and what to do."""


class DatasetError(MaskstreamError):
    """Raw data is not laid out as expected; the message says what was looked for, where, and how to get it."""
