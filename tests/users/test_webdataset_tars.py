"""Tars of a webdataset pipeline, mp4 with txt and json, which stay as they are: an index, and captions as fields.

The user has trained with webdataset for years and wants the packets that a clip needs, without writing 40 TB again.
"""

from pathlib import Path

import pytest

from maskstream.pipelines import VideoClip, video_loader

from .conftest import Command, plain, write_video

LEVELS = tuple(range(40, 240, 20))


@pytest.mark.slow
def test_captions_go_with_their_clips(maskstream: Command, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    (tmp_path / "tars").mkdir()
    with webdataset.ShardWriter(str(tmp_path / "tars/clips-%06d.tar"), maxcount=4, verbose=0) as tars:
        for number, level in enumerate(LEVELS):
            video = write_video(tmp_path / "one.mp4", [plain(level)] * 40).read_bytes()
            about = {"level": level, "source": "camera"}
            tars.write({"__key__": f"{number:05d}", "mp4": video, "txt": f"a grey of {level}", "json": about})
    before = {path.name: path.read_bytes() for path in (tmp_path / "tars").iterdir()}

    assert "samples 10" in maskstream("index tars --out split").text
    maskstream("inspect split")
    maskstream("verify split --decode")
    loader = video_loader(
        tmp_path / "split", clip=VideoClip(frames=4, stride=4, size=32), fields=("txt", "level"), batch_size=5, seed=0
    )
    seen = []
    for batch in loader:
        for video, caption, level in zip(batch.video, batch.fields["txt"], batch.fields["level"], strict=True):
            assert caption == f"a grey of {int(level)}"
            assert abs(float(video.float().mean()) - int(level)) < 3
            seen.append(int(level))
    assert sorted(seen) == list(LEVELS)
    assert {path.name: path.read_bytes() for path in (tmp_path / "tars").glob("*.tar")} == before
