"""Dataset cards: Croissant, the JSON-LD format that catalogues and loaders read, and a README for people.

Croissant 1.0 (Akhtar et al., Croissant: A Metadata Format for ML-Ready Datasets, 2024) lists the files with their
sha256 and the columns of records; its RAI vocabulary documents the origin of the data. Both files contain only facts
from the splits or from the user, so readers can see which questions were left open.
"""

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import xxhash

from maskstream.preprocess.told import Told
from maskstream.shards.checksummed import add_checksum, read_checksummed
from maskstream.shards.errors import DatasetError
from maskstream.shards.format.dataset import is_split, list_versions, read_description
from maskstream.shards.format.inspect import inspect
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.members.text import JSON
from maskstream.shards.stores.output import Location, Output, open_output, within

CROISSANT, README = "croissant.json", "README.md"
"""Optional fields of Croissant's vocabulary for responsible AI."""
_MOST_BYTES = 1 << 30
_MARK = re.compile(rb"<!-- maskstream card (.*) -->\n")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|~-])")
_CONTEXT: Mapping[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataBiases": "cr:dataBiases",
    "dataCollection": "cr:dataCollection",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "personalSensitiveInformation": "cr:personalSensitiveInformation",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def write_card(data: Location, told: Told | None = None, out: Location | None = None) -> tuple[str, str]:
    """Write `croissant.json` and `README.md` for a split, or for all splits in a folder.

    Args:
        data: Split or folder of splits.
        told: Facts that the splits do not record.
        out: Folder for both files; default `data`. File names in them are relative to `data`, so keep them together.

    Returns:
        The locations of both files.

    Raises:
        DatasetError: There is no finished split, or one of these files exists and was not written by this function, or
            was edited since.
    """
    told = told or Told()
    splits = _list_splits(data)
    output = open_output(data if out is None else out)
    output.make()
    _check_own(output)
    facts = {name: inspect(location) for name, location in splits.items()}
    licenses = {name: _count_licenses(location, told.license_by) for name, location in splits.items()}
    croissant = _build_croissant(splits, facts, licenses, told, is_one=is_split(open_output(data).store))
    output.publish(CROISSANT, add_checksum(croissant))
    output.publish(README, _mark_readme(_build_readme(splits, facts, licenses, told).encode(), told))
    return str(within(output.location, CROISSANT)), str(within(output.location, README))


def renew_card(data: Location) -> bool:
    """Rewrite the card of a split or a folder of splits with the user's facts; False if `write_card` wrote none."""
    told = _unmark_readme(open_output(data).whole(README, _MOST_BYTES))
    if told is not None:
        write_card(data, told)
    return told is not None


def _mark_readme(text: bytes, told: Told) -> bytes:
    """Append a comment with the user's facts and a checksum to a README, so that it can be recognized."""
    fields = add_checksum({"told": asdict(told), "text": xxhash.xxh3_128_hexdigest(text)})
    return text + b"<!-- maskstream card %s -->\n" % base64.b64encode(fields)  # base64 cannot end the comment


def _unmark_readme(readme: bytes | None) -> Told | None:
    """Return the user's facts from a README marked by `_mark_readme`; None for any other README or an edited one."""
    if readme is None or (found := _MARK.search(readme)) is None or found.end() != len(readme):
        return None
    try:
        fields = read_checksummed(base64.b64decode(found[1]))
        is_whole = fields["text"] == xxhash.xxh3_128_hexdigest(readme[: found.start()])
        return Told(**fields["told"]) if is_whole else None
    except (ValueError, KeyError, TypeError):
        return None


def _check_own(output: Output) -> None:
    """Raise DatasetError if a file to overwrite is not as `write_card` wrote it."""
    croissant, readme = (output.whole(name, _MOST_BYTES) for name in (CROISSANT, README))
    strange = [] if readme is None or _unmark_readme(readme) is not None else [README]
    try:
        if croissant is not None:
            read_checksummed(croissant)
    except ValueError:
        strange.append(CROISSANT)
    if strange:
        path = within(output.location, strange[0])
        raise DatasetError(
            f"{path} was not written by `maskstream dataset-card`, or has changed since, so it is not overwritten; "
            "rename or delete it, or write the card to a different folder with --out"
        )


def _list_splits(data: Location) -> dict[str, Location]:
    output = open_output(data)
    if is_split(output.store):
        return {str(read_description(output.store)["split"]): data}
    names = sorted({name.split("/")[0] for name in output.names() if name.endswith("/dataset.json")})
    found = {name: within(data, name) for name in names if is_split(open_output(within(data, name)).store)}
    if not found:
        raise DatasetError(
            f"{data} is not a finished split, and contains none; pass data/shards/DATASET, or a split of it"
        )
    return found


def _count_licenses(location: Location, by: str) -> dict[str, int]:
    """Count the samples by license."""
    if not by:
        return {}
    manifest = Manifest.load(location)
    found: Counter[str] = Counter()
    for first in range(0, len(manifest), 256):
        some = range(first, min(first + 256, len(manifest)))
        members = [manifest.member(n, JSON.name) for n in some if not manifest.is_removed(n)]
        for data in manifest.store.read_many(members):
            found[str(json.loads(bytes(data)).get(by) or "none given")] += 1
    return dict(found.most_common())


def _build_croissant(
    splits: Mapping[str, Location],
    facts: Mapping[str, Mapping[str, Any]],
    licenses: Mapping[str, Mapping[str, int]],
    told: Told,
    *,
    is_one: bool,
) -> dict[str, Any]:
    files: list[dict[str, Any]] = []
    records: list[dict[str, Any]] = []
    for name, location in splits.items():
        below = "" if is_one else f"{name}/"
        own_files, own_records = _split_records(name, Manifest.load(location), open_output(location), below)
        files += own_files
        records += own_records
    first = next(iter(facts.values()))
    given = [*dict.fromkeys([*told.licenses, *(one for own in licenses.values() for one in own)])]
    described = {
        "name": told.name or first["dataset"],
        "description": told.description or f"{_sizes(facts)}, as tar shards of maskstream.",
        "conformsTo": ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"],
        "version": f"{max(one['version'] for one in facts.values())}.0.0",
        "license": given or None,
        "creator": [{"@type": "sc:Person", "name": one} for one in told.creators] or None,
        "url": told.url or None,
        "citeAs": told.cite or None,
        "datePublished": told.published or None,
        "rai:dataPreprocessingProtocol": "; ".join(
            f"{name}: maskstream shards {one['dataset']}, profile {one['profile']}, "
            f"settings {json.dumps(one['settings'], ensure_ascii=False, sort_keys=True)}"
            for name, one in facts.items()
        ),
        "rai:dataCollectionMissingData": "; ".join(
            f"{name}: " + ", ".join(f"{count} {stage}" for stage, count in one["rejects_per_stage"].items())
            for name, one in facts.items()
            if one["rejects_per_stage"]
        )
        or None,
        **{f"rai:{name}": text for name, text in told.rai.items()},
    }
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        **{name: value for name, value in described.items() if value is not None},
        "distribution": files,
        "recordSet": records,
    }


