"""Texts as rows of 512 tokens, 2,048 points of clouds of 8,192, and graphs of meshes: maskstream and its peers.

Samples are made here: words drawn by Zipf's law, points on wavy spheres, stretched icospheres. Peers read tokens,
points and edges that were stored beforehand, and make the same rows of them.
"""

import importlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from contest import Contest, Make, batched, by_batch, lance_of, mds_of, ours, streamed, tar_of, webdataset_of
from torch import Tensor

from maskstream.pipelines import masks, mesh_loader, points_loader, text_loader
from maskstream.preprocess import make_shards
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.tokenizer import read_tokenizer, read_tokenizer_facts

LENGTH, TEXTS, TEXT_BATCH = 512, 1024, 32
CLOUDS, CLOUD, POINTS, CLOUD_BATCH = 256, 8192, 2048, 32
MESHES, MESH_BATCH = 64, 16
ONE = {"seed": 0, "device": "cpu", "threads": 1, "prefetch": 1}
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """A sample: its key, its number in the shards, and the file that it was made of."""

    key: str
    index: int
    file: Path


def made(
    folder: Path, dataset: str, write: Callable[[Path], None], settings: Sequence[str] = ()
) -> tuple[Path, list[Stored]]:
    """The split of the files that `write` writes, made once, and its samples."""
    out = folder / "-".join(["shards", *settings])
    if not (folder / "raw").exists():
        (folder / "writing/train").mkdir(parents=True, exist_ok=True)
        write(folder / "writing/train")
        (folder / "writing").rename(folder / "raw")
    make_shards(dataset, folder / "raw", out, as_is=True, workers=0, settings=settings)
    manifest = Manifest.load(out / "train")
    files = [folder / "raw/train" / Path(source).name for source in manifest.sources().to_pylist()]
    keys = manifest.keys(range(len(manifest)))
    samples = [Stored(key=key, index=i, file=file) for i, (key, file) in enumerate(zip(keys, files, strict=True))]
    return out / "train", samples


def texts(data: Path, media: Path) -> Iterator[Contest]:
    """Rows of one document each, from its beginning."""
    split, samples = made(data / "text", "txt", _write_texts)
    manifest = Manifest.load(split)
    facts = read_tokenizer_facts(split, manifest.info)
    tokenizer = importlib.import_module("tokenizers").Tokenizer.from_buffer(
        read_tokenizer(manifest.store, manifest.info)
    )
    words = [sample.file.read_text() for sample in samples]
    ids = [np.array(one.ids, np.uint16) for one in tokenizer.encode_batch(words, add_special_tokens=False)]

    def rows(chosen: list[npt.NDArray[np.uint16]]) -> Tensor:
        """int64 (B, LENGTH), between the special tokens, padded."""
        out = np.full((len(chosen), LENGTH), facts.pad, dtype=np.int64)
        out[:, 0] = facts.begin
        for row, one in zip(out, chosen, strict=True):
            n = min(len(one), LENGTH - 2)
            row[1 : n + 1], row[n + 1] = one[:n], facts.end
        return torch.from_numpy(out)

    def loader(**settings: Any) -> Make:
        settings = {**ONE, "packing": "row", "windows": False, **settings}
        return ours(text_loader(split, length=LENGTH, batch_size=TEXT_BATCH, **settings))

    def webdataset() -> Make:
        members = ((f"{i:06d}.npy", npy_of(one)) for i, one in enumerate(ids))
        tar = tar_of(data / "text/npy.tar", members)
        return webdataset_of(tar, lambda one, item: np.load(io.BytesIO(one["npy"])), TEXT_BATCH, rows)

    def hf_datasets() -> Make:
        datasets = importlib.import_module("datasets")
        datasets.disable_progress_bars()
        made = datasets.Dataset.from_dict({"tokens": ids}, datasets.Features(tokens=[datasets.Value("uint16")]))
        made.save_to_disk(data / "text/arrow")  # so that files are mapped and their contents are not checked
        table = datasets.load_from_disk(data / "text/arrow").with_format("numpy")
        return by_batch(lambda items: rows(table[[item.index for item in items]]["tokens"]), TEXT_BATCH)

    def mds(stream: bool) -> Make:
        stored = mds_of(data / "text/mds", {"tokens": "bytes"}, ({"tokens": one.tobytes()} for one in ids))

        def tokens(sample: Any, item: Any = None) -> npt.NDArray[np.uint16]:
            return np.frombuffer(sample["tokens"], np.uint16)

        if stream:
            return streamed(lambda: iter(stored), tokens, TEXT_BATCH, rows)
        return batched(lambda item: tokens(stored[item.index]), TEXT_BATCH, rows)

    def lance() -> Make:
        pa = importlib.import_module("pyarrow")
        table = lance_of(data / "text/lance", pa.table({"tokens": pa.array(ids)}))

        def read(items: list[Stored]) -> Tensor:
            taken = table.take([item.index for item in items])["tokens"]
            return rows([one.values.to_numpy() for one in taken])

        return by_batch(read, TEXT_BATCH)

    contest = Contest(
        name="text",
        title=f"A row of {LENGTH} tokens, one document each, batches of {TEXT_BATCH}",
        unit="µs",
        items=lambda epoch: samples,
        rows_of=lambda batch: batch.tokens.numpy(),
        difference=lambda one, other: float((torch.from_numpy(one) != other).float().mean()),
        most=0.0,
    )
    hidden = masks.Padded(mask=masks.Tokens(ratio=0.3))
    contest.add("maskstream", "", lambda: loader(threads=0))
    contest.add("maskstream, 30 % masked", "", lambda: loader(threads=0, mask=hidden), same=False)
    contest.add("maskstream, packed rows", "", lambda: loader(threads=0, packing="pack"), same=False)
    contest.add("maskstream, made ahead in a thread", "", loader, same=False)
    contest.add("HF datasets (Arrow, batches)", "datasets", hf_datasets)
    contest.add("MDS, random access", "streaming", lambda: mds(stream=False))
    contest.add("MDS, in order", "streaming", lambda: mds(stream=True), in_order=True)
    contest.add("webdataset, in order", "webdataset", webdataset, in_order=True)
    contest.add("lance, batches", "lance", lance)
    fly = batched(
        lambda item: np.array(tokenizer.encode(words[item.index], add_special_tokens=False).ids), TEXT_BATCH, rows
    )
    contest.add("tokenizers, on the fly", "tokenizers", lambda: fly)
    yield contest


