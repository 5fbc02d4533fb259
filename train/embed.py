"""The features of all samples of a split, as a table in Parquet."""

import logging
import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from maskstream.pipelines.modalities.audio.data import AudioData
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.modalities.packed.data import PackedData
from maskstream.shards.format.manifest import Manifest, SplitLocation
from maskstream.shards.stores.local_files import sync_folder
from maskstream.shards.stores.url import local_path

from .core.export import find_files, load_model, part_name, weights_sum
from .core.process import compute_threads
from .core.recipe import check_modality
from .core.run_folder import run_recipe, run_weights
from .evaluate.features import GivesFeatures, without_augmentation
from .exports import split_of_run

log = logging.getLogger(__name__)

FeatureType = Literal["float32", "float16"]
FILE_ROWS = 1 << 20
"""The most samples of a file, by default."""
GROUP_ROWS = 4096
"""The most samples of a row group, which are in memory at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Embedded:
    """What was written. width: of the features. skipped: samples that could not be read, which are left out."""

    files: tuple[Path, ...]
    samples: int
    width: int
    skipped: int


def embed_run(
    run: str | Path,
    data: SplitLocation,
    out: str | Path,
    *,
    dtype: FeatureType = "float32",
    batch_size: int = 64,
    file_rows: int = FILE_ROWS,
    device: torch.device,
    workers: int = 0,
) -> Embedded:
    """Writes the features that a run's encoder gives of all samples of a split, in the split's order, to `out`.

    A row has the sample's `key`, its `label` int64 (-1 without one) and its `features`, a list of D numbers of `dtype`.
    A split of more than `file_rows` samples is written to several files: `features-00000-of-00003.parquet` and so on.
    The order does not depend on batch size, workers or device. Nothing is augmented, no token is hidden. At most some
    thousand samples are in memory, and the files get their names when all are whole. Their metadata say which weights
    and which version of the split they are of.

    ValueError for a model without features, a split of another modality, an `out` that is there or is no .parquet.
    """
    run, out = local_path(run, "the run"), local_path(out, "out")
    if dtype not in get_args(FeatureType):
        raise ValueError(f"features are {' or '.join(get_args(FeatureType))}, got {dtype!r}")
    if min(batch_size, file_rows) < 1:
        raise ValueError(f"batch_size and file_rows are 1 or more, got {batch_size} and {file_rows}")
    if out.suffix != ".parquet":
        raise ValueError(f"{out} does not end in .parquet; name a file such as features.parquet")
    if any(path.exists() for path in find_files(out)):
        raise ValueError(f"{out} is there; give another name, or delete it")
    recipe, weights, split = run_recipe(run), run_weights(run), Manifest.load(data)
    check_modality(recipe, split)
    model = load_model(weights).to(device)
    if not isinstance(model, GivesFeatures):
        raise ValueError(f"a {type(model).__name__} gives no features of whole samples")
    config = without_augmentation(recipe.data, split_of_run(run) if isinstance(recipe.data, AudioData) else split)
    about = {
        "recipe": recipe.name,
        "weights": weights_sum(weights)[0],
        "split": str(split.location),
        "version": str(split.version),
        "fingerprint": split.fingerprint,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent, prefix=f".{out.stem}.") as folder, compute_threads(device):
        with closing(_rows(model, config, split, batch_size, device, workers)) as rows:
            made, samples, width = _write(_tables(rows, file_rows, dtype, about), Path(folder), file_rows)
        files = tuple(out.parent / part_name(out.name, part, len(made)) for part in range(len(made)))
        for path, name in zip(made, files, strict=True):
            path.replace(name)
    sync_folder(out.parent)
    if samples < len(split):
        log.warning(
            "%d of %d samples of %s could not be read and are left out", len(split) - samples, len(split), split
        )
    return Embedded(files=files, samples=samples, width=width, skipped=len(split) - samples)


def read_features(path: str | Path) -> tuple[list[str], Tensor, Tensor]:
    """The keys, the features float32 (n, D) and the labels int64 (n,) that `embed_run` wrote to `path`, of all its
    files. ValueError if there is none, or if some are missing.
    """
    found = find_files(local_path(path, "the features"))
    if not found[0].is_file():
        raise ValueError(f"there is no {path}, nor all files of it; give what `maskstream embed --out` was given")
    table = pa.concat_tables(pq.read_table(one) for one in found)
    lists = table["features"].combine_chunks()
    values = lists.values.to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(lists), -1)
    return table["key"].to_pylist(), torch.from_numpy(values), torch.from_numpy(table["label"].to_numpy().copy())


def _rows(
    model: GivesFeatures, config: DataConfig[Any], split: Manifest, size: int, device: torch.device, workers: int
) -> Generator[tuple[list[str], Tensor, Tensor], None, None]:
    """The keys, labels and features of the samples of each batch, in the order of the split. Where a sample could not
    be read, the loader gives another one: it is left out.
    """
    packed = isinstance(config, PackedData)
    options: Any = {"shuffle": False, "device": "cpu", "workers": workers, "rank": 0, "world_size": 1}
    seen: set[str] = set()
    place = 0
    with closing(config.whole().loader(split, batch_size=1 if packed else size, **options)) as loader:
        for batch in loader:
            real = [True] * len(batch) if batch.weight is None else (batch.weight > 0).tolist()
            if packed:
                kept = [row for row, key in enumerate(batch.key) if real[row] and key not in seen]
                seen.update(batch.key)
            else:
                own = split.keys(range(place, min(place + len(batch), len(split))))
                kept = [row for row, key in enumerate(own) if batch.key[row] == key]
                place += len(batch)
            with torch.no_grad():
                found = model.features(batch.to(device)).float().cpu()
            yield [batch.key[row] for row in kept], batch.label[kept], found[kept]


def _tables(
    rows: Iterator[tuple[list[str], Tensor, Tensor]], file_rows: int, dtype: FeatureType, about: Mapping[str, str]
) -> Iterator[pa.Table]:
    """Row groups, none of which lies in two files of `file_rows`."""
    waiting: list[pa.Table] = []
    count, left = 0, file_rows
    for keys, labels, features in rows:
        values = pa.array(features.numpy().astype(dtype).ravel())
        kind = pa.list_(values.type, features.shape[1])
        names = {"key": pa.array(keys, pa.string()), "label": pa.array(labels.numpy())}
        columns = {**names, "features": pa.FixedSizeListArray.from_arrays(values, type=kind)}
        waiting.append(pa.table(columns).replace_schema_metadata(dict(about)))
        count += len(keys)
        while count >= (size := min(GROUP_ROWS, left)):
            table = pa.concat_tables(waiting)
            yield table.slice(0, size)
            waiting, count, left = [table.slice(size)], count - size, left - size or file_rows
    if count:
        yield pa.concat_tables(waiting)


def _write(tables: Iterator[pa.Table], folder: Path, file_rows: int) -> tuple[list[Path], int, int]:
    """Writes row groups to files of `file_rows` rows; returns these, the number of rows and the width of a feature."""
    made: list[Path] = []
    samples, width = 0, 0
    with ExitStack() as files:
        for table in tables:
            if samples % file_rows == 0:
                files.close()
                made.append(folder / f"{len(made)}.parquet")
                stream = files.enter_context(made[-1].open("xb"))
                files.callback(os.fsync, stream.fileno())
                files.callback(stream.flush)
                writer = files.enter_context(pq.ParquetWriter(stream, table.schema, compression="zstd"))
            writer.write_table(table, row_group_size=len(table))
            samples, width = samples + len(table), table.schema.field("features").type.list_size
    if not made:
        raise ValueError("no sample of the split could be read, so there are no features")
    return made, samples, width
