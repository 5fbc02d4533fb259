"""Read files of points: PCD, PLY without faces, E57, NPY and text; and name their columns.

A column named like one of `ALIASES` is kept under its standard name, in the standard order, whatever the format:

    intensity                      0 to 1 if the file has unsigned integers or declares limits, else unchanged
    red, green, blue               0 to 1
    normal_x, normal_y, normal_z   of length 1, or 0, 0, 0 for a point without a normal
    class, part                    whole numbers: the class of a point, and the part of an object it belongs to

Other contents of a file are dropped, and listed in the sample's `left_out`. A header that declares more than the file
can contain is refused before memory is allocated.

PCD: the format 0.7 of the Point Cloud Library, as ASCII, binary and compressed with LZF. A point with a coordinate that
is not a number was not seen by the sensor; it is dropped, as are points that an E57 file marks as invalid. E57: all
scans of a file, in its coordinates (ASTM E2807).
"""

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from maskstream.preprocess.encode.limits import MEMORY_PER_BYTE, read_source_file
from maskstream.preprocess.encode.numbers import read_numbers
from maskstream.preprocess.encode.ply import read_ply_header
from maskstream.preprocess.source import RejectError
from maskstream.shards.arrays import Float64s
from maskstream.shards.errors import DatasetError
from maskstream.shards.media.npy import NpyError, read_npy
from maskstream.shards.named import list_few

Column = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cloud:
    """A point cloud.

    Float32 would lose the centimetres of survey coordinates, which are millions of metres; the encoder moves the origin
    first.

    Attributes:
        points: float64 (N, columns), x, y, z first.
        columns: Names of the columns.
        n_dropped: Number of removed noise points.
        n_invalid: Number of removed points without coordinates.
        left_out: Columns of the file that are not kept.
    """

    points: Float64s
    columns: tuple[str, ...]
    n_dropped: int = 0
    n_invalid: int = 0
    left_out: tuple[str, ...] = ()


XYZ = ("x", "y", "z")
COLOURS, NORMALS, NUMBERS = ("red", "green", "blue"), ("normal_x", "normal_y", "normal_z"), ("class", "part")
ALIASES: Mapping[str, tuple[str, ...]] = {
    **{axis: (f"cartesian{axis}",) for axis in XYZ},
    "intensity": ("i", "scalar_intensity", "reflectance", "reflectivity", "remission"),
    **{name: (name[0], f"diffuse_{name}", f"color{name}") for name in COLOURS},
    **{name: (f"n{name[-1]}", f"normal{name[-1]}", f"nor:normal{name[-1]}") for name in NORMALS},
    "class": ("classification", "scalar_classification", "label", "scalar_label", "semantic"),
    "part": ("part_label", "scalar_part"),
}
"""Columns that are kept, in this order, and their names in files, in any case."""
_KNOWN = {alias: name for name, aliases in ALIASES.items() for alias in (name, *aliases)}
UNUSED = "_"
"""Name of a column that is dropped."""
_LARGEST_NUMBER = 1 << 24
"""Largest integer up to which float32 represents all integers."""


def build_named_cloud(
    found: Mapping[str, Column], *, n_invalid: int = 0, left_out: Sequence[str] = (), more: Sequence[str] = ()
) -> Cloud:
    """Build a cloud from named columns, as described above.

    Args:
        found: Columns of a file by name, (N,) each.
        n_invalid: Number of removed points without coordinates.
        left_out: Columns of the file that are not kept.
        more: Columns to keep unchanged.

    Raises:
        RejectError: x, y or z is missing, or a column has values that its name does not allow.
    """
    own: dict[str, str] = {}
    for name in found:
        own.setdefault(name if name in more else _KNOWN.get(name.lower(), name), name)
    if missing := [name for name in XYZ if name not in own]:
        raise RejectError("open", f"has no column {missing[0]}, only {list_few(list(found)) or 'none'}")
    kept = [name for name in (*ALIASES, *more) if name in own]
    values = {name: found[own[name]] for name in kept}
    points = np.stack([column.astype(np.float64) for column in values.values()], axis=1)
    _scale(points, kept, values)
    unused = [name for name in found if name not in {own[one] for one in kept} and name != UNUSED]
    return Cloud(points=points, columns=tuple(kept), n_invalid=n_invalid, left_out=(*unused, *left_out))


