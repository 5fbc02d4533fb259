"""What names and contents make FFmpeg open: a file of the dataset, never another file, URL, pipe or device."""

from __future__ import annotations

import io
import os
import struct
import time
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest

from maskstream.preprocess.encode.audio.sound import read_sound
from maskstream.preprocess.encode.audiovisual.encoder import read_track
from maskstream.preprocess.encode.video.source import decode
from maskstream.preprocess.encode.video.video import PROFILES, encode_video
from maskstream.preprocess.source import RejectError
from maskstream.shards.media.local_media import FORMATS, MediaError, open_media
from tests.opened_files import listening, opened_files
from tests.preprocess.encode.sounds import wave, write_sound

DARK, BRIGHT = 30, 220
N_FRAMES = 5


def clip(path: Path, level: int) -> bytes:
    """A clip of one grey level with a sound of the same loudness."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        sound = container.add_stream("aac", rate=16000, layout="mono")
        for number in range(N_FRAMES):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), level, np.uint8), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        tone = av.AudioFrame.from_ndarray(np.full((1, 8000), level / 255, np.float32), format="fltp", layout="mono")
        tone.sample_rate = 16000
        container.mux(sound.encode(tone))
        container.mux(sound.encode(None))
    return path.read_bytes()


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A dataset's folder, which is the current one; beside it is the folder `outside`, with a bright clip."""
    clip(tmp_path / "outside" / "secret.mp4", BRIGHT)
    write_sound(tmp_path / "outside" / "secret.wav", wave(8000), 16000, "pcm_s16le")
    (tmp_path / "root").mkdir()
    monkeypatch.chdir(tmp_path / "root")
    return Path()


NAMES = (
    "http:/127.0.0.1:{port}/x.mp4",
    "http:/127.0.0.1:{port}/x.wav",
    "tcp:/127.0.0.1:{port}/x.mp4",
    "rtmp:/127.0.0.1:{port}/x.mp4",
    "rtsp:/127.0.0.1:{port}/x.mp4",
    "async:http:/127.0.0.1:{port}/x.mp4",
    "cache:http:/127.0.0.1:{port}/x.mp4",
    "hls+http:/127.0.0.1:{port}/x.m3u8.mp4",
    "subfile,,start,0,end,0,,:../outside/secret.mp4",
    "file:../outside/secret.mp4",
    "crypto:../outside/secret.mp4",
    "crypto+file:../outside/secret.mp4",
    "cache:../outside/secret.mp4",
    "concat:../outside/secret.mp4|../outside/secret.mp4",
    "concatf:../outside/secret.mp4",
    "data:text/plain;base64,eA==.mp4",
    "pipe:0",
    "fd:0.mp4",
    "%03d.mp4",
    "-",
    "-i.mp4",
    "new\nline.mp4",
    "caf\udce9.mp4",
    "tab\t\x1b[31m.mp4",
    " .mp4",
    "a?b=c#d.mp4",
    "a%2fb.mp4",
    "\N{RIGHT-TO-LEFT OVERRIDE}4pm.mp4",
)


def test_a_file_is_read_whatever_its_name_says(root, tmp_path):
    """Each name holds the dark clip. The folder outside, the server and standard input stay untouched."""
    with opened_files(tmp_path / "outside") as opened, listening() as (port, requests):
        for form in NAMES:
            path = root / form.format(port=port)
            clip(tmp_path / "plain.mp4", DARK)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((tmp_path / "plain.mp4").read_bytes())
            frames = [frame.to_ndarray(format="gray") for frame in decode(path)]
            assert len(frames) == N_FRAMES, path
            assert max(int(frame.max()) for frame in frames) < DARK + 20, path
            assert encode_video(path, PROFILES["train"]).index.n_frames == N_FRAMES
            assert np.abs(read_sound(path).samples).max() < 0.3
            assert np.abs(read_track(path, 0.0, 0.2).sound.samples).max() < 0.3
    assert requests == []
    assert opened == []


def test_the_attacks_work_on_plain_ffmpeg(root, tmp_path):
    """The names above do reach other places when FFmpeg gets them as they are."""
    with av.open("subfile,,start,0,end,0,,:../outside/secret.mp4") as container:
        assert next(container.decode(video=0)).to_ndarray(format="gray").min() > BRIGHT - 20
    with listening() as (port, requests), pytest.raises((av.FFmpegError, OSError)):
        av.open(f"http:/127.0.0.1:{port}/x.mp4", timeout=5)
    assert len(requests) == 1
    with opened_files(tmp_path / "outside") as opened:
        av.open("file:../outside/secret.mp4").close()
    assert opened == ["secret.mp4"]


def texts(port: int) -> dict[str, str]:
    """Texts that FFmpeg takes for a list of other media, by kind."""
    secret, url = "../outside/secret.mp4", f"http://127.0.0.1:{port}/x.ts"
    hls = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"
    return {
        "concat": f"ffconcat version 1.0\nfile {secret}\n",
        "concat of a url": f"ffconcat version 1.0\nfile {url}\n",
        "hls": hls.format(secret),
        "hls of a url": hls.format(url),
        "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT1S"><Period><AdaptationSet mimeType="video/mp4"><Representation id="1" '
        f'bandwidth="1"><BaseURL>{url}</BaseURL></Representation></AdaptationSet></Period></MPD>',
        "sdp": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n"
        "a=rtpmap:96 H264/90000\n",
        "ffmetadata": ";FFMETADATA1\ntitle=x\n",
        "subtitles": "1\n00:00:01,000 --> 00:00:02,000\nx\n",
        "ansi": "\x1b[31mred\x1b[0m\n" * 20,
    }


