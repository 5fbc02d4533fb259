"""What a GLB file declares, before trimesh takes memory for it.

An accessor may have no data, and is zeros then; meshes may share data, and nodes may place a mesh many times. So a few
hundred bytes can declare any size. Source: glTF 2.0, 3.6.2 (accessors), 3.5 (nodes), 4.4 (GLB).
"""

from __future__ import annotations

import json
import struct
from typing import Any

from maskstream.preprocess.encode.limits import MEMORY_PER_BYTE
from maskstream.preprocess.source import RejectError

_JSON = 0x4E4F534A
_COMPONENT_BYTES = {5120: 1, 5121: 1, 5122: 2, 5123: 2, 5125: 4, 5126: 4}
_COMPONENTS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
_FEW_BYTES = 1 << 26


def check_glb(data: bytes) -> None:
    """Raise RejectError if the meshes of a file, as often as they are placed, take far more than its bytes."""
    try:
        length, kind = struct.unpack_from("<II", data, 12)
        if kind != _JSON:
            raise ValueError("its first chunk is no JSON")
        placed = _placed_bytes(json.loads(data[20 : 20 + length]))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, struct.error) as error:
        raise RejectError("open", f"is no GLB file, or damaged ({type(error).__name__}: {error})") from error
    if placed > (most := max(_FEW_BYTES, MEMORY_PER_BYTE * len(data))):
        raise RejectError("check", f"declares meshes of {placed} bytes in a file of {len(data)}; at most {most} may be")


def _placed_bytes(file: dict[str, Any]) -> int:
    """The bytes of all meshes, as often as nodes place them."""
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
    """The bytes of the meshes that a node and those below it place. Raises ValueError if it is below itself."""
    if below.setdefault(number, -1) >= 0:
        return below[number]
    node = nodes[number]
    own = meshes[node["mesh"]] if "mesh" in node else 0
    for child in node.get("children", ()):
        if below.get(child) == -1:
            raise ValueError(f"the node {child} is below itself")
        own += _add_below(child, nodes, meshes, below)
    below[number] = own
    return own
