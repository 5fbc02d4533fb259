"""Commands about finished splits: `maskstream inspect`, `verify`, `append`, `merge`, `split`, `remove`, `erase` and
`fetch`; and `index`, which creates one from existing tars.
"""

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from maskstream.pages.figures.words import plural
from maskstream.preprocess.curate.options import CurateOptions
from maskstream.preprocess.encode.limits import Limits
from maskstream.preprocess.job.options import IndexOptions
from maskstream.preprocess.told import Told
from maskstream.shards.flag import DataFlag, OutputFlag, RunFlag

from .options import ExecutorOptions, MaxPixels, Workers, limit_pixels
from .terminal import Data, Json, console, errors, say, show, tell, working


def inspect(
    data: Data,
    *,
    set_: Annotated[
        Sequence[str],
        DataFlag(
            "For video: clip settings other than in `preview` and `bench`, to count samples that are shorter, such "
            "as clip.frames=8, clip.stride=2 or clip.seconds=2; repeatable.",
            metavar="FIELD=VALUE",
        ),
    ] = (),
    as_json: Json = False,
) -> None:
    """Print the contents of a split: samples, hours, resolutions, frame rates, bytes, rejects by reason, and for video
    how many samples are shorter than a clip.
    """
    from maskstream.modalities import MODALITIES
    from maskstream.modality import short_clips
    from maskstream.shards.format.inspect import inspect as look
    from maskstream.shards.format.manifest import Manifest
    from maskstream.shards.stores.url import split_name

    manifest = Manifest.load(data)
    modality = MODALITIES.get(manifest.info["modality"])
    short = {} if modality is None else short_clips(manifest, modality.chosen(set_))
    name = {} if as_json else {"name": split_name(manifest.location, manifest.info["split"])}
    show(name | look(manifest) | ({"shorter_than_clip": short} if short else {}), as_json)


