"""Check GLB files before trimesh reads them: how much they declare, and that all of their parts can be read.

An accessor may have no data, in which case it is zero; meshes may share data, and nodes may place a mesh many times, so
a few hundred bytes can declare any size. trimesh skips parts in forms and extensions that it does not support, or reads
wrong positions. Source: glTF 2.0, 3.6.2 (accessors), 3.5 (nodes), 3.7.2 (primitives), 4.4 (GLB).
"""

import json
import struct
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from maskstream.preprocess.encode.limits import MEMORY_PER_BYTE
from maskstream.preprocess.source import RejectError

from .expected import Expected

_JSON = 0x4E4F534A
_COMPONENT_BYTES = {5120: 1, 5121: 1, 5122: 2, 5123: 2, 5125: 4, 5126: 4}
_COMPONENTS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
_FEW_BYTES = 1 << 26
_TRIANGLES, _STRIP, _FAN = 4, 5, 6
_MODES = {0: "points", 1: "lines", 2: "a loop of lines", 3: "a strip of lines"}

DRACO, QUANTIZED = "KHR_draco_mesh_compression", "KHR_mesh_quantization"
_READ = (DRACO, QUANTIZED)
"""Extensions that trimesh reads; extensions of appearance, with the prefixes below, change no triangle."""
_LOOKS = ("KHR_materials_", "KHR_texture_", "EXT_texture_", "KHR_lights_", "EXT_lights_", "MSFT_texture_", "KHR_xmp")
_INSTANCES = "EXT_mesh_gpu_instancing"


def count_glb(data: bytes) -> Expected:
    """Count the triangles that a file displays.

    Args:
        data: Bytes of the file.

    Raises:
        RejectError: Its meshes, counted each time they are placed, exceed its size by far, or a part cannot be read;
            the reason names the part, the extension and the package that reads it.
    """
    try:
        length, kind = struct.unpack_from("<II", data, 12)
        if kind != _JSON:
            raise ValueError("its first chunk is not valid JSON")
        file = json.loads(data[20 : 20 + length])
        placed = _count_placed_bytes(file)
        if placed > (most := max(_FEW_BYTES, MEMORY_PER_BYTE * len(data))):
            raise RejectError(
                "check", f"declares meshes of {placed} bytes in a file of {len(data)}; the limit is {most}"
            )
        _check_extensions(file)
        for where, part in _parts(file):
            _check_part(where, part, file["accessors"])
        return _count_expected(file)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, struct.error) as error:
        raise RejectError("open", f"is not a GLB file, or damaged ({type(error).__name__}: {error})") from error


def _check_extensions(file: Mapping[str, Any]) -> None:
    """Raise RejectError for an unsupported extension that affects the file's geometry."""
    required = [name for name in file.get("extensionsRequired", ()) if not name.startswith(_LOOKS)]
    unread = [name for name in required if name not in _READ]
    if any(_INSTANCES in node.get("extensions", {}) for node in file.get("nodes", ())):
        unread.append(_INSTANCES)
    if unread:
        raise RejectError(
            "open",
            f"requires the extension {unread[0]}, which is not supported; remove it with gltf-transform or Blender",
        )


def _parts(file: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the primitives of all meshes, each with a description."""
    for m, mesh in enumerate(file.get("meshes", ())):
        for p, part in enumerate(mesh["primitives"]):
            yield f"part {p} of mesh {m} ({str(mesh.get('name', 'without a name'))[:40]})", part


def _check_part(where: str, part: Mapping[str, Any], accessors: list[Any]) -> None:
    """Raise RejectError for a primitive of triangles that trimesh would skip or misread."""
    if part.get("mode", _TRIANGLES) in _MODES:
        return
    if part.get("mode", _TRIANGLES) == _FAN:
        raise RejectError("open", f"{where} is a triangle fan, which is not supported; save it as triangles")
    positions = accessors[part["attributes"]["POSITION"]]
    used = [positions, *([accessors[part["indices"]]] if "indices" in part else [])]
    if any("sparse" in one for one in used):
        raise RejectError("open", f"{where} has sparse accessors, which are not supported; save it without them")
    if positions.get("normalized") and positions["componentType"] in (5120, 5121, 5122, 5123):
        raise RejectError(
            "open", f"{where} has normalised positions of {QUANTIZED}, which are not read; save it without"
        )
    if all("bufferView" in one for one in used):
        return
    if DRACO not in part.get("extensions", {}):
        raise RejectError("open", f"{where} has no data ({', '.join(part.get('extensions', {})) or 'no extension'})")
    if find_spec("DracoPy") is None:
        raise RejectError(
            "open", f"{where} is compressed with {DRACO}, which DracoPy reads: pip install 'maskstream[meshes]'"
        )


def _count_expected(file: dict[str, Any]) -> Expected:
    """Count the triangles that the default scene displays, and list the parts that are left out."""
    accessors, meshes, nodes = file.get("accessors", []), file.get("meshes", []), file.get("nodes", [])
    triangles: list[int] = [
        sum(_triangles(part, accessors) for part in mesh["primitives"]) for mesh in file.get("meshes", ())
    ]
    scenes = file.get("scenes", [])
    roots: list[int] = scenes[file.get("scene", 0)].get("nodes", []) if scenes else []
    below = dict[int, int]()
    shown = sum(_add_below(root, nodes, triangles, below) for root in roots)
    placed = {nodes[number].get("mesh") for number in below}
    left_out = [f"{where}: {_MODES[mode]}" for where, part in _parts(file) if (mode := part.get("mode", 4)) in _MODES]
    left_out += [f"mesh {m}: in no node of the scene" for m in range(len(meshes)) if m not in placed]
    return Expected(shown, tuple(left_out))


def _triangles(part: Mapping[str, Any], accessors: list[Any]) -> int:
    """Return the number of triangles of a primitive."""
    mode = part.get("mode", _TRIANGLES)
    corners = int(accessors[part["indices"] if "indices" in part else part["attributes"]["POSITION"]]["count"])
    return corners // 3 if mode == _TRIANGLES else max(corners - 2, 0) if mode == _STRIP else 0


def _count_placed_bytes(file: dict[str, Any]) -> int:
    """Return the bytes of all meshes, counted each time a node places them."""
    sizes: list[int] = [
        int(one["count"]) * _COMPONENTS[one["type"]] * _COMPONENT_BYTES[one["componentType"]]
        for one in file.get("accessors", ())
    ]
    meshes: list[int] = [
        sum(
            sizes[accessor]
            for part in mesh["primitives"]
            for accessor in (*part.get("attributes", {}).values(), *([part["indices"]] if "indices" in part else ()))
        )
        for mesh in file.get("meshes", ())
    ]
    nodes, below = file.get("nodes", []), dict[int, int]()
    for number in range(len(nodes)):
        _add_below(number, nodes, meshes, below)
    children = {child for node in nodes for child in node.get("children", ())}
    return sum(sizes) + sum(meshes) + sum(below[number] for number in range(len(nodes)) if number not in children)


def _add_below(number: int, nodes: list[Any], meshes: list[int], below: dict[int, int]) -> int:
    """Return the bytes of the meshes that a node and its descendants place. Raise ValueError if it is its own
    descendant.
    """
    if below.setdefault(number, -1) >= 0:
        return below[number]
    node = nodes[number]
    own = meshes[node["mesh"]] if "mesh" in node else 0
    for child in node.get("children", ()):
        if below.get(child) == -1:
            raise ValueError(f"the node {child} is its own descendant")
        own += _add_below(child, nodes, meshes, below)
    below[number] = own
    return own
