"""Packed rows: the loader of pictures of any size, whose visible tokens fill rows."""
