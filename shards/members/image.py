"""Pictures: JPEG, PNG and WebP members, 8-bit grey or RGB, upright."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from .member import Kind, Member

_FORMS = {b"\xff\xd8\xff": "jpg", b"\x89PNG\r\n\x1a\n": "png", b"RIFF": "webp"}


def image_form(data: bytes) -> str | None:
    """jpg, png or webp, by the first bytes of a picture; None where it is none of them."""
    return next((form for magic, form in _FORMS.items() if data.startswith(magic)), None)


def image_member(data: bytes, width: int, height: int) -> Member:
    """A picture of width x height pixels as a member."""
    return Member(kind=IMAGE.name, data=data, facts={"width": width, "height": height})


def image_problems(member: Member) -> Iterator[str]:
    """A form that is none of the three."""
    if image_form(member.data) is None:
        yield f"is no JPEG, PNG or WebP file: it begins with {member.data[:8]!r}"


def image_decode_problems(member: Member) -> Iterator[str]:
    """A picture that does not decode, or not to the size that the facts say."""
    try:
        pixels = cv2.imdecode(np.frombuffer(member.data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        yield f"cannot be decoded ({' '.join(str(error).split())[:200]})"
        return
    if pixels is None:
        yield "cannot be decoded"
    elif (found := (pixels.shape[1], pixels.shape[0])) != (wanted := (member.facts["width"], member.facts["height"])):
        yield f"has {found[0]}x{found[1]} pixels, not {wanted[0]}x{wanted[1]}"


IMAGE = Kind(name="image", facts={"width": int, "height": int}, check=image_problems, decode=image_decode_problems)
"""The kind of pictures. Where one begins in a batch is drawn from its size alone, before a byte of it is read."""
