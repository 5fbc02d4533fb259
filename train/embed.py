"""Computes the features of all samples of a split and writes them as a Parquet table."""

import logging
import shutil
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from maskstream.pipelines.modalities.audio.data import AudioData
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.modalities.packed.data import PackedData
from maskstream.pipelines.stream.topology import usable_device
from maskstream.shards.format.manifest import Manifest, SplitLocation
from maskstream.shards.keywords import takes_fields
from maskstream.shards.progress import Progress
from maskstream.shards.stores.local_files import publishing, remove_leftovers, sole_writer, sync_folder
from maskstream.shards.stores.url import get_local_path

from .core.options import EmbedOptions, FeatureType
from .core.process import compute_threads
from .core.recipe import check_modality
from .core.run_folder import run_recipe, run_weights
from .core.weights import compute_weights_sum, find_files, load_model, part_name
from .evaluate.features import GivesFeatures, drop_augmentation, from_middle
from .export.run import split_of_run

log = logging.getLogger(__name__)

GROUP_ROWS = 4096
"""Largest number of samples in a row group. The samples of a row group are in memory at once."""
NEXT = "next"
"""Metadata key of a file; its value is the first batch, and the first row of it, that no file has yet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Embedded:
    """The result of `write_embeddings`.

    Attributes:
        files: Parquet files, in order.
        samples: Number of samples written.
        width: Number of features per sample.
        skipped: Number of unreadable samples, which have no row.
    """

    files: tuple[Path, ...]
    samples: int
    width: int
    skipped: int


@dataclass(frozen=True, slots=True)
class _Rows:
    """Readable samples of a batch that have not been written yet; `end` is the first row after them in the batch."""

    batch: int
    keys: list[str]
    labels: Tensor
    features: Tensor
    end: int


@dataclass(frozen=True, slots=True)
class _Made:
    """Files that are complete so far; `batch` and `row` are the first batch, and its first row, that is not in any
    file.
    """

    files: tuple[Path, ...] = ()
    samples: int = 0
    width: int = 0
    batch: int = 0
    row: int = 0


@takes_fields(EmbedOptions)
def write_embeddings(
    run: str | Path,
    data: SplitLocation,
    out: str | Path,
    options: EmbedOptions,
) -> Embedded:
    """Write the features that a run's encoder computes for all samples of a split, in the split's order.

    A row has the sample's `key`, its `label` int64 (-1 without one) and its `features`, a list of D numbers of `dtype`.
    The order does not depend on batch size, workers or device. Nothing is augmented and no token is hidden. At most a
    few thousand samples are in memory. Files are named once all are complete; until then they are in a hidden folder
    next to `out`, and after a kill the same call continues after the last complete one. Their metadata contain the
    checksum of the weights and the version of the split.

    Args:
        run: Folder of the run.
        data: Location of the split.
        out: The .parquet file to write. A split of more than `file_rows` samples is written to several files:
            `features-00000-of-00003.parquet` and so on.
        options: The fields of `EmbedOptions`.

    Returns:
        The files, and the number of samples written and skipped.

    Raises:
        ValueError: The model has no features, the split has another modality or no readable sample, `out` exists or is
            not a .parquet file, or unfinished files have other weights, samples or options.
    """
    device, progress = usable_device(options.device), options.progress
    run, out = get_local_path(run, "the run"), get_local_path(out, "out")
    if out.suffix != ".parquet":
        raise ValueError(f"{out} must end in .parquet, such as features.parquet")
    if any(path.exists() for path in find_files(out)):
        raise ValueError(f"{out} already exists; pass a different name, or delete it")
    recipe, weights, split = run_recipe(run), run_weights(run), Manifest.load(data)
    check_modality(recipe, split)
    model = load_model(weights).to(device)
    if not isinstance(model, GivesFeatures):
        raise ValueError(f"{type(model).__name__} has no features of whole samples")
    whole = drop_augmentation(recipe.data, split_of_run(run) if isinstance(recipe.data, AudioData) else split)
    config = from_middle(whole)
    about = {
        "recipe": recipe.name,
        "weights": compute_weights_sum(weights)[0],
        "split": str(split.location),
        "version": str(split.version),
        "fingerprint": split.fingerprint,
    }
    about |= {} if config == whole else {"start": "center"}  # unfinished files of older releases have random clips
    about |= {name: str(getattr(options, name)) for name in ("dtype", "batch_size", "file_rows")}
    folder = out.parent / f".{out.stem}.partial"
    with sole_writer(folder):
        made = _read_made(folder, about)
        if made.files:
            log.info("%s already has %d of %d samples; continuing after them", folder, made.samples, len(split))
        progress.phase(f"embedding {split.location}", len(split), made.samples, "samples")
        with compute_threads(device), closing(_rows(model, config, split, options, device, made)) as rows:
            made = _write(_count_written(rows, progress), folder, made, options.file_rows, options.dtype, about)
        files = [out.parent / part_name(out.name, part, len(made.files)) for part in range(len(made.files))]
        for path, name in reversed(list(zip(made.files, files, strict=True))):  # a kill leaves the first files
            path.replace(name)
    shutil.rmtree(folder)
    if not files:
        raise ValueError("none of the split's samples could be read, so no features were written")
    sync_folder(out.parent)
    samples = made.samples
    if samples < len(split):
        log.warning(
            "%d of %d samples of %s could not be read and are left out", len(split) - samples, len(split), split
        )
    return Embedded(files=tuple(files), samples=samples, width=made.width, skipped=len(split) - samples)


def read_features(path: str | Path) -> tuple[list[str], Tensor, Tensor]:
    """Return the table that `write_embeddings` wrote, from all its files.

    Args:
        path: The `out` of `write_embeddings`.

    Returns:
        The keys, the features float32 (n, D) and the labels int64 (n,).

    Raises:
        ValueError: Files are missing, or have other columns or nulls.
    """
    found = find_files(get_local_path(path, "the features"))
    if not found[0].is_file():
        raise ValueError(
            f"{path} does not exist, or some of its files are missing; use the path passed to `maskstream embed --out`"
        )
    try:
        table = pa.concat_tables(pq.read_table(one, columns=["key", "label", "features"]) for one in found)
    except pa.ArrowException as error:
        raise ValueError(f"{path} is not a table of `maskstream embed` ({str(error).splitlines()[0]})") from error
    lists = table["features"].combine_chunks()
    if not pa.types.is_fixed_size_list(lists.type):
        raise ValueError(f"{path}: `features` is {lists.type}, not lists of equal length as `maskstream embed` writes")
    for name, column in (*zip(table.column_names, table.columns, strict=True), ("features", lists.values)):
        if column.null_count:
            raise ValueError(
                f"{path}: `{name}` has {column.null_count} nulls; `maskstream embed` writes none. Remove the rows or "
                "run it again"
            )
    values = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(lists), -1)
    return table["key"].to_pylist(), torch.from_numpy(values), torch.from_numpy(table["label"].to_numpy().copy())


def _read_made(folder: Path, about: Mapping[str, str]) -> _Made:
    """Return the complete files that an earlier call left in `folder`; raise ValueError if its settings were
    different.
    """
    remove_leftovers(folder)
    made = _Made()
    for path in sorted(folder.glob("*.parquet")):
        told = {name.decode(): value.decode() for name, value in pq.read_metadata(path).metadata.items()}
        if wrong := [
            f"{name} {told.get(name)}, not {value}" for name, value in about.items() if told.get(name) != value
        ]:
            raise ValueError(
                f"{folder} contains unfinished features of {'; '.join(wrong)}; delete it, or pass a different out"
            )
        batch, row = map(int, told[NEXT].split())
        samples = made.samples + pq.read_metadata(path).num_rows
        made = _Made((*made.files, path), samples, int(told["width"]), batch, row)
    return made


def _rows(
    model: GivesFeatures,
    config: DataConfig[Any],
    split: Manifest,
    options: EmbedOptions,
    device: torch.device,
    made: _Made,
) -> Generator[_Rows, None, None]:
    """Yield the readable samples of each batch, in the order of the split, after those that are written. Where the
    loader replaced an unreadable sample by another one, the row is left out.
    """
    packed = isinstance(config, PackedData)
    size = options.batch_size
    loading: Any = {"shuffle": False, "device": "cpu", "workers": options.workers, "rank": 0, "world_size": 1}
    seen = {key for path in made.files if packed for key in pq.read_table(path, columns=["key"])["key"].to_pylist()}
    begin = 0 if packed else made.row
    with closing(config.whole().loader(split, batch_size=1 if packed else size, **loading)) as loader:
        if made.batch == len(loader):
            return
        loader.seek(0, made.batch)
        for number, batch in enumerate(loader, start=made.batch):
            real = [True] * len(batch) if batch.weight is None else (batch.weight > 0).tolist()
            if packed:
                kept = [row for row, key in enumerate(batch.key) if real[row] and key not in seen]
                seen.update(batch.key)
            else:
                own = split.keys(range(number * size, min(number * size + len(batch), len(split))))
                kept = [row for row, key in enumerate(own) if batch.key[row] == key]
            with torch.no_grad():
                found = model.features(batch.to(device)).float().cpu()
            end, kept, begin = len(kept), kept[begin:], 0
            yield _Rows(number, [batch.key[row] for row in kept], batch.label[kept], found[kept], end)


def _count_written(batches: Iterator[_Rows], progress: Progress) -> Iterator[_Rows]:
    """Yield the same batches, and advance the progress once their samples are written."""
    for rows in batches:
        yield rows
        progress.advance(len(rows.keys))


def _yield_tables(
    batches: Iterator[_Rows], file_rows: int, dtype: FeatureType, about: Mapping[str, str]
) -> Iterator[tuple[pa.Table, tuple[int, int]]]:
    """Yield row groups that do not cross a border between files of `file_rows` rows, each with the batch and row that
    follow it.
    """
    waiting: list[pa.Table] = []
    count, left = 0, file_rows
    for rows in batches:
        values = pa.array(rows.features.numpy().astype(dtype).ravel())
        kind = pa.list_(values.type, rows.features.shape[1])
        names = {"key": pa.array(rows.keys, pa.string()), "label": pa.array(rows.labels.numpy())}
        columns = {**names, "features": pa.FixedSizeListArray.from_arrays(values, type=kind)}
        waiting.append(pa.table(columns).replace_schema_metadata(dict(about)))
        count += len(rows.keys)
        while count >= (size := min(GROUP_ROWS, left)):
            table = pa.concat_tables(waiting)
            count -= size
            yield table.slice(0, size), (rows.batch, rows.end - count)
            waiting, left = [table.slice(size)], left - size or file_rows
    if count:
        yield pa.concat_tables(waiting), (rows.batch + 1, 0)


def _write(
    batches: Iterator[_Rows], folder: Path, made: _Made, file_rows: int, dtype: FeatureType, about: Mapping[str, str]
) -> _Made:
    """Write row groups to files of `file_rows` rows each, after the existing ones."""
    tables = _yield_tables(batches, file_rows, dtype, about)
    for first in tables:
        path, rows = folder / f"{len(made.files):08d}.parquet", 0
        with publishing(path) as stream, pq.ParquetWriter(stream, first[0].schema, compression="zstd") as writer:
            for table, end in chain([first], tables):
                writer.write_table(table, row_group_size=len(table))
                rows, after = rows + len(table), end
                if rows == file_rows:
                    break
            width = table.schema.field("features").type.list_size
            writer.add_key_value_metadata({NEXT: f"{after[0]} {after[1]}", "width": str(width)})
        made = _Made((*made.files, path), made.samples + rows, width, *after)
    return made
