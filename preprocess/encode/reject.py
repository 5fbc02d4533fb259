"""The error of a source that cannot become a sample."""

from ...shards.errors import MaskstreamError
from ..file_state import FileState


class RejectError(MaskstreamError):
    """A source cannot become a sample.

    `stage` is the step that failed ("missing", "open", "decode", "encode" or "check"); `reason` says why.
    """

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(stage, reason)
        self.stage = stage
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.stage}: {self.reason}"


class DamageError(RejectError):
    """The bytes of a source are damaged or cut off from some frame on; those before it are whole."""


class DamagedFileError(RejectError):
    """A file of a source cannot be had whole, whoever reads it: a damaged member of an archive, a row without bytes.
    `state` is what is known of the file.
    """

    def __init__(self, stage: str, reason: str, state: FileState) -> None:
        super().__init__(stage, reason)
        self.state = state


def reason_of(error: BaseException) -> str:
    """The message of an error of FFmpeg or the system, without the file's name."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
