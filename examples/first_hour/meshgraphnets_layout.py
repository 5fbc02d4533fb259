"""Simulations as DeepMind ships those of MeshGraphNets: meta.json, and a TFRecord file for each split.

Written by TensorBoard's writer of records and Google's protobuf: pip install tensorboard.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from tensorboard.summary.writer.record_writer import RecordWriter

STATIC = ("cells", "mesh_pos", "node_type")
Arrays = Mapping[str, np.ndarray]
"""By feature, (1, N, D) of a static one and (T, N, D) of another; int32 or float32."""


def write_set(root: Path, splits: Mapping[str, Sequence[Arrays]], dt_s: float = 0.01) -> None:
    """Write `meta.json` and `SPLIT.tfrecord`; the splits are train, valid and test."""
    root.mkdir(parents=True)
    like = next(iter(splits.values()))[0]
    features = {
        name: {
            "type": "static" if name in STATIC else "dynamic",
            "shape": [len(array), -1, array.shape[-1]],
            "dtype": array.dtype.name,
        }
        for name, array in like.items()
    }
    meta = {"simulator": "comsol", "dt": dt_s, "collision_radius": None, "features": features}
    meta |= {"field_names": list(features), "trajectory_length": max(len(array) for array in like.values())}
    (root / "meta.json").write_text(json.dumps(meta))
    for split, trajectories in splits.items():
        write_records(root / f"{split}.tfrecord", [message_of(arrays) for arrays in trajectories])


def write_records(path: Path, messages: Sequence[bytes]) -> None:
    """Write a TFRecord file."""
    with path.open("wb") as file:
        writer = RecordWriter(file)
        for message in messages:
            writer.write(message)
        writer.flush()


def message_of(arrays: Arrays) -> bytes:
    """A tf.train.Example of the arrays' bytes, with two features of other kinds beside them."""
    example = Example()
    example.features.feature["note"].float_list.value.extend([1.0, 2.0])
    example.features.feature["frames"].int64_list.value.extend([3, -1])
    for name, array in arrays.items():
        example.features.feature[name].bytes_list.value.append(array.tobytes())
    data: bytes = example.SerializeToString()
    return data


def _example_class() -> Any:
    """tf.train.Example, from its definition in example.proto and feature.proto."""
    proto = descriptor_pb2.FileDescriptorProto(name="example.proto", package="t", syntax="proto3")
    kinds = {"BytesList": "TYPE_BYTES", "FloatList": "TYPE_FLOAT", "Int64List": "TYPE_INT64"}
    repeated, field = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED, descriptor_pb2.FieldDescriptorProto
    for name, kind in kinds.items():
        proto.message_type.add(name=name).field.add(name="value", number=1, label=repeated, type=getattr(field, kind))
    feature = proto.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, (name, kind) in enumerate({"bytes": "BytesList", "float": "FloatList", "int64": "Int64List"}.items()):
        feature.field.add(
            name=f"{name}_list", number=number + 1, type=field.TYPE_MESSAGE, type_name=f".t.{kind}", oneof_index=0
        )
    features = proto.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=field.TYPE_STRING)
    entry.field.add(name="value", number=2, type=field.TYPE_MESSAGE, type_name=".t.Feature")
    features.field.add(
        name="feature", number=1, label=repeated, type=field.TYPE_MESSAGE, type_name=".t.Features.FeatureEntry"
    )
    whole = proto.message_type.add(name="Example")
    whole.field.add(name="features", number=1, type=field.TYPE_MESSAGE, type_name=".t.Features")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(proto)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Example"))


Example = _example_class()
