"""A decoder that answers as NVDEC would, played by PyAV behind DALI's interface; the rest of DALI's graph is real.

It hands out memory that it did not write where NVDEC gives no pictures or DALI reads the wrong rows: of H.264 that does
not begin with an IDR picture, and where the coded size is not the one that is shown. It raises for what an H100 does
not decode.
"""

import io

import av
import numpy as np

from maskstream.pipelines.decode.cpu import PLANAR_420, build_rgb_matrix
from maskstream.pipelines.modalities.video import dali, packing
from maskstream.pipelines.modalities.video.dali import clip_graph

from .packed_videos import CPU

POISON = 255


class FakeNvdec:
    """fault: changes the frames of a clip, uint8 (F, height, width, 3), or raises."""

    def __init__(self, rows, views, size, fault=None):
        self.graph = clip_graph(rows, views, size, 1, CPU, encoded=False)
        self.max_batch_size, self.fault, self.runs = rows, fault or (lambda frames: frames), 0

    def build(self):
        self.graph.build()

    def run(self, *, video, frames, **others):
        self.runs += 1
        decoded = [self.fault(decoded_by_nvdec(mp4.tobytes())[own]) for mp4, own in zip(video, frames, strict=True)]
        return self.graph.run(video=decoded, **others)


def decoded_by_nvdec(mp4):
    """RGB in BT.601 of all frames of a packed clip, uint8 (frames, height, width, 3)."""
    with av.open(io.BytesIO(mp4)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        assert stream.frames == len(packets), "the number of frames is known before a packet is parsed"
        context = stream.codec_context
        found = sorted((frame for packet in [*packets, None] for frame in context.decode(packet)), key=lambda f: f.pts)
        if found[0].format.name not in PLANAR_420:
            raise RuntimeError("NVDEC does not decode 10 bits of H.264 here")
        rgb = np.stack([rgb_601(frame) for frame in found])
        lost = context.name == "h264" and not has_idr(bytes(packets[0]), (context.extradata[4] & 3) + 1)
        if lost or (context.coded_width, context.coded_height) != (context.width, context.height):
            rgb[:] = POISON
        return rgb


def rgb_601(frame):
    y, u, v = (plane_of(plane) for plane in frame.planes)
    chroma = [np.kron(plane, np.ones((2, 2)))[: y.shape[0], : y.shape[1]] for plane in (u, v)]
    planes = np.stack([y, *chroma, np.ones_like(y)], axis=-1)
    return (planes @ build_rgb_matrix("bt601", frame.color_range == 2).T).round().clip(0, 255).astype(np.uint8)


def plane_of(plane):
    return np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width].astype(np.float64)


def has_idr(packet, lengths):
    at = 0
    while at + lengths < len(packet):
        if packet[at + lengths] & 31 == 5:
            return True
        at += lengths + int.from_bytes(packet[at : at + lengths], "big")
    return False


def pretend(monkeypatch, fault=None):
    """Puts the decoder in DALI's place; returns the list of those that are made."""
    made = []

    def built(rows, views, size, threads, device):
        made.append(FakeNvdec(rows, views, size, fault))
        return made[-1]

    monkeypatch.setattr(dali, "clip_graph", built)
    monkeypatch.setattr(packing, "missing_libraries", list)
    return made
