"""A page with a picture of every masking scheme on real data, one file a kind of data."""

from .media import Media, first_clip
from .page import SCHEMES, gallery, gallery_page
from .scheme import Scheme

__all__ = ["SCHEMES", "Media", "Scheme", "first_clip", "gallery", "gallery_page"]
