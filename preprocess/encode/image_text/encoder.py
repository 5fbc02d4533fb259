"""Images with texts for shards: images as `ImageEncoder` stores them, and the tokens of all texts in one member.

A sample has

- its first image as `jpg`, `png` or `webp`, the second as `1.jpg` and so on: any number of them;
- `texts.npy`, the tokens of all texts, whose roles and lengths are in the manifest (shards/members/text.py);
- `words.npy`, the number of each token's word within its text;
- `boxes.npy`, float32 (n, 4), the box of each phrase, if the source has boxes;
- `segments.npy`, uint8 (n, H, ceil(W / 8)), the pixels of each phrase with one bit per pixel, the first in the highest
  bit, if the source has segments;
- `json`, with the original texts.

The texts of a source are in its `meta`: each role's text or list of texts, and the boxes of its phrases.

    {"caption": "A lion.", "question": ["What is it?", "Is it a cat?"], "answer": ["a lion", "yes"],
     "phrase": ["the left lion"], "box": [[12, 40, 80, 60]]}

Texts of several roles belong together by their number: question 1 and answer 1. A box is the x, y, width and height of
the object of a phrase, in pixels of the first image.

The pixels of a phrase have the format of COCO's instances.json, and are rasterised by COCO's rules (pycocotools):

    {"phrase": ["the left lion"], "segment": [[[12, 40, 92, 40, 92, 100]]]}

A segment is the union of a list of polygons, each x0, y0, x1, y1, ... in pixels of the first image; or runs:
{"size": [height, width], "counts": [...]}, lengths of runs of 0 and 1 in turn, down the columns, or the same as a
compressed string. Source: Lin et al., Microsoft COCO, ECCV 2014, and the COCO API's description of masks.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import cv2
import numpy as np

from maskstream.preprocess.encode.encoder import Encoded, made_of
from maskstream.preprocess.encode.image.encoder import ImageEncoder, encoded
from maskstream.preprocess.encode.text.tokenizer import (
    TokenizedEncoder,
    UntrainedEncoder,
    list_training_texts,
    make_tokenizer,
    number_words,
    unpack_tokenizer,
)
from maskstream.preprocess.source import RejectError, Source
from maskstream.shards.arrays import Bools, Float32s, UInt8s
from maskstream.shards.errors import DatasetError
from maskstream.shards.members.arrays import array_member
from maskstream.shards.members.image import make_image_member
from maskstream.shards.members.member import Member
from maskstream.shards.members.text import ROLES, make_texts_member, make_tokens_member

SEGMENT = "segment"
_BEYOND = 1.0
"""A polygon may lie this many pixels outside its image."""


def mask_module() -> Any:
    """Return the module `pycocotools.mask`. Raise DatasetError if it is not installed."""
    try:
        from pycocotools import mask
    except ImportError as error:
        raise DatasetError("COCO segments need pycocotools. Run `pip install 'maskstream[coco]'`") from error
    return mask


def draw_segments(meta: Mapping[str, Any], phrases: int, width: int, height: int) -> Bools | None:
    """Rasterise the segment of each phrase.

    Args:
        meta: Metadata of the source, with its segments.
        phrases: Number of phrases.
        width: Width of the image in pixels.
        height: Height of the image in pixels.

    Returns:
        bool (n, height, width); None for a source without segments.

    Raises:
        RejectError: The number of segments differs, or one is malformed or does not fit the image.
        DatasetError: pycocotools is not installed.
    """
    if SEGMENT not in meta:
        return None
    given = meta[SEGMENT]
    if not isinstance(given, Sequence) or len(given) != phrases:
        raise RejectError("check", f"has {len(given)} segments for {phrases} phrases")
    drawn: list[Bools] = []
    for n, one in enumerate(given):
        drawn.append(drawn[-1] if n and one is given[n - 1] else draw_segment(one, width, height))
    return np.stack(drawn) if drawn else np.empty((0, height, width), np.bool_)


def draw_segment(segment: Any, width: int, height: int) -> Bools:
    """Rasterise one segment, bool (height, width)."""
    mask = mask_module()
    try:
        if isinstance(segment, Mapping):
            if list(segment["size"]) != [height, width]:
                raise ValueError(f"it has the size {segment['size']}, but the image {[height, width]}")
            runs = (
                [mask.frPyObjects(dict(segment), height, width)] if isinstance(segment["counts"], list) else [segment]
            )
        else:
            runs = mask.frPyObjects([_parse_polygon(one, width, height) for one in segment], height, width)
        if not runs:
            raise ValueError("it has no polygon")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # pycocotools uses deprecated NumPy calls
            found = np.asarray(mask.decode(mask.merge(runs)), np.bool_)
    except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
        raise RejectError("check", f"has a segment that is neither COCO polygons nor runs ({error})") from error
    if found.shape != (height, width):
        raise RejectError("check", f"has a segment of {found.shape}, but its image is {(height, width)}")
    return found


def _parse_polygon(points: Any, width: int, height: int) -> list[float]:
    """Return the polygon, x and y alternating. Raise ValueError if it has fewer than three points, or lies outside the
    image.
    """
    places = np.array(points, np.float64)
    if places.ndim != 1 or len(places) < 6 or len(places) % 2:
        raise ValueError(f"a polygon needs three or more points, x and y alternating, got the shape {places.shape}")
    beyond = np.maximum(-places, places - np.tile([width, height], len(places) // 2))
    if not (beyond <= _BEYOND).all():
        raise ValueError(f"a polygon lies outside the image of {width}x{height} pixels")
    return [float(one) for one in places]


BOX = "box"


def read_texts(meta: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the role and text of each text, in the order of `ROLES`. Raise RejectError if one is not valid text."""
    found = []
    for role in ROLES:
        given = meta.get(role, [])
        for text in given if isinstance(given, list | tuple) else [given]:
            if not isinstance(text, str):
                raise RejectError("decode", f"its {role} is {type(text).__name__}, not text")
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise RejectError(
                    "decode", f"its {role} is not valid Unicode (character {error.start}: {error.reason})"
                ) from error
            found.append((role, text))
    return found