@pytest.mark.parametrize("ending", [".mp4", ".wav", ".m3u8", ".txt", ".mpd", ".ts"])
def test_text_and_playlists_are_refused(root, tmp_path, ending):
    with opened_files(tmp_path / "outside") as opened, listening() as (port, requests):
        for kind, text in texts(port).items():
            path = root / f"x{ending}"
            path.write_text(text)
            for read in (read_sound, lambda path: list(decode(path)), lambda path: read_track(path, 0.0, 1.0)):
                with pytest.raises(RejectError, match="text file or a playlist") as caught:
                    read(path)
                assert caught.value.stage == "open", kind
            with pytest.raises(MediaError, match="text file or a playlist"):
                open_media(text.encode())
    assert requests == []
    assert opened == []


def test_a_playlist_is_refused_before_it_is_followed(root, tmp_path):
    """An option that a caller passes does not open the door again; FFmpeg alone does follow the list."""
    text = f"ffconcat version 1.0\nfile file:{tmp_path / 'outside' / 'secret.mp4'}\n".encode()
    with av.open(io.BytesIO(text), options={"safe": "0"}) as container:
        assert len(list(container.decode(video=0))) == N_FRAMES
    with opened_files(tmp_path / "outside") as opened, pytest.raises(MediaError, match="playlist"):
        open_media(text, safe="0", protocol_whitelist="file", format_whitelist="concat")
    assert opened == []


def with_media_in(data: bytes, path: Path) -> bytes:
    """An MP4 without its own media, whose tracks say that they lie in `path` (a data reference, QuickTime's `alis`)."""
    at = data.index(b"mdat")
    size = int.from_bytes(data[at - 4 : at], "big")
    data = data[: at + 4] + bytes(size - 8) + data[at - 4 + size :]
    name = os.fsencode(path)
    tail = struct.pack(">hH", 2, len(name)) + name + bytes(len(name) % 2) + struct.pack(">hH", -1, 0)
    alias = bytes(10) + b"\0" + bytes(27) + bytes(12) + b"\0" + bytes(63) + bytes(16) + bytes(4) + bytes(16) + tail
    entry = struct.pack(">I4sI", 12 + len(alias), b"alis", 0) + alias
    return boxes(data, struct.pack(">I4sII", 16 + len(entry), b"dref", 0, 1) + entry)


def boxes(data: bytes, dref: bytes) -> bytes:
    """The boxes of an MP4 with another `dref`."""
    out, at = b"", 0
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + size]
        if kind == b"dref":
            out += dref
        else:
            body = boxes(body, dref) if kind in (b"moov", b"trak", b"mdia", b"minf", b"dinf") else body
            out += struct.pack(">I4s", 8 + len(body), kind) + body
        at += size
    return out


def test_an_mp4_with_its_media_elsewhere_opens_nothing(root, tmp_path):
    secret = tmp_path / "outside" / "secret.mp4"
    data = with_media_in(secret.read_bytes(), secret)
    Path("own.mp4").write_bytes(data)
    follow = {"enable_drefs": "1", "use_absolute_path": "1"}
    with av.open("own.mp4", options=follow) as container:  # the reference works
        assert next(container.decode(video=0)).to_ndarray(format="gray").min() > BRIGHT - 20
    with opened_files(secret.parent) as opened:
        for source, options in ((data, {}), (data, follow), (Path("own.mp4"), {})):
            frames = []
            with open_media(source, **options) as container, suppress(av.FFmpegError):
                frames += container.decode(video=0)
            assert not frames
        with pytest.raises(RejectError):
            encode_video(Path("own.mp4"), PROFILES["train"])
    assert opened == []


@pytest.mark.parametrize("name", ["%03d.jpg", "frame%d.png"])
def test_a_name_is_no_pattern_of_names(root, name):
    """FFmpeg would read 001.jpg, 002.jpg, ...: the demuxer of sequences is refused by the file's name alone."""
    clip(root / "plain.mp4", DARK)
    (root / "plain.mp4").rename(root / name)
    with opened_files(root) as opened, pytest.raises(RejectError, match="unsupported format"):
        list(decode(root / name))
    assert set(opened) <= {name}


def test_pipes_devices_and_folders_are_refused_at_once(root):
    os.mkfifo("pipe.mp4")
    os.symlink("/dev/zero", "device.mp4")
    os.mkdir("folder.mp4")
    began = time.monotonic()
    for name, what in (("pipe.mp4", "a pipe"), ("device.mp4", "a device"), ("folder.mp4", "a folder")):
        for read in (read_sound, lambda path: list(decode(path)), lambda path: read_track(path, 0.0, 1.0)):
            with pytest.raises(RejectError, match=f"is not a file but {what}"):
                read(Path(name))
    assert time.monotonic() - began < 1


def test_the_formats_are_known_and_need_no_file_of_their_own():
    no_file = 0x0001
    for name in FORMATS.split(","):
        assert not av.ContainerFormat(name, "r").flags & no_file, name
    refused = {"hls", "concat", "image2", "lavfi", "sdp", "rtsp", "webm_dash_manifest", "vobsub", "tty", "data"}
    assert not refused & set(FORMATS.split(","))