def _scale(points: Float64s, names: Sequence[str], values: Mapping[str, Column]) -> None:
    """Scale the columns (N, names) to the ranges above, in place."""
    at = {name: number for number, name in enumerate(names)}
    if "intensity" in at and values["intensity"].dtype.kind == "u":
        points[:, at["intensity"]] /= np.iinfo(values["intensity"].dtype).max
    if (colours := [at[name] for name in COLOURS if name in at]) and len(points):
        points[:, colours] /= _find_whitest(points[:, colours], [values[names[one]] for one in colours])
    if len(normals := [at[name] for name in NORMALS if name in at]) == 3:
        each = np.nan_to_num(points[:, normals], nan=0.0, posinf=0.0, neginf=0.0)
        length = np.linalg.norm(each, axis=1, keepdims=True)
        points[:, normals] = np.divide(each, length, out=np.zeros_like(each), where=length > 0)
    for name in (one for one in NUMBERS if one in at):
        numbers = points[:, at[name]]
        if ((numbers != np.round(numbers)) | (np.abs(numbers) > _LARGEST_NUMBER)).any():
            raise RejectError("check", f"the column {name} has values that are not whole numbers up to 2^24")


def _find_whitest(colours: Float64s, values: Sequence[Column]) -> float:
    """Return the value of white in a file, by the type of its colours, or else by their largest value: 1, 255 or
    65,535.
    """
    low, high = float(np.min(colours)), float(np.max(colours))
    if all(one.dtype.kind == "u" and one.dtype.itemsize <= 2 for one in values):
        return float(np.iinfo(values[0].dtype).max)
    if not 0 <= low <= high <= 65535:
        raise RejectError("check", f"has colours from {low:g} to {high:g}; they must be 0 to 1, to 255 or to 65535")
    return 1.0 if high <= 1 else 255.0 if high <= 255 else 65535.0


_LEGAL = "points need an array (N, 3 or more) of real numbers"


def build_array_cloud(array: npt.NDArray[Any], names: Sequence[str] = ()) -> Cloud:
    """Build a cloud from rows of numbers.

    Args:
        array: (N, 3 or more).
        names: Names of the columns; by default x, y, z and feature 0, 1, ...

    Raises:
        RejectError: The array has another shape or type, or another number of columns.
    """
    if array.ndim != 2 or array.shape[1] < 3 or array.dtype.kind not in "fiu":
        raise RejectError("open", f"holds {array.dtype} {array.shape}; {_LEGAL}")
    if not names:
        others = (f"feature {i}" for i in range(array.shape[1] - 3))
        return Cloud(points=array.astype(np.float64), columns=(*XYZ, *others))
    if len(names) != array.shape[1]:
        raise RejectError("open", f"has {array.shape[1]} columns, but {len(names)} names: {', '.join(names)}")
    own = [name for name in names if name != UNUSED and name.lower() not in _KNOWN]
    return build_named_cloud({name: array[:, n] for n, name in enumerate(names) if name != UNUSED}, more=own)


def read_array(path: Path, names: Sequence[str] = ()) -> Cloud:
    """Read an NPY file (N, 3 or more) of numbers; names: see `build_array_cloud`."""
    try:
        array = read_npy(read_source_file(path))
    except NpyError as error:
        raise RejectError("open", f"is not an NPY file of points ({error}); {_LEGAL}") from error
    return build_array_cloud(array, names)


