"""The map of features: samples by the two main components of the features that `maskstream embed` wrote."""

from pathlib import Path

import numpy as np

from maskstream.modality import Modality
from maskstream.shards.format.manifest import Manifest
from maskstream.train.embed import read_features

from .figures.card import Card, Point, Scatter, Section, label_names, label_words
from .figures.pictures import spread
from .figures.words import percent, plural, short_key
from .page import page, write_page
from .preview import first_batch

SHOWN, MOST_POINTS = 48, 4000
_WORDS = (
    "Each point is a sample, in the colour of its label, placed along the two directions in which the features "
    "vary most (PCA). Hover over a point for its key and label; large ones link to their samples below."
)


def write_map(modality: Modality, manifest: Manifest, features: str | Path, out: str | Path) -> Path:
    """Write a map of the features of a split, with the first samples of a training epoch.

    Args:
        modality: Modality of the split.
        manifest: The split.
        features: File of the features.
        out: HTML file.

    Returns:
        `out`.

    Raises:
        ValueError: There are fewer than three samples, or values are not finite.
    """
    keys, values, labels = read_features(features)
    x = values.double().numpy()
    if len(x) < 3 or not np.isfinite(x).all():
        raise ValueError(
            f"a map needs 3 or more samples with finite features, but {features} has {len(x)}; embed a split"
        )
    x = x - x.mean(axis=0)
    variances, directions = np.linalg.eigh(x.T @ x)
    places = x @ directions[:, :-3:-1]
    names, data = label_names(manifest.info), modality.shown(manifest)
    batch, figures = first_batch(data, manifest, SHOWN, 0), modality.figures(data, manifest)
    cards = [figures.sample(batch, i) for i in range(len(batch))]
    links = {card.key: f"#sample-{number}" for number, card in enumerate(cards, start=1)}
    some = {*spread(len(x), MOST_POINTS).tolist()}
    low, high = places.min(axis=0), places.max(axis=0)
    flat = (places - low) / np.where(high > low, high - low, 1.0)
    points = [
        Point(
            x=float(flat[i, 0]),
            y=1 - float(flat[i, -1]),
            hue=int(labels[i]),
            words=", ".join(filter(None, (short_key(key), label_words(int(labels[i]), names)))),
            link=links.get(key, ""),
        )
        for i, key in enumerate(keys)
        if i in some or key in links
    ]
    share = percent(float(variances[:-3:-1].sum() / max(variances.sum(), 1e-12)))
    scatter = Scatter(points=tuple(sorted(points, key=lambda one: one.link)), alt="samples by two components")
    card = Card(key="map", title="The map", words=f"{share} of the variance", figures=(scatter,))
    text = page(
        kind="features",
        title=f"Features of {plural(len(keys), 'sample')} of {manifest.info['dataset']}/{manifest.info['split']}",
        lede=_WORDS,
        facts={"features": f"{x.shape[1]} numbers a sample, {features}", "location": manifest.location},
        sections=(Section(cards=(card,), layout="wide"), Section(title="Samples", cards=tuple(cards))),
    )
    return write_page(text, out)
