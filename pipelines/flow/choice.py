"""Values of `flow=`, and the source that each selects.

    flow="dis"                          a name in FLOWS, with default settings
    flow=Dis(preset="medium")           a config
    flow="package.module:Name"          a user-defined source, as a class or an instance

"auto" selects the first usable source of AUTOMATIC if a mask follows flow, and none otherwise; "none" disables flow.
"""

from collections.abc import Mapping
from types import MappingProxyType

from maskstream.shards.named import imported, nearest

from .lk import Lk
from .ofa import Ofa
from .raft import Raft
from .source import Codec, Dis, FlowSource

FLOWS: Mapping[str, type[FlowSource]] = MappingProxyType(
    {"codec": Codec, "dis": Dis, "lk": Lk, "ofa": Ofa, "raft": Raft}
)
"""Sources by name."""
AUTOMATIC: tuple[FlowSource, ...] = (Codec(), Dis())
"""Sources that "auto" tries in turn; the last is always usable."""
AUTO, NONE = "auto", "none"
FlowChoice = str | FlowSource
"""Type of `flow=`: AUTO, NONE, a name in FLOWS, `package.module:Name`, or a source."""


def find_flow(flow: FlowChoice) -> FlowSource | None:
    """Resolve a choice to a source; None for AUTO and NONE.

    Raises:
        ValueError: The name is unknown.
    """
    if isinstance(flow, FlowSource):
        return flow
    word = flow if isinstance(flow, str) else repr(flow)
    if word in (AUTO, NONE):
        return None
    if word in FLOWS:
        return FLOWS[word]()
    if ":" not in word:
        words = [AUTO, *FLOWS, NONE]
        raise ValueError(
            f"flow={word!r}{nearest(word, words)}; expected {', '.join(map(repr, words))}, a SampleFlow or "
            "BatchFlow, or package.module:Name for one of your own"
        )
    found = imported(word, "flow")
    if isinstance(found, type) and issubclass(found, FlowSource):
        return found()
    if isinstance(found, FlowSource):
        return found
    raise ValueError(f"flow={flow!r} is not a SampleFlow or BatchFlow; pass a subclass or an instance of one")


def resolve_flow(flow: FlowChoice, *, needed: bool, profile: str, stride: int, align: int) -> FlowSource | None:
    """Return the flow source for clips with this stride and alignment from shards of this profile; None for no flow.

    Args:
        flow: Choice to resolve.
        needed: True if a mask follows flow.
        profile: Profile of the shards.
        stride: Stride of the clips.
        align: Alignment of the clips.

    Raises:
        ValueError: The chosen source cannot be used.
    """
    chosen = find_flow(flow)
    if chosen is None:
        if flow == NONE or not needed:
            return None
        return next(s for s in AUTOMATIC if s.unfit(profile, stride=stride, align=align) is None)
    if reason := chosen.unfit(profile, stride=stride, align=align):
        raise ValueError(
            f"flow={flow!r} with shards of profile {profile!r}, stride {stride}, align {align}: {reason}; "
            "use flow='dis'"
        )
    return chosen