def _write_texts(folder: Path) -> None:
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    lexicon = ["".join(rng.choice(letters, rng.integers(2, 10))) for _ in range(5000)]
    for i in range(TEXTS):
        words = rng.zipf(1.3, rng.integers(150, 700)).clip(max=len(lexicon)) - 1
        (folder / f"{i:05d}.txt").write_text(" ".join(lexicon[word] for word in words))


def npy_of(array: npt.NDArray[Any]) -> bytes:
    """The bytes of an .npy file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def points(data: Path, media: Path) -> Iterator[Contest]:
    """Points of a cloud, moved and scaled to the unit ball."""
    split, samples = made(data / "points", "points-folder", _write_clouds)
    rng = np.random.default_rng(1)

    def in_unit_ball(chosen: Floats) -> Floats:
        chosen = chosen - chosen.mean(0)
        return chosen / np.sqrt((chosen * chosen).sum(1).max())

    def unit(cloud: Floats) -> Floats:
        return in_unit_ball(cloud[rng.choice(len(cloud), POINTS, replace=False)])

    clouds = [np.load(sample.file) for sample in samples]

    def h5py(order: bool) -> Make:
        file = importlib.import_module("h5py").File(data / f"points/clouds-{order}.h5", "w")
        rows = file.create_dataset("clouds", data=np.stack(clouds))
        if order:  # rows in random order, as maskstream stores them, so that a range of rows is a random sample

            def stretch(item: Stored) -> Floats:
                first = int(rng.integers(CLOUD - POINTS + 1))
                return in_unit_ball(rows[item.index, first : first + POINTS])

            return batched(stretch, CLOUD_BATCH)
        return batched(lambda item: unit(rows[item.index]), CLOUD_BATCH)

    def webdataset() -> Make:
        tar = tar_of(data / "points/npy.tar", ((f"{i:06d}.npy", npy_of(one)) for i, one in enumerate(clouds)))
        return webdataset_of(tar, lambda one, item: unit(np.load(io.BytesIO(one["npy"]))), CLOUD_BATCH)

    def mds() -> Make:
        stored = mds_of(
            data / "points/mds", {"cloud": f"ndarray:float32:{CLOUD},3"}, ({"cloud": one} for one in clouds)
        )
        return batched(lambda item: unit(stored[item.index]["cloud"]), CLOUD_BATCH)

    contest = Contest(
        name="points",
        title=f"{POINTS:,} of {CLOUD:,} points of a cloud, in the unit ball, batches of {CLOUD_BATCH}",
        unit="µs",
        items=lambda epoch: samples,
        rows_of=lambda batch: batch.points.numpy(),
        difference=_balls_apart,
        most=1e-3,
    )
    contest.add("maskstream", "", lambda: ours(points_loader(split, batch_size=CLOUD_BATCH, **ONE)))
    contest.add("h5py, whole clouds", "h5py", lambda: h5py(order=False))
    contest.add("h5py, a stretch of each", "h5py", lambda: h5py(order=True))
    contest.add("np.load", "numpy", lambda: batched(lambda item: unit(np.load(item.file)), CLOUD_BATCH))
    contest.add("webdataset, in order", "webdataset", webdataset, in_order=True)
    contest.add("MDS, random access", "streaming", mds)
    contest.add("arrays in memory", "", lambda: batched(lambda item: unit(clouds[item.index]), CLOUD_BATCH))
    yield contest


def _balls_apart(one: Floats, other: Floats) -> float:
    """How far two sets of points are from one number of points, one centre and one radius."""
    if one.shape != other.shape:
        return float("inf")
    radii = (float(np.linalg.norm(ball, axis=1).max()) for ball in (one, other))
    return abs(next(radii) - next(radii)) + float(np.abs(one.mean(0) - other.mean(0)).max())


def _write_clouds(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(CLOUDS):
        ball = rng.normal(size=(CLOUD, 3))
        ball /= np.linalg.norm(ball, axis=1, keepdims=True)
        np.save(folder / f"{i:04d}.npy", (ball * (1 + 0.3 * np.sin(3 * ball[:, :1] * (1 + i % 5)))).astype(np.float32))


@dataclass(frozen=True, slots=True)
class Graph:
    """The nodes, edges, features and normals of meshes, one behind the other, and (nodes, edges) of each."""

    nodes: Floats
    edges: npt.NDArray[np.int64]
    features: Floats
    normals: Floats
    counts: list[tuple[int, int]]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self.counts)

    @classmethod
    def of(cls, nodes: Any, sides: Any, normals: Any) -> "Graph":
        """Both directions of each side, with the vector between its ends and its length."""
        edges = np.concatenate([sides, sides[:, ::-1]]).astype(np.int64)
        between = (nodes[edges[:, 0]] - nodes[edges[:, 1]]).astype(np.float32)
        features = np.concatenate([between, np.linalg.norm(between, axis=1, keepdims=True)], axis=1)
        return cls(nodes, edges, features, normals, [(len(nodes), len(edges))])

    @classmethod
    def joined(cls, graphs: list["Graph"]) -> "Graph":
        """One graph of several."""
        first = np.cumsum([0, *(len(one.nodes) for one in graphs[:-1])])
        edges = np.concatenate([one.edges + start for one, start in zip(graphs, first, strict=True)])
        parts = (np.concatenate([getattr(one, name) for one in graphs]) for name in ("nodes", "features", "normals"))
        nodes, features, normals = parts
        return cls(nodes, edges, features, normals, [count for one in graphs for count in one.counts])


def meshes(data: Path, media: Path) -> Iterator[Contest]:
    """Graphs of surfaces with their normals."""
    split, samples = made(data / "mesh", "mesh-folder", _write_meshes)

    def from_ply(item: Stored) -> Graph:
        mesh = importlib.import_module("trimesh").load(item.file, process=False)
        return Graph.of(
            mesh.vertices.astype(np.float32), mesh.edges_unique, mesh.compute_vertex_normals.astype(np.float32)
        )

    def kept(suffix: str, save: Callable[[Path, dict[str, Any]], None], load: Callable[[Path], Any]) -> Make:
        folder = data / "mesh" / suffix
        folder.mkdir(exist_ok=True)
        for item in samples:
            graph = from_ply(item)
            half = graph.edges[: len(graph.edges) // 2].astype(np.int32)
            save(folder / f"{item.index}.{suffix}", {"nodes": graph.nodes, "sides": half, "normals": graph.normals})

        def read(item: Stored) -> Graph:
            arrays = load(folder / f"{item.index}.{suffix}")
            return Graph.of(*(np.asarray(arrays[name]) for name in ("nodes", "sides", "normals")))

        return batched(read, MESH_BATCH, Graph.joined)

    contest = Contest(
        name="mesh",
        title=f"Graphs of surfaces with 2,562 nodes, batches of {MESH_BATCH}",
        unit="ms",
        items=lambda epoch: samples,
        rows_of=lambda batch: [*zip(batch.node_offset.diff().tolist(), batch.edge_offset.diff().tolist(), strict=True)],
        difference=lambda one, other: float(one != other),
        most=0.0,
    )
    contest.add("maskstream", "", lambda: ours(mesh_loader(split, batch_size=MESH_BATCH, **ONE)))
    contest.add("trimesh, from PLY", "trimesh", lambda: batched(from_ply, MESH_BATCH, Graph.joined))
    contest.add("npz, edges stored", "trimesh", lambda: kept("npz", lambda path, a: np.savez(path, **a), _arrays))
    contest.add("torch.load, edges stored", "trimesh", lambda: kept("pt", _save_tensors, torch.load))
    yield contest


def _save_tensors(path: Path, arrays: dict[str, Any]) -> None:
    torch.save({name: torch.from_numpy(array.copy()) for name, array in arrays.items()}, path)


def _arrays(path: Path) -> dict[str, Any]:
    with np.load(path) as arrays:
        return dict(arrays)


def _write_meshes(folder: Path) -> None:
    creation = importlib.import_module("trimesh.creation")
    rng = np.random.default_rng(0)
    for i in range(MESHES):
        mesh = creation.icosphere(subdivisions=4)
        mesh.vertices *= 1 + 0.2 * rng.normal(size=3)
        mesh.export(folder / f"{i:03d}.ply")
