"""The map of features: samples lie where the components say, and lead to their cards."""

import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from maskstream.modalities import MODALITIES
from maskstream.pages.embedded import write_map
from maskstream.pages.preview import preview
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.members.text import json_member

from ..pipelines.every_modality import LOADERS, write_split
from .pages import Page, complete_in_itself


def write_features(path, keys, values):
    columns = {
        "key": keys,
        "label": np.arange(len(keys)) % 2,
        "features": pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1]),
    }
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("name", ["image", "text"])
def test_samples_lie_along_the_direction_in_which_features_vary(name, tmp_path):
    manifest = Manifest.load(write_split(name, tmp_path))
    keys = manifest.keys(range(len(manifest)))
    along = np.random.default_rng(0).permutation(len(keys)).astype(np.float32)
    values = along[:, None] * np.array([[3, 4, 0]], np.float32) + np.random.default_rng(1).normal(
        0, 0.1, (len(keys), 3)
    )
    features = write_features(tmp_path / "f.parquet", keys, values.astype(np.float32))
    text = write_map(MODALITIES[name], manifest, features, tmp_path / "map.html").read_text()
    complete_in_itself(text)
    found = re.findall(r'(?:href="#(sample-\d+)"[^>]*>)?<circle cx="([\d.]+)"[^>]*><title>([^<,]+)', text)
    places = {key: float(x) for _, x, key in found}
    assert set(places) == set(keys)
    order = np.argsort([places[key] for key in keys])
    assert (np.diff(along[order]) > 0).all() or (np.diff(along[order]) < 0).all()
    for link, _, key in found:
        assert link == "" or re.search(f'id="{link}" data-key="{key}"', text)
    assert sum(link != "" for link, _, _ in found) == len(Page(text).articles) - 1 > 5


def test_features_that_make_no_map_are_refused(tmp_path):
    manifest = Manifest.load(write_split("image", tmp_path))
    features = write_features(tmp_path / "f.parquet", ["a", "b"], np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match="3 or more"):
        write_map(MODALITIES["image"], manifest, features, tmp_path / "map.html")


def test_signals_of_a_split_stand_on_the_cards_of_its_samples(tmp_path):
    def with_signals(raw):
        made = LOADERS["image"].samples(raw)
        return [
            replace(one, members={**one.members, "json": json_member({}, {"sharpness": n + 0.5})})
            for n, one in enumerate(made)
        ]

    folder = write_split("image", tmp_path, with_signals)
    manifest = Manifest.load(folder)
    keys = manifest.keys(range(len(manifest)))
    page = Page(preview(MODALITIES["image"], manifest, out=tmp_path / "a.html", samples=3).read_text())
    for article in page.articles:
        assert f"sharpness {keys.index(article.attributes('article', 'data-key')[0]) + 0.5:g}" in article.text
