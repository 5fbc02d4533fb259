"""Opens a media file with FFmpeg so that it reads this file and nothing else.

FFmpeg may interpret a name as a URL, a device or a pattern of names, and a text as a playlist of other files. So a file
is passed as an absolute `file:` URL, no other protocol is allowed (none at all for bytes), and only self-contained
formats are read.
"""

import io
import os
import stat
from functools import partial
from pathlib import Path

import av
from av.container import InputContainer
from av.frame import Frame
from av.sidedata.sidedata import SideDataContainer, Type

from maskstream.shards.errors import MaskstreamError

FORMATS = (
    "mov,matroska,webm,avi,flv,live_flv,kux,asf,asf_o,mpegts,mpegtsraw,mpeg,ogg,nut,nuv,rm,ivr,mxf,gxf,lxf,wtv,dv,swf,"
    "vivo,pva,ty,dhav,nsv,ivf,cine,mlv,ser,r3d,gif,apng,jpegxl_anim,flic,yuv4mpegpipe,smjpeg,iff,smk,bink,roq,film_cpk,"
    "thp,usm,xmv,moflex,mods,"
    "h261,h263,h264,hevc,vvc,evc,apv,av1,obu,avs2,avs3,cavsvideo,dirac,dnxhd,m4v,mpegvideo,mjpeg,mjpeg_2000,vc1,vc1test,"
    "wav,w64,aiff,au,caf,flac,mp3,aac,loas,ac3,ac4,eac3,dts,dtshd,truehd,mlp,spdif,amr,amrnb,amrwb,ape,tak,tta,wv,mpc,"
    "mpc8,oma,aea,voc,sox,ircam,nistsphere,pvf,avr,shn,bonk,osq,qoa,rka,wavarc,gsm,ilbc,lc3,sbc,qcp,siff,wve,xwma,dsf,"
    "wsd,dss,epaf,hcom,iamf"
)
"""FFmpeg's names of the supported containers, video streams and audio formats. These demuxers open no other files.

Playlists (hls, dash, concat, sdp), image sequences (image2), scripts, subtitles, text and devices are excluded.
"""

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_open = av.open if int(av.__version__.partition(".")[0]) >= 19 else partial(av.open, metadata_errors="ignore")
"""Tags that are not valid UTF-8 are ignored; PyAV 19 always ignores them."""
_HEAD_BYTES = 4096
_CONTROL_BYTES = frozenset(range(32)) - frozenset(b"\t\n\v\f\r\x1b")


class MediaError(MaskstreamError):
    """FFmpeg cannot read the file, whatever its contents; the message continues a sentence after the file's name."""


def find_side_data(frame: Frame, kind: Type) -> object:
    """Return the side data of a frame that is of a kind, or None. It shares the frame's memory and keeps it alive.

    The frame's attribute `find_side_data` would create a reference cycle with the frame, which only a full garbage
    collection frees: a process would keep hundreds of unused frames.
    """
    return SideDataContainer(frame).get(kind)  # type: ignore[call-arg]


def open_media(source: Path | bytes, container: str | None = None, **options: str) -> InputContainer:
    """Open a file, or bytes in memory, with FFmpeg's demuxer.

    container: FFmpeg's name of the format; None detects it. options: FFmpeg's options. Raises MediaError if the source
    is empty, text or not a regular file, OSError if the file cannot be read, and av.FFmpegError or ValueError if FFmpeg
    cannot open it.
    """
    size_bytes = len(source) if isinstance(source, bytes) else read_regular_size(source)
    if not size_bytes:
        raise MediaError("is an empty file (0 bytes)")
    limits = {
        "protocol_whitelist": "" if isinstance(source, bytes) else "file",
        "format_whitelist": FORMATS,
    }
    file = io.BytesIO(source) if isinstance(source, bytes) else f"file:{source.absolute()}"
    try:
        return _open(file, "r", format=container, options={**options, **limits})
    except (av.FFmpegError, ValueError) as error:
        if _is_text(_read_head(source)):
            raise MediaError("is a text file or a playlist, not media that FFmpeg can open") from error
        if isinstance(error, av.ArgumentError):
            raise MediaError("is damaged, or has an unsupported format") from error
        raise


def read_regular_size(path: Path) -> int:
    """Return the size of a regular file in bytes. Raises MediaError for a folder, a pipe or a device, OSError if the
    file does not exist.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise MediaError(f"is not a file but {_KINDS.get(stat.S_IFMT(found.st_mode), 'something else')}")
    return found.st_size


def _read_head(source: Path | bytes) -> bytes:
    if isinstance(source, bytes):
        return source[:_HEAD_BYTES]
    with open(os.open(source, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        return file.read(_HEAD_BYTES)


def _is_text(head: bytes) -> bool:
    """Return whether the only control characters are those used in terminal text."""
    return bool(head) and _CONTROL_BYTES.isdisjoint(head)
