"""A page with an image of every masking scheme on real data, and one of chosen masks on samples of a split."""

from .page import gallery, gallery_page, own_gallery
from .scheme import Media, first_clip

__all__ = ["Media", "first_clip", "gallery", "gallery_page", "own_gallery"]
