"""Pages to look at: what a loader yields, as one HTML file without any outside reference."""

from ..figures.pictures import Grid
from ..page import write_page
from .page import preview_page
from .split import preview

__all__ = ["Grid", "preview", "preview_page", "write_page"]
