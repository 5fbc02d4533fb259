"""The error of one source that cannot become a sample."""

from ...shards.errors import MaskstreamError


class RejectError(MaskstreamError):
    """A source cannot become a sample.

    `stage` is where it failed ("missing", "open", "decode", "encode" or "check"), `reason` says why.
    """

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(stage, reason)
        self.stage = stage
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.stage}: {self.reason}"
