"""Packed rows: the loader of pictures, clips and sounds of any size, whose visible tokens fill rows."""