_WORD = re.compile(r"[A-Za-z_][\w:. ]*")
_PTS = {3: XYZ, 4: (*XYZ, "intensity"), 6: (*XYZ, *COLOURS), 7: (*XYZ, "intensity", *COLOURS)}
_PTS_INTENSITY = (-2048, 2047)
"""Range of intensities in Leica's PTS."""


def read_text(path: Path, names: Sequence[str] = ()) -> Cloud:
    """Read lines of three or more numbers, separated by commas, semicolons or spaces.

    Lines of words, and comments after # or //, are skipped; a first line with as many words as there are columns names
    them, as CloudCompare writes it. A PTS file begins with its number of points, which have x, y, z and intensity,
    colours, or both.

    Args:
        path: Text file.
        names: Names of the columns if the file does not name them.

    Raises:
        RejectError: The file is damaged.
    """
    try:
        text = read_source_file(path).decode("ascii")
    except UnicodeDecodeError as error:
        raise RejectError("open", f"is not a text file of numbers ({error})") from error
    first, _, rest = text.lstrip().partition("\n")
    declared = int(first) if path.suffix.lower() == ".pts" and first.strip().isdecimal() else None
    lines = (rest if declared is not None else text).replace(",", " ").replace(";", " ").splitlines()
    bare = [line.strip().removeprefix("//").removeprefix("#").split() for line in lines[:1]]
    header = bare[0] if bare and all(map(_WORD.fullmatch, bare[0])) else []
    skipped = text.count("\n") - rest.count("\n") if declared is not None else 0
    array = read_numbers(lines[bool(header) :], 1 + skipped + bool(header), comments=("#", "//"))
    if not len(array):
        raise RejectError("check", "has no points")
    if declared is None:
        return build_array_cloud(array, names or (header if len(header) == array.shape[1] else ()))
    if len(array) != declared:
        raise RejectError("decode", f"is truncated: it holds {len(array)} of the {declared} points that it declares")
    own = tuple(names) or _PTS.get(array.shape[1], ())
    if not names and "intensity" in own:
        low, high = _PTS_INTENSITY
        if not (array[:, 3].min(initial=0) >= low and array[:, 3].max(initial=0) <= high):
            raise RejectError(
                "check", f"has PTS intensities that are not {low} to {high}; name it .xyz and set columns"
            )
        array[:, 3] = (array[:, 3] - low) / (high - low)
    return build_array_cloud(array, own)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Records:
    """The data that a header declares: rows of fields from a byte on, as text or binary."""

    dtype: np.dtype[Any]
    count: int
    begin: int
    is_text: bool

    def of(self, data: bytes) -> npt.NDArray[Any]:
        """Return the rows of a file. Raise RejectError if it has fewer."""
        if not self.is_text:
            self.check_size(len(data) - self.begin)
            return np.frombuffer(data, self.dtype, count=self.count, offset=self.begin)
        names = self.dtype.names or ()
        first = data.count(b"\n", 0, self.begin) + 1
        lines = data[self.begin :].decode("latin-1").splitlines()
        read = read_numbers(lines, first, dtype=self.dtype, most=self.count)
        if len(read) < self.count:
            self._cut_short(len(read))
        if read.shape[1] != len(names):
            raise RejectError("decode", f"has {read.shape[1]} numbers in a row, but {len(names)} fields in its header")
        rows = np.empty(self.count, self.dtype)
        for number, name in enumerate(names):
            rows[name] = read[:, number]
        return rows

    def check_size(self, size: int) -> None:
        """Raise RejectError unless this many bytes can contain all rows."""
        if self.count * self.dtype.itemsize > size:
            self._cut_short(size // self.dtype.itemsize)

    def _cut_short(self, found: int) -> None:
        raise RejectError(
            "decode", f"is truncated: it holds {found} of the {self.count} points that its header declares"
        )


_HEADER_BYTES = 1 << 16
_MOST_FIELDS = 1024
_PCD_TYPES = {("F", 4), ("F", 8), *((kind, size) for kind in "UI" for size in (1, 2, 4, 8))}
_LZF_RATIO = 88
"""Largest expansion of LZF: three bytes are a copy of 264."""


def read_pcd(path: Path) -> Cloud:
    """Read a PCD file. Raises RejectError if it is damaged."""
    data = read_source_file(path)
    records, kind = _read_pcd_header(data)
    rows = _unpacked(records, data) if kind == "binary_compressed" else records.of(data)
    columns = {name: rows[name] for name in rows.dtype.names or () if not name.startswith(UNUSED)}
    lists = [name for name, column in columns.items() if column.ndim > 1]
    columns = {name: column for name, column in columns.items() if column.ndim == 1}
    places = [columns[axis] for axis in XYZ if axis in columns]
    seen = np.isfinite(np.stack(places, axis=1)).all(axis=1) if places else np.ones(len(rows), dtype=np.bool_)
    found: dict[str, Column] = {}
    for name, column in columns.items():
        if name.startswith("rgb") and column.dtype.itemsize == 4:
            if records.is_text and np.isnan(column[seen]).any():
                raise RejectError("decode", f"writes {name} as nan, which loses its bits; save the file as binary")
            packed = column[seen].view(np.uint32)
            found |= {one: (packed >> at & 255).astype(np.uint8) for one, at in zip(COLOURS, (16, 8, 0), strict=True)}
        else:
            found[name] = column[seen]
    return build_named_cloud(found, n_invalid=int((~seen).sum()), left_out=lists)


def _read_pcd_header(data: bytes) -> tuple[_Records, str]:
    """Return the rows that a PCD file declares, and their encoding."""
    head = re.match(rb"(?s).*?^DATA[ \t]+(\w+)[ \t]*\r?\n", data[:_HEADER_BYTES], re.MULTILINE)
    if head is None:
        raise RejectError("open", f"is not a PCD file: it begins with {data[:16]!r} and has no line DATA")
    lines = head[0].decode("ascii", "replace").splitlines()
    said = {words[0]: words[1:] for line in lines if (words := line.split()) and not words[0].startswith("#")}
    kind = said["DATA"][0].lower()
    try:
        names, sizes = said["FIELDS"], [int(size) for size in said["SIZE"]]
        counts = [int(count) for count in said.get("COUNT", ["1"] * len(names))]
        typed = list(zip(said["TYPE"], sizes, counts, names, strict=True))
        if not all((one, size) in _PCD_TYPES and 0 < many <= _MOST_FIELDS for one, size, many, _ in typed):
            raise ValueError("a type that PCD does not have")
        fields = [
            (f"{UNUSED}{n}" if name == UNUSED else name, f"<{one.lower()}{size}", (many,) if many > 1 else ())
            for n, (one, size, many, name) in enumerate(typed)
        ]
        dtype = np.dtype(fields)
        points = int((said.get("POINTS") or said["WIDTH"])[0])
        if points < 0 or not fields or kind not in ("ascii", "binary", "binary_compressed"):
            raise ValueError(f"{points} points as {kind}")
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise RejectError("open", f"has a malformed PCD header ({type(error).__name__}: {error})") from error
    if kind == "ascii":
        dtype = np.dtype(_number_columns(fields))
    return _Records(dtype=dtype, count=points, begin=head.end(), is_text=kind == "ascii"), kind


def _number_columns(fields: Sequence[tuple[str, str, tuple[int, ...]]]) -> list[tuple[str, str]]:
    """Return a column of text for each value of a field."""
    columns: list[tuple[str, str]] = []
    for name, kind, shape in fields:
        columns += [(f"{name} {i}", kind) for many in shape for i in range(many)] or [(name, kind)]
    return columns


def _unpacked(records: _Records, data: bytes) -> npt.NDArray[Any]:
    """Return the rows of a compressed PCD file, which stores each field for all points."""
    if len(data) < records.begin + 8:
        raise RejectError("decode", "is truncated: it ends after its header")
    packed, whole = struct.unpack_from("<II", data, records.begin)
    begin = records.begin + 8
    if packed > len(data) - begin:
        raise RejectError("decode", f"is truncated: it holds {len(data) - begin} of {packed} compressed bytes")
    if whole > _LZF_RATIO * packed or whole < records.count * records.dtype.itemsize:
        records.check_size(min(whole, _LZF_RATIO * packed))
        raise RejectError("decode", f"declares {whole} bytes in {packed} compressed ones, which LZF cannot achieve")
    flat = decompress_lzf(data[begin : begin + packed], whole)
    rows, at = np.empty(records.count, records.dtype), 0
    for name in records.dtype.names or ():
        part = rows[name]
        rows[name] = np.frombuffer(flat, part.dtype, count=part.size, offset=at).reshape(part.shape)
        at += part.nbytes
    return rows


def decompress_lzf(data: bytes, size: int) -> bytes:
    """Decompress LZF.

    A byte below 32 is followed by that many literal bytes plus one. Other bytes begin a copy of earlier output: three
    bits of length, or seven and another byte, and thirteen bits of distance (LibLZF by M. Lehmann).

    Args:
        data: Compressed bytes.
        size: Size of the result.

    Raises:
        RejectError: The data is damaged.
    """
    made, at = bytearray(), 0
    try:
        while at < len(data):
            control = data[at]
            at += 1
            if control < 32:
                made += data[at : at + control + 1]
                at += control + 1
                continue
            length = control >> 5
            if length == 7:
                length += data[at]
                at += 1
            back, at, length = ((control & 31) << 8 | data[at]) + 1, at + 1, length + 2
            begin = len(made) - back
            if begin < 0 or len(made) + length > size:
                raise RejectError("decode", "has damaged compressed data")
            made += made[begin : begin + length] if back >= length else (made[begin:] * (length // back + 1))[:length]
    except IndexError as error:
        raise RejectError("decode", "has compressed data that ends too early") from error
    if len(made) != size:
        raise RejectError("decode", f"decompresses to {len(made)} bytes, but declares {size}")
    return bytes(made)


def read_ply(path: Path) -> Cloud:
    """Read the vertices of a PLY file. Raises RejectError if it is damaged."""
    data = read_source_file(path)
    header = read_ply_header(data)
    first, *others = header.elements
    if first.name != "vertex" or any(one.length for one in first.properties):
        what = "vertex with lists" if first.name == "vertex" else first.name
        raise RejectError(
            "open", f"its first element is {what}; a cloud must begin with vertex, with one number per property"
        )
    dtype = np.dtype([(one.name, one.dtype) for one in first.properties])
    rows = _Records(dtype=dtype, count=first.count, begin=header.begin, is_text=not header.order).of(data)
    left_out = [f"element {element.name}" for element in others if element.count]
    return build_named_cloud({name: rows[name] for name in rows.dtype.names or ()}, left_out=left_out)


_AT_ONCE = 1 << 20
_FEW_BYTES = 1 << 26
_SPHERE = ("sphericalRange", "sphericalAzimuth", "sphericalElevation")
_E57_NAMES = {"intensity", "colorRed", "colorGreen", "colorBlue", "nor:normalX", "nor:normalY", "nor:normalZ"}
_E57_LIMITS = {
    "intensity": ("intensityLimits", "intensity"),
    **{f"color{name.title()}": ("colorLimits", f"color{name.title()}") for name in COLOURS},
}
_STATES = ("cartesianInvalidState", "sphericalInvalidState")


def read_e57(path: Path) -> Cloud:
    """Read all scans of an E57 file. Raise RejectError if it is damaged, DatasetError if pye57 is not installed."""
    try:
        import pye57
    except ImportError as error:
        raise DatasetError("E57 files need pye57. Run `pip install 'maskstream[e57]'`") from error
    try:
        with pye57.E57(str(path)) as file:
            scans = [_scan(file, file.get_header(n), path.stat().st_size) for n in range(file.scan_count)]
    except RejectError:
        raise
    except Exception as error:  # libE57Format raises its own exceptions, and pye57 various others
        raise RejectError("decode", f"pye57 cannot read it ({type(error).__name__}: {error})") from error
    if not scans:
        raise RejectError("open", "has no scan; images alone are not points")
    names = [name for name in scans[0] if all(name in scan for scan in scans)]
    whole = {name: np.concatenate([scan[name] for scan in scans]) for name in names}
    invalid = whole.pop("invalid") > 0
    left_out = sorted({name for scan in scans for name in scan} - {*names})
    kept = {name: column[~invalid] for name, column in whole.items()}
    return build_named_cloud(kept, n_invalid=int(invalid.sum()), left_out=left_out)


def _scan(file: Any, header: Any, size: int) -> dict[str, Float64s]:
    """Return the columns of a scan by name, in the file's coordinates, and which points are `invalid`."""
    there, count = list(header.point_fields), int(header.point_count)
    places = [f"cartesian{axis.upper()}" for axis in XYZ]
    places = places if places[0] in there else list(_SPHERE)
    wanted = [name for name in there if name in {*places, *_E57_NAMES, *_STATES}]
    if 8 * count * len(wanted) > max(_FEW_BYTES, MEMORY_PER_BYTE * size):
        raise RejectError("check", f"declares {count} points of {len(wanted)} values in a file of {size} bytes")
    found = _read_e57_columns(file, header, wanted)
    for name in (one for one in _E57_LIMITS if one in found):
        low, high = _read_limits(header.node, *_E57_LIMITS[name])
        if high > low:
            found[name] = np.clip((found[name] - low) / (high - low), 0, 1)
    xyz = np.stack([found.pop(name) for name in places], axis=1)
    if places[0] == _SPHERE[0]:
        reach, azimuth, elevation = xyz.T
        flat = reach * np.cos(elevation)
        xyz = np.stack((flat * np.cos(azimuth), flat * np.sin(azimuth), reach * np.sin(elevation)), axis=1)
    if header.has_pose():
        xyz = np.asarray(file.to_global(xyz, header.rotation, header.translation))
    states = [found.pop(name) for name in _STATES if name in found]
    invalid = np.any([state > 0 for state in states], axis=0) if states else np.zeros(count, dtype=np.bool_)
    return {**dict(zip(XYZ, xyz.T, strict=True)), **found, "invalid": invalid.astype(np.float64)}


def _read_e57_columns(file: Any, header: Any, names: Sequence[str]) -> dict[str, Float64s]:
    """Read columns of a scan. Raises RejectError if it has fewer points than it declares."""
    from pye57 import libe57

    count = int(header.point_count)
    buffers, part = libe57.VectorSourceDestBuffer(), {name: np.empty(min(count, _AT_ONCE)) for name in names}
    for name, values in part.items():
        buffers.append(libe57.SourceDestBuffer(file.image_file, name, values, len(values), True, True))
    columns = {name: np.empty(count) for name in names}
    reader, at = header.points.reader(buffers), 0
    while count and (n := reader.read()):
        for name, values in part.items():
            columns[name][at : at + n] = values[:n]
        at += n
    if at < count:
        raise RejectError("decode", f"is truncated: it holds {at} of the {count} points that its header declares")
    return columns


def _read_limits(node: Any, limits: str, name: str) -> tuple[float, float]:
    """Return the smallest and the largest value that a scan declares for a column; 0, 0 if it declares none."""
    if not node.isDefined(limits):
        return 0.0, 0.0
    own = [node[limits][f"{name}{end}"] for end in ("Minimum", "Maximum") if node[limits].isDefined(f"{name}{end}")]
    return (float(own[0].value()), float(own[1].value())) if len(own) == 2 else (0.0, 0.0)
