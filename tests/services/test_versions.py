"""Versions are made in real object stores as in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskstream.preprocess.versions import append, erase, merge, remove
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.verify import verify
from maskstream.shards.stores.output import open_output

from ..preprocess.versions.small_splits import contents, written
from .test_reading import uploaded

pytestmark = pytest.mark.services


@pytest.mark.parametrize("store", ["s3", "azure"])
def test_versions_in_a_store_are_those_of_a_folder(store: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    url = request.getfixturevalue(store)
    _, two, three = (written(tmp_path / name, first) for name, first in (("one", 0), ("two", 100), ("three", 200)))
    for name in ("one", "three"):
        uploaded(tmp_path / name, f"{url}/{name}")
    for place in (str(tmp_path), url):
        append(f"{place}/one", two)
        remove(f"{place}/one", ["k1"])
        merge(f"{place}/all", [f"{place}/one", f"{place}/three"])
        erase(f"{place}/one", ["k2", "k101"])
        merge(f"{place}/all", [f"{place}/one", f"{place}/three"])
        assert verify(f"{place}/all").problems == []
    assert three.exists()
    output = open_output(url)
    here = {name: data for name, data in contents(tmp_path).items() if not name.startswith("two/")}
    assert {name: output.whole(name, 1 << 30) for name in output.names()} == here
    assert Manifest.load(f"{url}/all").removed.tolist() == [1, 2, 7]