def read_boxes(meta: Mapping[str, Any], width: int, height: int) -> Float32s | None:
    """Return the box of each phrase.

    Args:
        meta: Metadata of the source, with its boxes.
        width: Width of the image in pixels.
        height: Height of the image in pixels.

    Returns:
        float32 (n, 4), x0, y0, x1, y1 as fractions of the image; None for a source without boxes.

    Raises:
        RejectError: A box lies outside the image, or the number of boxes differs.
    """
    if BOX not in meta:
        return None
    phrases = sum(role == "phrase" for role, _ in read_texts(meta))
    try:
        boxes = np.array(meta[BOX], np.float64).reshape(-1, 4)
    except (ValueError, TypeError) as error:
        raise RejectError("decode", f"its boxes are not x, y, width, height for each phrase ({error})") from error
    if len(boxes) != phrases:
        raise RejectError("check", f"has {len(boxes)} boxes for {phrases} phrases")
    corners = np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), axis=1) / [width, height, width, height]
    shown = corners.clip(0, 1)
    if not np.isfinite(corners).all() or (shown[:, 2:] <= shown[:, :2]).any():
        raise RejectError("check", f"a box lies outside the image of {width}x{height} pixels: {meta[BOX]}")
    return shown.astype(np.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawnScene:
    """A generated image.

    Attributes:
        pixels: uint8 (H, W, 3), BGR.
        boxes: Box of the object of each phrase, x0, y0, x1, y1 as fractions of the image, float32 (n, 4).
        segments: Pixels of these objects, bool (n, H, W).
    """

    pixels: UInt8s
    boxes: Float32s
    segments: Bools


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageMembers:
    """The images of a sample as members, the facts about the first for its json, and the boxes and segments of
    phrases.
    """

    members: dict[str, Member]
    about: dict[str, Any]
    boxes: Float32s | None = None
    segments: Bools | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageTextEncoder(UntrainedEncoder):
    """The settings of an encoder of images with texts.

    Attributes:
        image: Encoder of the images.
    """

    modality: ClassVar[str] = "image-text"

    image: ImageEncoder = field(default_factory=ImageEncoder)

    def prepared(self, sources: Mapping[str, Sequence[Source]]) -> ImageTokenEncoder:
        """Return the encoder with its tokenizer, trained on the `sources` by split if needed. Raise ValueError if the
        tokenizer cannot be used.
        """
        texts = list_training_texts(sources, lambda source: [text for _, text in read_texts(source.meta)])
        definition, facts = make_tokenizer(self.tokenizer, texts)
        return ImageTokenEncoder(tokenizer=facts, image=self.image, definition=zlib.compress(definition))


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageTokenEncoder(TokenizedEncoder):
    """Encodes images with texts by a tokenizer."""

    modality: ClassVar[str] = "image-text"

    image: ImageEncoder = field(default_factory=ImageEncoder)

    def encode(self, source: Source) -> Encoded:
        """Encode the images (`path` and `parts`) and the texts (in `meta`) of a source.

        Args:
            source: Source to encode; its `made_by` creates a `DrawnScene`.

        Raises:
            RejectError: An image cannot be used, or a text has no tokens.
        """
        scene = made_of(source, DrawnScene)
        drawn = self._pictures(source) if scene is None else self._drawn(scene)
        members = drawn.members
        tokenizer = unpack_tokenizer(self.definition)
        texts = [(role, tokenizer.encode(text, add_special_tokens=False)) for role, text in read_texts(source.meta)]
        if empty := [role for role, encoding in texts if not encoding.ids]:
            raise RejectError("check", f"its {empty[0]} has no tokens")
        if not texts:
            raise RejectError("check", "has no text")
        ids = [(role, np.array(encoding.ids, np.int64)) for role, encoding in texts]
        members["texts.npy"] = make_texts_member(ids, below=self.tokenizer.vocabulary)
        members["words.npy"] = make_tokens_member(np.concatenate([number_words(encoding) for _, encoding in texts]))
        if drawn.boxes is not None:
            members["boxes.npy"] = array_member(drawn.boxes)
        if drawn.segments is not None:
            members["segments.npy"] = array_member(np.packbits(drawn.segments, axis=-1))
        return Encoded(members=members, meta=drawn.about)

    def _pictures(self, source: Source) -> ImageMembers:
        """Encode the images of a source, and the boxes of its phrases."""
        first = self.image.encode(source)
        members = dict(first.members)
        for number, path in enumerate(source.parts, 1):
            ((form, member),) = self.image.encode(Source(id=source.id, path=path)).members.items()
            members[f"{number}.{form}"] = member
        whole = first if self.image.short_side is None else replace(self.image, short_side=None).encode(source)
        size = whole.meta["width"], whole.meta["height"]
        phrases = sum(role == "phrase" for role, _ in read_texts(source.meta))
        segments = draw_segments(source.meta, phrases, *size)
        if segments is not None and size != (stored := (first.meta["width"], first.meta["height"])):
            segments = np.stack([_resize_segment(one, stored) for one in segments])
        return ImageMembers(members=members, about=first.meta, boxes=read_boxes(source.meta, *size), segments=segments)

    def _drawn(self, scene: DrawnScene) -> ImageMembers:
        """Encode a generated image."""
        height, width = scene.pixels.shape[:2]
        png = make_image_member(encoded(scene.pixels, "png", self.image.quality), width, height)
        about = {"width": width, "height": height}
        if not len(scene.boxes):
            return ImageMembers(members={"png": png}, about=about)
        return ImageMembers(members={"png": png}, about=about, boxes=scene.boxes, segments=scene.segments)


def _resize_segment(segment: Bools, size: tuple[int, int]) -> Bools:
    """Resize a segment to a width and height: a pixel belongs to it if at least half of it is covered."""
    return np.asarray(cv2.resize(segment.astype(np.float32), size, interpolation=cv2.INTER_AREA) >= 0.5)
