"""A page with a picture of every masking scheme on real data, one file a kind of data."""

from .media import Media, first_clip
from .page import gallery, gallery_page

__all__ = ["Media", "first_clip", "gallery", "gallery_page"]
