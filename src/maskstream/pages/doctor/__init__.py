"""The mask doctor: scores masks by how well a linear autoencoder's features predict the labels, without training.

    moments = Moments.of(labelled_frames("data/shards/k400/train"))
    rows = examine(moments, shapes_of(16), ratios=(0.25, 0.5, 0.75, 0.9))

One pass over the samples collects second moments; after that each (shape, ratio) is a closed form, so the whole table
takes seconds. A linear model of small pictures is only a cheap first hint for a deep model of large ones. Source:
Learning by Reconstruction Produces Uninformative Features For Perception (Balestriero & LeCun 2024, linear denoising
autoencoders with masks).

    file          what is in it
    moments.py    sums over a stream of samples
    shapes.py     what a mask hides together: squares, rows, columns
    alignment.py  the closed form
    examine.py    all pairs, best first
    frames.py     labelled pictures out of shards of video
    table.py      the table for people
"""

from .alignment import Alignment, Shape, masked_alignment, plain_alignment, shapes_of, supervised_alignment
from .examine import Finding, examine, show
from .moments import MIDDLE_FRAME, Moments, labelled_frames

__all__ = [
    "MIDDLE_FRAME",
    "Alignment",
    "Finding",
    "Moments",
    "Shape",
    "examine",
    "labelled_frames",
    "masked_alignment",
    "plain_alignment",
    "shapes_of",
    "show",
    "supervised_alignment",
]
