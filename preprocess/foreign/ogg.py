"""Locates the packets of an Ogg stream in its pages (RFC 3533)."""

from __future__ import annotations

_HEAD = 27
_SERIAL = slice(14, 18)

Pieces = list[tuple[int, int]]
"""The offset and size of each piece of a packet; a packet that continues on the next page has several pieces."""


def ogg_packets(data: bytes) -> list[Pieces] | None:
    """All packets, including headers; None if there is more than one stream or a page is damaged."""
    packets: list[Pieces] = []
    open_packet: Pieces = []
    at, serial = 0, data[_SERIAL]
    while data[at : at + 4] == b"OggS":
        head = data[at : at + _HEAD]
        if len(head) < _HEAD or head[_SERIAL] != serial:
            return None
        lacing = data[at + _HEAD : at + _HEAD + head[26]]
        at += _HEAD + head[26]
        size = 0
        for length in lacing:
            size += length
            if length < 255:
                packets.append([*open_packet, (at, size)])
                open_packet, at, size = [], at + size, 0
        if size:
            open_packet, at = [*open_packet, (at, size)], at + size
        if at > len(data):
            return None
    return packets
