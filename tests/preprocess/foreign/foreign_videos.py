"""Small videos in every container that an index takes, each with a sound track."""

import io

import av
import numpy as np

N_FRAMES = 50


H264 = {"g": "16", "preset": "veryfast"}


OPEN = "open-gop=1:scenecut=0:bframes=3"


VIDEOS = {
    "moov-at-end.mp4": ("libx264", {**H264, "bf": "3"}, {}),
    "faststart.mp4": ("libx264", H264, {"movflags": "faststart"}),
    "fragmented.mp4": ("libx264", H264, {"movflags": "frag_keyframe+empty_moov"}),
    "open.mov": ("libx264", {**H264, "x264-params": OPEN}, {}),
    "open.mkv": ("libx265", {"preset": "ultrafast", "x265-params": f"{OPEN}:keyint=16:log-level=none"}, {}),
    "vp9.webm": ("libvpx-vp9", {"g": "16", "deadline": "realtime", "cpu-used": "8"}, {}),
    "av1.mkv": ("libsvtav1", {"g": "16", "preset": "12", "svtav1-params": "lp=1"}, {}),
    "av1.mp4": ("libsvtav1", {"g": "16", "preset": "12", "svtav1-params": "lp=1"}, {}),
}


def write_video(path, codec, options, muxer, *, seed=0):
    """A moving texture with a sound track that is interleaved with it."""
    rng = np.random.default_rng(seed)
    texture = np.repeat(np.repeat(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8), 4, 0), 4, 1)
    with av.open(str(path), "w", options=muxer) as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("aac" if path.suffix in (".mp4", ".mov") else "libopus", rate=48000)
        for i in range(N_FRAMES):
            picture = np.ascontiguousarray(np.roll(texture, (i, 2 * i), (0, 1)))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            noise = rng.normal(0, 0.1, (1, 1920)).astype(np.float32)
            tone = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
            tone.sample_rate, tone.pts = 48000, 1920 * i
            container.mux(sound.encode(tone))
        container.mux(stream.encode(None))
        container.mux(sound.encode(None))
    return path.read_bytes()


def trimmed(data, tmp_path):
    """The same packets with an edit list that hides the first five frames."""
    path = tmp_path / "trimmed.mp4"
    with av.open(io.BytesIO(data)) as source, av.open(str(path), "w") as container:
        stream = source.streams.video[0]
        copy = container.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.size:
                packet.pts -= 5 * 512
                packet.dts -= 5 * 512
                packet.stream = copy
                container.mux(packet)
    return path.read_bytes()
