"""One component of all samples of a split, as columns: where its members are, and what is known of each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from maskstream.shards.members.member import ENDING, Member

Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
Float64s = npt.NDArray[np.float64]
UInt8s = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64] | npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Words:
    """One word per sample: `code` int32 (N,) indexes `names`; -1 means none."""

    names: list[str]
    code: Int32s


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Lists:
    """One list per sample: that of sample i is `values[start[i]:start[i + 1]]`; start int64 (N + 1,).

    Lists are the largest part of a manifest, so `values` has the narrowest type that fits (int8 to int64), and lists of
    equal lengths share `start`.
    """

    start: Int64s
    values: npt.NDArray[np.signedinteger]

    def __getitem__(self, i: int) -> Int64s:
        return self.values[self.start.item(i) : self.start.item(i + 1)].astype(np.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Component:
    """One component of all N samples; all values are 0 for samples that lack it.

    kind: the name of its `Kind`. offset, size: int64 (N,), of the data in the tar, in bytes. facts: int64 or float64
    (N,) each.
    """

    name: str
    kind: str
    offset: Int64s
    size: Int64s
    facts: dict[str, Numbers]
    words: dict[str, Words]
    lists: dict[str, Lists]
    read_digest: Callable[[], UInt8s] = field(repr=False)

    @cached_property
    def digest(self) -> UInt8s:
        """The xxh3_128 of each sample's data, uint8 (N, 16), read from disk on first use; 0 if a sample lacks it."""
        return self.read_digest()

    @cached_property
    def checked(self) -> npt.NDArray[np.bool_]:
        """Of which samples this process has found that their columns do not contradict each other, bool (N,)."""
        return np.zeros(len(self.offset), dtype=np.bool_)

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """Which samples have the component, bool (N,). No data is at offset 0, where a tar has a header."""
        return self.offset > 0

    def facts_of(self, i: int) -> dict[str, int | float]:
        """The facts of sample i."""
        return {name: values.item(i) for name, values in self.facts.items()}

    def word(self, name: str, i: int) -> str:
        """A word of sample i; "" if it has none."""
        words = self.words.get(name)
        return words.names[words.code[i]] if words is not None and words.code[i] >= 0 else ""

    def described(self, i: int, data: bytes = b"", table: bytes = b"") -> Member:
        """The member of sample i with its columns and the given bytes. Raises ValueError if the sample lacks it."""
        i = range(len(self.offset))[i]
        if not self.offset[i]:
            raise ValueError(f"sample {i} has no component {self.name!r}")
        return Member(
            kind=self.kind,
            data=data,
            facts=self.facts_of(i),
            words={name: words.names[words.code[i]] for name, words in self.words.items() if words.code[i] >= 0},
            lists={name: lists[i] for name, lists in self.lists.items()},
            table=table,
        )

    def ending(self, i: int) -> str:
        """The ending of sample i's member in the tar; it differs from the component's name only in foreign tars."""
        words = self.words.get(ENDING)
        return self.name if words is None else words.names[words.code[i]]


def component_of(components: Mapping[str, Component], kinds: Sequence[str], wanted: str | None = None) -> Component:
    """The component `wanted`, or by default the only one of these kinds.

    Raises ValueError if there is no such component, or if several fit and `wanted` is None.
    """
    of = " or ".join(kinds)
    fitting = [name for name, component in components.items() if component.kind in kinds]
    listed = ", ".join(fitting) or "none"
    if wanted is not None:
        if wanted not in components:
            raise ValueError(f"component={wanted!r} does not exist; components that are {of}: {listed}")
        if wanted not in fitting:
            raise ValueError(
                f"component={wanted!r} is {components[wanted].kind}, not {of}; components that are {of}: {listed}"
            )
        return components[wanted]
    if len(fitting) != 1:
        held = ", ".join(f"{name} ({component.kind})" for name, component in components.items()) or "nothing"
        if fitting:
            raise ValueError(
                f"{len(fitting)} components are {of}: {listed}; name one with component= (--set component={fitting[0]})"
            )
        raise ValueError(f"no component is {of}; the split holds {held}")
    return components[fitting[0]]