def _split_records(
    split: str, manifest: Manifest, output: Output, below: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return a split's files, and the descriptions of its samples and labels."""
    info = manifest.info
    files: list[dict[str, Any]] = []
    records: list[dict[str, Any]] = []
    tars = []
    for shard in manifest.shards():
        tars.append({"@id": _id(f"{split}/{shard.name}")})
        files.append(_file(split, shard.name, below, "application/x-tar", shard.size_bytes, shard.sha256))
    for component in manifest.components:
        files.append(
            {
                "@type": "cr:FileSet",
                "@id": _id(f"{split}/members/{component}"),
                "name": f"{split}/members/{component}",
                "description": f"The member {component} of each sample, KEY.{component}.",
                "containedIn": tars,
                "encodingFormat": "application/octet-stream",
                "includes": f"*.{component}",
            }
        )
    for part in info["parts"]:
        data = output.whole(part["name"], _MOST_BYTES) or b""
        table = _file(split, part["name"], below, "application/x-parquet", len(data), hashlib.sha256(data).hexdigest())
        files.append(table)
        own = _id(f"{split}/samples/{part['name']}")
        records.append(
            {
                "@type": "cr:RecordSet",
                "@id": own,
                "name": own,
                "description": f"The samples of the split {split}: key in the shards, class number (-1: none), source. "
                f"{len(manifest.removed)} samples of all parts are removed, and still listed.",
                "key": {"@id": f"{own}/key"},
                "field": [
                    {
                        "@type": "cr:Field",
                        "@id": f"{own}/{column}",
                        "name": f"{own}/{column}",
                        "dataType": kind,
                        "source": {"fileObject": {"@id": table["@id"]}, "extract": {"column": column}},
                    }
                    for column, kind in (("key", "sc:Text"), ("label", "sc:Integer"), ("source", "sc:Text"))
                ],
            }
        )
    if info["label_names"]:
        own = _id(f"{split}/labels")
        records.append(
            {
                "@type": "cr:RecordSet",
                "@id": own,
                "name": own,
                "description": "The names of the class numbers.",
                "key": {"@id": f"{own}/number"},
                "field": [
                    {"@type": "cr:Field", "@id": f"{own}/number", "name": f"{own}/number", "dataType": "sc:Integer"},
                    {"@type": "cr:Field", "@id": f"{own}/name", "name": f"{own}/name", "dataType": "sc:Text"},
                ],
                "data": [{f"{own}/number": n, f"{own}/name": name} for n, name in enumerate(info["label_names"])],
            }
        )
    return files, records


def _file(split: str, name: str, below: str, kind: str, size_bytes: int, sha256: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": _id(f"{split}/{name}"),
        "name": f"{split}/{name}",
        "contentUrl": f"{below}{name}",
        "contentSize": f"{size_bytes} B",
        "encodingFormat": kind,
        "sha256": sha256,
    }


def _id(name: str) -> str:
    """Return a name as an identifier, which cannot contain white space, even escaped."""
    return re.sub(r"[^A-Za-z0-9._/-]", lambda found: f"_{ord(found[0]):x}_", name)


def _sizes(facts: Mapping[str, Mapping[str, Any]]) -> str:
    """Summarize the number of samples and bytes in one line."""
    own = [*facts.values()]
    samples, size = (sum(one["counts"][what] for one in own) for what in ("samples", "bytes"))
    return f"{samples:,} samples of {own[0]['modality']} in {size / 1e9:.3g} GB"


def as_text(value: object) -> str:
    """Escape a name or sentence for Markdown: no line breaks, tags, links or tables."""
    text = " ".join("".join(one if one.isprintable() else " " for one in str(value)).split())
    return _MARKDOWN.sub(r"\\\1", text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _format_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    lines = [head, ["---"] * len(head), *([as_text(cell) for cell in row] for row in rows)]
    return ["| " + " | ".join(line) + " |" for line in lines] + [""]


def _build_readme(
    splits: Mapping[str, Location],
    facts: Mapping[str, Mapping[str, Any]],
    licenses: Mapping[str, Mapping[str, int]],
    told: Told,
) -> str:
    first = next(iter(facts.values()))
    lines = [f"# {as_text(told.name or first['dataset'])}", "", as_text(told.description or f"{_sizes(facts)}."), ""]
    rows = []
    for name, one in facts.items():
        hours = sum(kind["hours"] for what in ("video", "sound") for kind in one[what].values()) or None
        counts = one["counts"]
        rows.append(
            (
                name,
                f"{counts['samples']:,}",
                "" if hours is None else f"{hours:.3g}",
                f"{counts['shards']:,}",
                f"{counts['bytes']:,}",
                f"{counts.get('rejects', 0):,}",
                one["version"],
                one["fingerprint"],
            )
        )
    lines += _format_table(("split", "samples", "hours", "shards", "bytes", "rejects", "version", "fingerprint"), rows)
    given = [("all", one) for one in told.licenses]
    given += [(f"{count:,} samples of {name}", one) for name, own in licenses.items() for one, count in own.items()]
    lines += ["## Licence", ""]
    lines += _format_table(("of", "licence"), given) if given else ["None was given.", ""]
    for name, one in facts.items():
        lines += _describe_split(name, splits[name], one)
    if told.rai:
        lines += ["## About the data", "", *_format_table(("field", "description"), [*told.rai.items()])]
    for title, text in (("By", ", ".join(told.creators)), ("From", told.url), ("Cite as", told.cite)):
        lines += [f"{title}: {as_text(text)}", ""] if text else []
    lines += [f"Files, their sha256 and columns: `{CROISSANT}`. `maskstream verify` checks every byte.", ""]
    return "\n".join(lines)


def _describe_split(name: str, location: Location, one: Mapping[str, Any]) -> list[str]:
    lines = [f"## {as_text(name)}", ""]
    if one["samples_per_label"]:
        lines += _format_table(("label", "samples"), [*one["samples_per_label"].items()])
    if one["rejects_per_stage"]:
        lines += _format_table(("reason for rejection", "sources"), [*one["rejects_per_stage"].items()])
    made = {what: one[what] for what in ("dataset", "profile", "settings")}
    lines += ["How it was created:", "", *_code(json.dumps(made, indent=1)), ""]
    lines += ["With these libraries:", "", *_code(found), ""] if (found := _format_libraries(location)) else []
    versions = list_versions(open_output(location).store)
    lines += [f"Versions: {', '.join(map(str, versions)) or one['version']}.", ""]
    return lines


def _code(text: str) -> list[str]:
    """Return lines of a code block. JSON has no line that could end it."""
    return ["```json", *text.splitlines(), "```"]


def _format_libraries(location: Location) -> str:
    """Return the versions of the libraries that wrote a split, if its records have them."""
    data = open_output(location).whole(".records/report.json", _MOST_BYTES)
    found = {} if data is None else json.loads(data).get("libraries", {})
    return json.dumps(found, indent=1) if found else ""
