"""What `flow=` takes, and the source that it means.

    flow="dis"                          a word of FLOWS, with its defaults
    flow=Dis(preset="medium")           a config
    flow="package.module:Name"          a source of one's own, its class or an object of it

"auto" is the first of AUTOMATIC that can serve where a mask follows flow, else none; "none" is none.
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
"""The sources by their words."""
AUTOMATIC: tuple[FlowSource, ...] = (Codec(), Dis())
"""What "auto" tries in turn; the last can always serve."""
AUTO, NONE = "auto", "none"
FlowChoice = str | FlowSource
"""What `flow=` takes: AUTO, NONE, a word of FLOWS, `package.module:Name`, or a source itself."""


def find_flow(flow: FlowChoice) -> FlowSource | None:
    """The source that a choice names; None for AUTO and NONE. Raises ValueError for any other word."""
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
            f"flow={word!r}{nearest(word, words)}; legal are {', '.join(map(repr, words))}, a SampleFlow or "
            "BatchFlow, and package.module:Name for one of your own"
        )
    found = imported(word, "flow")
    if isinstance(found, type) and issubclass(found, FlowSource):
        return found()
    if isinstance(found, FlowSource):
        return found
    raise ValueError(f"flow={flow!r} is not a SampleFlow or BatchFlow; name a subclass of one, or an object of it")


def resolve_flow(flow: FlowChoice, *, needed: bool, profile: str, stride: int, align: int) -> FlowSource | None:
    """The source of flow for clips of this stride and align from shards of this profile; None for no flow.

    needed: whether a mask follows flow. Raises ValueError if the choice cannot serve.
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
