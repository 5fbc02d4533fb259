"""The limit of rejects: a split that lost many of its sources is not finished unless this is wanted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ..shards.errors import DatasetError
from ..shards.format.sample import Reject
from ..shards.stores.output import Location

MAX_REJECTS = 0.05
MISSING = "missing"
"""The stage of a source that the dataset's lists name and that has no file."""
ARCHIVE = "archive"
"""The stage of an archive that is damaged, and was read as far as it could be because this was wanted."""


def check_rejects(folder: Location, rejects: Sequence[Reject], n_listed: int, max_rejects: float) -> None:
    """Raise DatasetError if the rejects are more than the share `max_rejects` of the `n_listed` sources.

    Missing files count too: a folder that is not mounted looks the same. Archives do not: nobody knows what they held.
    """
    rejects = [reject for reject in rejects if reject.stage != ARCHIVE]
    if len(rejects) <= max_rejects * n_listed:
        return
    n_missing = sum(reject.stage == MISSING for reject in rejects)
    common = Counter(_reason(reject) for reject in rejects).most_common(3)
    reasons = "; ".join(f"{reason} ({count})" for reason, count in common)
    share = len(rejects) / n_listed
    raise DatasetError(
        f"{folder}: {len(rejects)} of {n_listed} sources ({share:.1%}) cannot be used, of which {n_missing} are "
        f"missing; at most {max_rejects:.1%} may be, or the split does not count as finished. Most common: {reasons}. "
        f"Mend the sources and encode them again with --retry-rejects, or accept this with --max-rejects "
        f"{_above(share)}, which uses what is written"
    )


def _reason(reject: Reject) -> str:
    return f"{reject.stage}: {'there is no file' if reject.stage == MISSING else reject.reason}"


def _above(share: float) -> float:
    """The share, rounded up to a hundredth."""
    return min(1.0, (int(share * 100) + 1) / 100)
