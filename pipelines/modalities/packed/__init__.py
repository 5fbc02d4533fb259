"""Packed rows: the loader of images, clips and audio of any size, whose visible tokens fill rows."""
