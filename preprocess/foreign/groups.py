"""Groups the members of a tar into samples as WebDataset does: consecutive members with the same key."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import xxhash

from ...shards.errors import ShardError
from ...shards.format.member_name import split_name
from ...shards.format.ustar import HashedReader, walk
from .labels import LABELS

MAX_LABEL_BYTES = 1 << 24


@dataclass(slots=True)
class Group:
    """The members of a sample.

    components: offset, size and digest of each. data: the bytes of the components to read. problem: why the group is
    no sample; "" if it may be one.
    """

    key: str
    components: dict[str, tuple[int, int, bytes]] = field(default_factory=dict)
    data: dict[str, bytes] = field(default_factory=dict)
    problem: str = ""


def groups(reader: HashedReader, wanted: Collection[str]) -> Iterator[Group]:
    """The groups of a tar in its order. A member whose name has no key and component is a group with a problem.

    wanted: the components whose bytes are kept, besides labels. If the tar is damaged or truncated, the last group has
    the key "" and the reason as its problem.
    """
    group: Group | None = None
    try:
        for member in walk(reader, foreign=True):
            if member.isdir():
                continue
            split = split_name(member.name) if member.isreg() and member.name.isprintable() else None
            if split is None:
                yield Group(_printable(member.name), problem="is no member of a sample (KEY.COMPONENT, a regular file)")
                continue
            key, component = split
            if group is not None and group.key != key:
                yield group
                group = None
            group = group or Group(key)
            if component in group.components:
                group.problem = f"has the component {component!r} twice"
            _read(group, component, member.offset_data, member.size, reader, wanted)
    except ShardError as error:
        if group is not None:
            group.problem = group.problem or "is the last sample before the damaged part of the tar"
            yield group
        yield Group("", problem=str(error))
        return
    if group is not None:
        yield group


def _read(group: Group, component: str, offset: int, size: int, reader: HashedReader, wanted: Collection[str]) -> None:
    """Add a member to the group, with its bytes if they are wanted or hold a label."""
    is_label = component in LABELS
    if is_label and size > MAX_LABEL_BYTES:
        group.problem = f"has a {component} of {size} bytes; labels may have at most {MAX_LABEL_BYTES}"
    is_kept = component in wanted or (is_label and size <= MAX_LABEL_BYTES)
    body = reader.read(size) if is_kept else b""
    digest = xxhash.xxh3_128(body)
    for chunk in reader.chunks(0 if is_kept else size):
        digest.update(chunk)
    group.components[component] = (offset, size, digest.digest())
    if is_kept:
        group.data[component] = body


def _printable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()
