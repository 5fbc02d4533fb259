"""Several splits as the data of one run: their weights and maximum numbers of epochs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from maskstream.pipelines.masks.schedules import progress  # noqa: F401 (schedules that a file may name)
from maskstream.pipelines.stream.weights import Unit, Weight
from maskstream.shards.config import Config
from maskstream.shards.format.manifest import Manifest, join_label_names

SUFFIX = ".json"
"""File name suffix of a mixture; no split has it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MixtureSource(Config):
    """One split of a mixture.

    Attributes:
        data: Folder or URL of the split.
        weight: A number, a schedule over the run such as `masks.Linear`, or `BySize` (see `mix`).
        epochs: Maximum number of epochs; None for no limit.
        name: Name in metrics; by default, the end of the location.
        data_version: Version of the split; None for the current one.
    """

    data: str
    weight: Weight = 1
    epochs: float | None = None
    name: str | None = None
    data_version: int | None = None

    @property
    def called(self) -> str:
        """Name, or the last two parts of the location, such as kinetics/train."""
        return self.name or "/".join(self.data.rstrip("/").split("/")[-2:])


@dataclass(frozen=True, kw_only=True, slots=True)
class DataMixture(Config):
    """Two or more splits whose samples are mixed in every batch by weight.

    Attributes:
        sources: Splits of the mixture.
        unit: Unit of the weights if splits are packed into rows: "samples" or visible "tokens".

    Raises:
        ValueError: There are fewer than two sources, or two with the same name.
    """

    sources: tuple[MixtureSource, ...]
    unit: Unit = "samples"

    def validate(self) -> None:
        if len(self.sources) < 2:
            raise ValueError(
                f"a mixture needs at least two sources, got {len(self.sources)}; pass a single split by itself"
            )
        names = self.names
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(
                f"two sources are called {twice[0]!r}, but metrics are reported by name; choose a unique name for each"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the sources in metrics."""
        return tuple(source.called for source in self.sources)

    @classmethod
    def of(cls, data: Sequence[str | Path], weights: Sequence[float] | None = None) -> Self:
        """Create a mixture with constant weights, equal by default.

        Raises:
            ValueError: The numbers of splits and weights differ.
        """
        if weights is not None and len(weights) != len(data):
            raise ValueError(f"got {len(weights)} weights for {len(data)} splits; pass one for each")
        each = [1] * len(data) if weights is None else weights
        return cls(sources=tuple(MixtureSource(data=str(d), weight=w) for d, w in zip(data, each, strict=True)))

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a mixture from a JSON file written with `to_dict`.

        Raises:
            ValueError: The file contains no mixture, or names code.
        """
        try:
            made = json.loads(Path(path).read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise ValueError(
                f"{path} is not a mixture file ({error}); see `maskstream docs training#several-splits`"
            ) from error
        try:
            return cls.from_data(made)
        except ValueError as error:
            raise ValueError(f"the mixture in {path}: {error}") from error

    def at(self, locations: Sequence[str | Path]) -> Self:
        """Return the same mixture of splits that have moved.

        Raises:
            ValueError: The number of locations is wrong.
        """
        if len(locations) != len(self.sources):
            raise ValueError(
                f"got {len(locations)} locations for a mixture of {len(self.sources)} sources; pass one for each"
            )
        pairs = zip(self.sources, self.names, locations, strict=True)
        return replace(self, sources=tuple(replace(one, data=str(at), name=name) for one, name, at in pairs))

    def with_versions(self, versions: Sequence[int | None]) -> Self:
        """Return the same mixture with a version for each split."""
        pairs = zip(self.sources, versions, strict=True)
        return replace(self, sources=tuple(replace(one, data_version=version) for one, version in pairs))


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenMixture:
    """Mixture of open splits with a common label table (see `mix`).

    Raises:
        ValueError: Two splits contain the same samples.
    """

    mixture: DataMixture
    manifests: tuple[Manifest, ...]

    def __post_init__(self) -> None:
        names, seen = self.mixture.names, dict[str, str]()
        for name, manifest in zip(names, self.manifests, strict=True):
            if (other := seen.setdefault(manifest.fingerprint, name)) != name:
                raise ValueError(
                    f"the sources {other} and {name} are the same split ({manifest}), which would show each sample "
                    "twice at once; pass it once, with the sum of both weights"
                )
        joined = join_label_names(self.manifests)
        object.__setattr__(self, "manifests", tuple(one.with_labels(joined) for one in self.manifests))

    @property
    def parts(self) -> list[tuple[Manifest, Weight]]:
        """Splits with their weights, as `mix` expects them."""
        return [(one, source.weight) for one, source in zip(self.manifests, self.mixture.sources, strict=True)]

    @property
    def epochs(self) -> list[float | None] | None:
        """Maximum epochs of each split, as `mix` expects them."""
        found = [source.epochs for source in self.mixture.sources]
        return found if any(found) else None


def parse_mixture(data: Sequence[str], weights: str | None = None) -> str | DataMixture:
    """Parse a command line's locations and weights: one location, a mixture of several, or a JSON file with one.

    Raises:
        ValueError: The weights do not fit the locations.
    """
    if len(data) > 1:
        if files := [one for one in data if one.endswith(SUFFIX)]:
            raise ValueError(
                f"--data {files[0]} is a mixture file, so it must be the only --data; add the other splits to the file"
            )
        return DataMixture.of(data, None if weights is None else _parse_weights(weights))
    if weights is not None:
        raise ValueError(f"--weights {weights} needs several splits, got one --data; pass --data for each of them")
    return DataMixture.read(data[0]) if data[0].endswith(SUFFIX) else data[0]


def _parse_weights(text: str) -> list[float]:
    """Parse "0.7,0.3"; integers remain integers.

    Raises:
        ValueError: The text contains anything else.
    """
    found = list[float]()
    for word in text.split(","):
        try:
            number = float(word)
        except ValueError:
            number = math.nan
        if not (math.isfinite(number) and number > 0):
            raise ValueError(
                f"--weights {text}: {word.strip()!r} is not a number above 0; pass one for each --data, such as "
                "0.7,0.3. For weights that change over the run, use a mixture file "
                "(`maskstream docs training#several-splits`)"
            )
        found.append(int(number) if number.is_integer() else number)
    return found


RunData = Manifest | OpenMixture
"""Open data of a run: a split or a mixture."""


def list_manifests(data: RunData) -> tuple[Manifest, ...]:
    """Return the splits of a run's data in order."""
    return data.manifests if isinstance(data, OpenMixture) else (data,)
