"""The preview of a split: samples as the training loop receives them, in one self-contained HTML file."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

from maskstream.modality import RUN_STEPS, Modality
from maskstream.pipelines.masks import Mask, Padded
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.modalities.packed.batch import PackedBatch
from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.pipelines.stream.loader import Loader
from maskstream.pipelines.stream.sampler import BatchT
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.members.text import JSON
from maskstream.shards.stores.url import split_name

from .figures.card import Fact, Facts, Section
from .figures.figures import Figures
from .figures.words import short_key
from .page import page, write_page

_NAMES = {
    "video_mask": "mask of the frames",
    "audio_mask": "mask of the audio",
    "image_mask": "mask of the image",
    "text_mask": "mask of the text",
}


def preview(
    modality: Modality,
    manifest: Manifest,
    data: DataConfig[Any] | None = None,
    *,
    others: Sequence[DataConfig[Any]] = (),
    out: str | Path,
    samples: int = 8,
    seed: int = 0,
) -> Path:
    """Write the preview of the first samples of a training epoch of a split.

    Samples, crops and masks are the same as in training with a loader of this seed.

    Args:
        modality: Modality of the split.
        manifest: The split.
        data: Data config; defaults to `Modality.shown(manifest)`.
        others: The same config with other masks to compare; each sample appears with all of them.
        out: HTML file.
        samples: Number of samples.
        seed: Seed of the loader.

    Returns:
        `out`.

    Raises:
        ValueError: A setting is not allowed.
    """
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    configs = (modality.shown(manifest) if data is None else data, *others)
    batches = [first_batch(one, manifest, samples, seed) for one in configs]
    masks: dict[str, list[Mask | None]] = {
        one.name: list(dict.fromkeys(getattr(config, one.name) for config in configs)) for one in modality.masks
    }
    views = int(getattr(configs[0], "views", 1))
    names = " and ".join(dict.fromkeys(mask_name(mask) for some in masks.values() for mask in some))
    facts = {
        **({"views of a sample": str(views)} if views > 1 else {}),
        "seed": str(seed),
        **{
            _NAMES.get(name, name): "; ".join(repr(mask) if mask else "none" for mask in some)
            for name, some in masks.items()
        },
    }
    shown = []
    for one, batch in zip(configs, batches, strict=True):
        mask = " and ".join(mask_name(getattr(one, mask.name)) for mask in modality.masks) + " mask"
        for camera, own in split_cameras(batch).items():
            words = [camera, *([mask] if len(configs) > 1 else [])] if camera else [mask]
            shown.append((", ".join(words), modality.figures(one, manifest), own))
    text = preview_page(
        shown,
        title=f"{names} mask{'s'[: len(masks) * len(configs) > 1]} on "
        f"{split_name(manifest.location, manifest.info['split'])}",
        before={
            "location": manifest.location,
            "samples": f"{len(manifest):,}",
            "profile": str(manifest.info["profile"]),
        },
        facts=facts,
        manifest=manifest,
        links=format_flow_link(Path(out).with_name("flow.html"), manifest.location),
        views=views,
    )
    return write_page(text, out)


def split_cameras(batch: Any) -> Mapping[str, Any]:
    """Return the batch of each camera by its name; with one camera, the batch itself."""
    cameras = batch.cameras if isinstance(batch, VideoBatch) else {}
    return cameras or {"": batch}


def first_batch(data: DataConfig[BatchT], manifest: Manifest, samples: int, seed: int) -> BatchT:
    """Return the first samples of a training epoch.

    Args:
        data: Data config.
        manifest: The split.
        samples: Number of samples.
        seed: Seed of the loader.

    Raises:
        ValueError: The split has no samples.
    """
    if len(manifest) == 0:
        raise ValueError(f"{manifest} has no samples to show; `maskstream inspect` lists the rejects by reason")

    def opened(size: int) -> Loader[BatchT]:
        return data.whole().loader(
            manifest, batch_size=size, seed=seed, device="cpu", rank=0, world_size=1, steps=RUN_STEPS
        )

    with closing(opened(1)) as loader:
        size = min(samples, len(loader))  # the loader does not read samples without the component
    with closing(opened(size)) as loader:
        return next(iter(loader))


def format_flow_link(page: Path, location: str) -> dict[str, str]:
    """Return a link to the flow page of the same split (`maskstream flow`), if it is next to the preview.

    Args:
        page: Path of the flow page.
        location: Location of the split.
    """
    if not page.is_file() or location not in unescape(page.read_text(encoding="utf-8", errors="replace")):
        return {}
    return {"every source of flow": page.name}


def preview_page(
    shown: Sequence[tuple[str, Figures[Any], Any]],
    *,
    title: str,
    facts: Mapping[str, str],
    before: Mapping[str, str] | None = None,
    links: Mapping[str, str] | None = None,
    views: int = 1,
    manifest: Manifest | None = None,
) -> str:
    """Return one self-contained HTML file with a card for every row of a batch; views of a sample follow each other.

    It loads nothing from outside: images are `data:` addresses, and a Content-Security-Policy forbids loading.

    Args:
        shown: Name, figures and batch of the same samples with each camera or mask; their cards follow row by row.
        title: Title of the page.
        facts: Facts after the figures' facts.
        before: Facts before the figures' facts.
        links: Files next to the page, by description.
        views: Views of a sample.
        manifest: The split, whose signals (`maskstream shards --signals`) are added to the cards.
    """
    (_, figures, batch), cards = shown[0], []
    for row in range(len(batch.cu_rows) - 1 if isinstance(batch, PackedBatch) else len(batch)):
        for mask, own, one in shown:
            card = own.sample(one, row)
            card = replace(card, facts=(*card.facts, *signal_facts(manifest, card.key))) if manifest else card
            card = replace(card, title=f"{short_key(card.key)}, {mask}") if len(shown) > 1 else card
            cards.append(replace(card, view=row % views + 1) if views > 1 else card)
    lede, _ = figures.about(batch)
    found: dict[str, dict[str, str]] = {}
    for mask, own, one in shown:
        for what, value in own.about(one)[1].items():
            if value:
                found.setdefault(what, {}).setdefault(value, mask.removesuffix(" mask"))
    told = {
        what: "; ".join(f"{value} ({mask})" if len(values) > 1 else value for value, mask in values.items())
        for what, values in found.items()
    }
    return page(
        kind="preview",
        title=title,
        lede=lede,
        facts={**(before or {}), **told, **facts},
        links=links or {},
        sections=(Section(cards=tuple(cards)),),
    )


def signal_facts(manifest: Manifest, key: str) -> tuple[Facts, ...]:
    """Return the signals of a sample, if the split has them (`maskstream shards --signals`).

    Args:
        manifest: The split.
        key: Key of the sample.
    """
    signals = manifest.components[JSON.name].facts if JSON.name in manifest.components else {}
    if not signals or key not in (keys := manifest.keys(range(len(manifest)))):  # a packed row has no key
        return ()
    index = keys.index(key)
    items = (Fact(name=name, value=f"{float(values[index]):.4g}") for name, values in signals.items())
    return (Facts(title="Signals", items=tuple(items)),)


def mask_name(mask: Mask | None) -> str:
    """Return the class name of a mask, or of the mask inside `Padded`; `No` for none."""
    if mask is None:
        return "No"
    return type(mask.mask if isinstance(mask, Padded) else mask).__name__
