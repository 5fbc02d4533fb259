"""Images: JPEG, PNG, WebP, PPM and PGM members, 8-bit grey or RGB, upright."""

from collections.abc import Iterator

import numpy as np

from maskstream.shards.errors import DataError
from maskstream.shards.media.image_header import check_image, detect_image_form

from .member import Kind, Member


def make_image_member(data: bytes, width: int, height: int) -> Member:
    """Return an encoded image as a member.

    Args:
        data: Bytes of the file.
        width: Width in pixels.
        height: Height in pixels.
    """
    return Member(kind=IMAGE.name, data=data, facts={"width": width, "height": height})


def find_image_problems(member: Member) -> Iterator[str]:
    """The image format is none of these."""
    if detect_image_form(member.data) is None:
        yield f"is not a JPEG, PNG, WebP, PPM or PGM file: it begins with {member.data[:8]!r}"


def find_image_decode_problems(member: Member) -> Iterator[str]:
    """Yield a problem if an image does not decode, or not to the size in the facts."""
    import cv2

    width, height = int(member.facts["width"]), int(member.facts["height"])
    try:
        check_image(member.data, width, height)
        pixels = cv2.imdecode(np.frombuffer(member.data, np.uint8), cv2.IMREAD_COLOR)
    except DataError as error:
        yield str(error)
        return
    except cv2.error as error:
        yield f"cannot be decoded ({' '.join(str(error).split())[:200]})"
        return
    if pixels is None:
        yield "cannot be decoded"
    elif (found := (pixels.shape[1], pixels.shape[0])) != (width, height):
        yield f"has {found[0]}x{found[1]} pixels, not {width}x{height}"


IMAGE = Kind(
    name="image", facts={"width": int, "height": int}, check=find_image_problems, decode=find_image_decode_problems
)
"""The kind of images. The crop in a batch is drawn from an image's size alone, before a byte of it is read."""
