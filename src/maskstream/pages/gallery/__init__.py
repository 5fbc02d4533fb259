"""A page with an image of every masking scheme on real data, one file per kind of data."""

from .own import own_gallery
from .page import gallery, gallery_page
from .scheme import Media, first_clip

__all__ = ["Media", "first_clip", "gallery", "gallery_page", "own_gallery"]