def verify(
    data: Data,
    *,
    decode: Annotated[bool, RunFlag("Also decode every sample.")] = False,
    workers: Workers = None,
    repair: Annotated[
        bool,
        RunFlag(
            "First rewrite damaged files that can be rebuilt from others: idx, sums, the index. A damaged shard "
            "needs its sources: `maskstream shards ... --repair`."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Check every byte of a split against its checksums and index; the exit code is 1 if something is wrong."""
    with working(f"opening {data}", as_json) as shown:
        from maskstream.preprocess.job.verification import RepairReport, repair_split, verify_split

        mended = repair_split(data) if repair else RepairReport()
        result = verify_split(data, decode=decode, workers=workers, progress=shown)
    if as_json:
        print(json.dumps(asdict(result) | {"ok": result.ok} | (asdict(mended) if repair else {})))
    else:
        for name in mended.repaired:
            console.print(f"repaired {escape(name)}", highlight=False, soft_wrap=True)
        for problem in mended.beyond:
            errors.print(f"[red]not repaired[/] {escape(problem)}", highlight=False, soft_wrap=True)
        if result.unchecked:
            say(
                f"no other file has a checksum of {', '.join(result.unchecked)}, as in splits of earlier "
                "releases; the next version will have one for each"
            )
        for problem in result.problems:
            errors.print(f"[red]problem[/] {escape(problem)}", highlight=False, soft_wrap=True)
        console.print(
            f"{escape(str(data))}: {plural(result.samples, 'sample')} in {plural(result.shards, 'shard')}, "
            f"{result.size_bytes / 1e6:.1f} MB: "
            + ("[green]no problems[/]" if result.ok else f"[red]{plural(len(result.problems), 'problem')}[/]"),
            highlight=False,
            soft_wrap=True,
        )
    raise typer.Exit(0 if result.ok else 1)


def append(
    data: Data,
    other: Annotated[str, DataFlag("Finished split whose shards are copied.")],
    *,
    as_json: Json = False,
) -> None:
    """Append the shards of another split to a split, as a new version."""
    from maskstream.preprocess.versions import append as appended_to

    result = appended_to(data, other)
    more = f"{plural(result.samples, 'sample')} in {plural(result.shards, 'shard')} more"
    tell(asdict(result), [f"{data}: version {result.version} has {more}"], as_json)


def merge(
    out: Annotated[str, OutputFlag("Folder of the merged split, or a URL.")],
    splits: Annotated[Sequence[str], DataFlag("Two or more finished splits.", metavar="SPLIT")],
    *,
    as_json: Json = False,
) -> None:
    """Merge splits into one that refers to their shards where they are; no tar is copied."""
    from maskstream.preprocess.versions import merge as merged

    result = merged(out, splits)
    found = f"{plural(result.samples, 'sample')} in {plural(result.shards, 'shard')} of {plural(len(splits), 'split')}"
    tell(asdict(result), [f"{out}: version {result.version} has {found}"], as_json)


def split(
    data: Data,
    *,
    val: Annotated[
        float | None, DataFlag("Fraction of the samples to hold out, such as 0.05.", metavar="FRACTION")
    ] = None,
    few: Annotated[
        int | None,
        DataFlag("Instead, put N samples of each label into a new split; DATA is unchanged.", metavar="N"),
    ] = None,
    val_by: Annotated[
        str,
        DataFlag(
            "Samples that stay together: source (all samples of a raw file), sample (nothing), folder, or a field of "
            "the samples' json, such as speaker.",
            metavar="WORD",
        ),
    ] = "source",
    val_seed: Annotated[int, DataFlag("Random seed of the choice.")] = 0,
    out: Annotated[
        str | None, OutputFlag("Folder of the new split, or a URL [default: val, or few-N, next to DATA].")
    ] = None,
    as_json: Json = False,
) -> None:
    """Hold out samples of a split as a validation split, stratified by label; no tar is touched.

    DATA gets a new version without them. Runs that were begun before keep their version on resume. After samples were
    appended, the same command splits only the new ones. With --few 10, the new split has ten samples of each label, for
    fine-tuning and probes with few labels; they also remain in DATA.
    """
    from maskstream.preprocess.versions import divide, take_few

    if val is None and few is not None:
        taken = take_few(data, few, seed=val_seed, out=out)
        tell(asdict(taken), [f"{taken.out}: version {taken.version} has {plural(taken.samples, 'sample')}"], as_json)
        return
    if val is None or few is not None:
        raise typer.BadParameter("pass either a fraction or a number per label", param_hint="--val or --few")
    result = divide(data, val, by=val_by, seed=val_seed, out=out)
    lines = [
        f"{data}: version {result.version} has {plural(result.samples, 'sample')}",
        f"{result.held_out}: version {result.held_out_version} has {plural(result.held_out_samples, 'sample')}",
    ]
    tell(asdict(result), lines, as_json)


Keys = Annotated[Sequence[str], DataFlag("Keys of samples.", metavar="KEY")]
KeyFile = Annotated[Path | None, DataFlag("Text file with the key of a sample on each line.", "--from --keys")]


def remove(data: Data, keys: Keys = (), *, from_: KeyFile = None, as_json: Json = False) -> None:
    """Remove samples from a split, as a new version: loaders replace them, and no tar is touched."""
    from maskstream.preprocess.versions import remove as removed_from

    result = removed_from(data, _read_given_keys(keys, from_))
    removed = f"{plural(result.removed_in_all, 'removed sample')}, {result.removed} of them newly removed"
    tell(asdict(result), [f"{data}: version {result.version} has {removed}"], as_json)


def curate(
    data: Data,
    *,
    options: CurateOptions,
    out: Annotated[Path, OutputFlag("HTML file; the list of removed samples is written next to it.")] = Path(
        "curated.html"
    ),
    as_json: Json = False,
) -> None:
    """Remove blurry, static, dark or duplicate images and clips, duplicate audio and texts, and samples of evaluation
    sets, as a new version.

    Each sample is measured once, and the measurements are saved (`maskstream docs curation` lists the signals). The
    page shows the removed samples and the reasons; the list next to it (.parquet) has each sample. Nothing is deleted,
    and runs keep their version. Running the same command again changes nothing.
    """
    if options.keep is None and not options.copies and not options.against:
        raise typer.BadParameter("pass --keep RULE, --copies or --against SPLIT")
    with working(f"opening {data}", as_json) as shown:
        from maskstream.pages.curated import WHY, list_beside, writing_curated
        from maskstream.preprocess.curate import Curated
        from maskstream.preprocess.curate import curate as curated

        listed = list_beside(out)

        def writing(found: Curated) -> AbstractContextManager[None]:
            shown.phase("writing the page")
            return writing_curated(found, out)

        found = curated(data, replace(options, progress=shown, writing=writing))
    stays = len(found.measures) - len(found.gone)
    told = {
        "samples": len(found.measures),
        "stay": stays,
        "gone": found.counts,
        "version": found.version,
        "repeated": found.repeated,
    }
    began = found.measures.manifest.version
    if found.version is None:
        made = "nothing was changed"
    elif found.repeated:
        made = f"nothing was changed: this curation of version {began} already exists as version {found.version}"
    else:
        made = f"version {found.version} excludes them"
    too_many = options.dry_run and len(found.gone) > options.max_removed * len(found.measures)
    lines = [
        f"{data}: {stays:,} of {plural(len(found.measures), 'sample')} stay",
        *(f"  {number:,} {WHY[why]}" for why, number in found.counts.items()),
        *(f"  {number:,} fail {what}" for what, number in found.failed.items()),
        f"wrote {out} and {listed}",
        made,
        *([f"--max-removed {options.max_removed:g} does not allow removing this many"] if too_many else []),
    ]
    tell({**told, "page": str(out), "list": str(listed)}, lines, as_json)


def dataset_card(
    data: Annotated[str, DataFlag("Finished split, or a folder of splits.")],
    *,
    out: Annotated[str | None, OutputFlag("Folder of the dataset card, or a URL [default: DATA].")] = None,
    told: Told,
    as_json: Json = False,
) -> None:
    """Write a dataset card of finished splits: croissant.json for catalogues and loaders, README.md for people.

    Both contain the files, their hashes, the figures of each split, how it was made, and further facts from the
    options.
    """
    from maskstream.preprocess.curate import write_card

    croissant, readme = write_card(data, told, out)
    tell({"croissant": croissant, "readme": readme}, [f"wrote {croissant} and {readme}"], as_json)


def erase(
    data: Data,
    keys: Keys = (),
    *,
    from_: KeyFile = None,
    words: Annotated[
        bool, DataFlag("Also erase names of labels and words of tokenizer.json that no other sample has.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Erase samples from a split and all of its versions: bytes, keys and sources, as a new version.

    A shard that contained one is rewritten under another name. Runs resume exactly for all other samples. Splits,
    targets, features and dataset cards next to it that contain these samples lose them too; other files there that
    mention them are listed. With --words, all texts of the split and of splits next to it are read, and the words are
    erased from them too.
    """
    from maskstream.preprocess.versions import erase as erased_from

    result = erased_from(data, _read_given_keys(keys, from_), words=words)
    told = [f"{data}: {plural(result.erased, 'sample')} erased; the current version is {result.version}"]
    if words:
        told.append(f"names of labels erased: {result.labels}; words of the vocabulary erased: {result.tokens}")
    if result.beside:
        told.append(f"also erased from {', '.join(result.beside)}")
    tell(asdict(result), told, as_json)
    if result.unknown and not as_json:
        errors.print(
            f"{plural(len(result.unknown), 'key')} not in the split, such as {escape(result.unknown[0])}; samples "
            "that were erased earlier no longer have a key",
            highlight=False,
            soft_wrap=True,
        )
    for line in result.named if not as_json else ():
        errors.print(f"[yellow]left[/] {escape(line)}", highlight=False, soft_wrap=True)


def _read_given_keys(keys: Sequence[str], path: Path | None) -> list[str]:
    """Return the keys of samples given to a command, as words and in a file, without empty lines.

    Raises:
        ValueError: The file cannot be read.
        BadParameter: The command got no key.
    """
    try:
        lines = [] if path is None else path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ValueError(
            f"--from {path} cannot be read ({reason}); pass a text file with one sample key per line"
        ) from error
    found = [*keys, *(line.strip() for line in lines if line.strip())]
    if not found:
        raise typer.BadParameter("pass at least one key", param_hint="KEY... or --from FILE")
    return found


def index(
    tars: Annotated[Sequence[str], DataFlag("WebDataset tars, or a folder of them; or their URLs.")],
    *,
    out: Annotated[str | None, OutputFlag("Folder or URL of the index [default: folder of the tars].")] = None,
    options: IndexOptions,
    executor: ExecutorOptions,
    max_pixels: MaxPixels = None,
    limits: Limits,
    as_json: Json = False,
) -> None:
    """Index plain WebDataset tars of videos (mp4, mov, mkv, webm) or audio (flac, wav, mp3, ogg, opus, m4a, aac).

    The tars are not changed. Afterwards the folder is a split like any other; labels, json, txt and arrays are
    available to the loader (`maskstream docs fields`). Samples need no label. Unusable files are listed in
    rejects.parquet with the reason.
    """
    from maskstream.preprocess import index_tars

    own = replace(options, executor=executor.choose(options.workers), limits=limit_pixels(limits, max_pixels))
    with working(f"opening {', '.join(tars)}", as_json) as shown:
        report = index_tars(tars, out, replace(own, progress=shown))
    facts = {"folder": str(report.folder), "tars": report.tars, "samples": report.samples, "rejects": report.rejects}
    if report.without_label is not None:
        facts["without_label"] = report.without_label
    show(facts, as_json)


def fetch(
    data: Data,
    *,
    cache: Annotated[str, RunFlag("Folder on a local disk of this node.")],
    cache_gb: Annotated[float, RunFlag("Largest size of the cache in GB.", min=0.001)] = 100.0,
    lanes: Annotated[int, DataFlag("Number of lanes of the loaders.", min=1)] = 1,
    lane: Annotated[
        Sequence[int], DataFlag("Lane that this node reads, from 0; repeatable [default: all].", min=0)
    ] = (),
) -> None:
    """Fill the cache of this node before training: fetch the shards of a URL, or of the lanes that this node reads.

    Cached data are verified and not fetched again, so the same command continues.
    """
    from maskstream.pipelines.modalities.split import check_cache, list_shards, open_manifest
    from maskstream.shards.stores.block_cache import fill

    manifest = open_manifest(data, cache=cache, cache_gb=cache_gb)
    check_cache(cache, [manifest])
    kept = manifest.cache
    assert kept is not None
    names = list_shards(manifest, lanes, range(lanes) if not lane else sorted(set(lane)))
    total = sum(map(manifest.store.size, names))
    if not kept.fits(total):
        raise ValueError(
            f"{len(names)} shards have {total / 1e9:.3g} GB, more than fits in a cache of {cache_gb:g} GB; raise "
            "--cache-gb, or choose lanes"
        )
    with working(f"fetching {plural(len(names), 'shard')} of {data}") as shown:
        shown.phase(f"fetching {plural(len(names), 'shard')}", round(total / 1e6), unit="MB")
        fill(manifest.store, names, lambda size: shown.advance(size / 1e6))
    say(f"{cache}: {plural(len(names), 'shard')} of {data}, {total / 1e6:.1f} MB")
