"""One component of all samples of a split, as columns: positions of its members and their facts, words and lists."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from maskstream.shards.arrays import Bools, Float64s, Int32s, Int64s, UInt8s
from maskstream.shards.members.member import ENDING, Member

Numbers = Int64s | Float64s


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Words:
    """One word per sample: `code`, int32 (N,), indexes `names`; -1 for none."""

    names: list[str]
    code: Int32s


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Lists:
    """One list per sample: sample i has `values[start[i]:start[i + 1]]`; start int64 (N + 1,).

    Lists are the largest part of a manifest, so `values` has the narrowest type that fits (int8 to int64), and lists of
    equal lengths share `start`.
    """

    start: Int64s
    values: npt.NDArray[np.signedinteger]

    def __getitem__(self, i: int) -> Int64s:
        return self.values[self.start.item(i) : self.start.item(i + 1)].astype(np.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Component:
    """One component of all N samples. All values are 0 for samples that lack it.

    Attributes:
        name: Name of the component.
        kind: Name of its `Kind`.
        offset: First byte of each sample's data in its tar, int64 (N,).
        size: Size of each sample's data in bytes, int64 (N,).
        facts: Numbers by name, int64 or float64 (N,) each.
        words: Words by name.
        lists: Lists by name.
        read_digest: Reads `digest` from the parts of the manifest.
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
        """xxh3_128 of each sample's data, uint8 (N, 16); 0 if a sample lacks the component. Read from disk on first
        use.
        """
        return self.read_digest()

    @cached_property
    def checked(self) -> Bools:
        """Samples whose columns this process has found to be consistent, bool (N,)."""
        return np.zeros(len(self.offset), dtype=np.bool_)

    @property
    def present(self) -> Bools:
        """Samples that have the component, bool (N,). Offset 0 means none: a tar begins with a header, so no data is
        there.
        """
        return self.offset > 0

    def facts_of(self, i: int) -> dict[str, int | float]:
        """Return the stored values of sample i."""
        return {name: values.item(i) for name, values in self.facts.items()}

    def word(self, name: str, i: int) -> str:
        """Return a word of sample i; "" if it has none."""
        words = self.words.get(name)
        return words.names[words.code[i]] if words is not None and words.code[i] >= 0 else ""

    def described(self, i: int, data: bytes = b"", table: bytes = b"") -> Member:
        """Return the member of sample i with its columns and the given bytes. Raises ValueError if it has no such
        component.
        """
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
        """Return the ending of sample i's member in the tar. Only in foreign tars does it differ from the component's
        name.
        """
        words = self.words.get(ENDING)
        return self.name if words is None else words.names[words.code[i]]


def component_of(components: Mapping[str, Component], kinds: Sequence[str], wanted: str | None = None) -> Component:
    """Return the component `wanted`, or by default the only one of the given kinds.

    Args:
        components: Components of a split by name.
        kinds: Names of the kinds that fit.
        wanted: Name of the component; None takes the only one that fits.

    Raises:
        ValueError: The component does not exist, or `wanted` is None and several fit.
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
                f"{len(fitting)} components are {of}: {listed}; choose one with component= (--set "
                f"component={fitting[0]})"
            )
        raise ValueError(f"no component is {of}; the split contains {held}")
    return components[fitting[0]]
