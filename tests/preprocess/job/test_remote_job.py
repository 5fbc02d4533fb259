"""Jobs in an object store, which a small server in this process stands for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.preprocess.job.remote_jobs import RemoteJobs, pictures, run
from tests.s3_double import BUCKET, S3Double


class TestOnADouble(RemoteJobs):
    """Against the server of this process."""

    @pytest.fixture
    def place(self, double: S3Double) -> str:
        return f"s3://{BUCKET}/sets/a"


@pytest.mark.parametrize("conditional", ["refused", "ignored"])
def test_a_store_without_conditional_writes_holds_splits(conditional: str, double: S3Double, tmp_path: Path) -> None:
    double.conditional = conditional  # type: ignore[assignment]
    raw = pictures(tmp_path / "raw")
    for state in ("written", "already finished"):
        assert run(raw, f"s3://{BUCKET}/x").splits["train"].state == state


@pytest.mark.parametrize("out", ["http://host/x", "ftp://host/x", "hf://datasets/a/b", "s3:///x"])
def test_other_urls_are_refused_before_any_work(out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="s3"):
        run(tmp_path / "nothing", out)
    assert list(tmp_path.iterdir()) == []
