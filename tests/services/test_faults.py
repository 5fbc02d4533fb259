"""The proxy of faults: what passes is right, what it injects is what it counts, and the seed decides."""

import hashlib
import os
from datetime import timedelta
from pathlib import Path

import pytest
from obstore.exceptions import BaseError
from obstore.store import HTTPStore, S3Store

from .faults import KINDS, Faults
from .proxies import proxied
from .seaweedfs import BUCKET, S3Server, environment

pytestmark = pytest.mark.services

HTTP = {"allow_http": True}
PATIENT = {
    "max_retries": 30,
    "retry_timeout": timedelta(seconds=60),
    "backoff": {"init_backoff": timedelta(milliseconds=10), "max_backoff": timedelta(milliseconds=50), "base": 2.0},
}


def test_without_faults_every_byte_passes(web_server, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (web_server.folder / "passes").write_bytes(data)
    with proxied(web_server.port, Faults(share=0, delay_s=(0.03, 0.08)), tmp_path) as proxy:
        store = HTTPStore.from_url(proxy.url, client_options=HTTP)
        assert bytes(store.get("passes").bytes()) == data
        assert bytes(store.get_range("passes", start=7, end=99)) == data[7:99]
        assert store.head("passes")["size"] == len(data)
        counts = proxy.counts()
    assert counts.requests == 3
    assert counts.bytes_down == len(data) + 92
    assert not counts.faults


@pytest.mark.parametrize("kind", KINDS)
def test_each_fault_reaches_the_client(kind: str, web_server, tmp_path: Path) -> None:
    data = os.urandom(200_000)
    (web_server.folder / "faulty").write_bytes(data)
    never = {"max_retries": 0, "retry_timeout": timedelta(seconds=1), "backoff": PATIENT["backoff"]}
    with proxied(web_server.port, Faults(share=1, kinds=(kind,), stall_s=0.5), tmp_path) as proxy:
        store = HTTPStore.from_url(proxy.url, client_options=HTTP, retry_config=never)
        try:
            found = bytes(store.get("faulty").bytes())
        except Exception:
            found = b""
        assert len(found) < len(data)
        assert proxy.counts().faults == {kind: 1}


def test_the_seed_and_the_request_decide(web_server, tmp_path: Path) -> None:
    (web_server.folder / "seeded").write_bytes(bytes(10_000))
    outcomes = []
    for number, seed in enumerate((1, 1, 2)):
        with proxied(web_server.port, Faults(seed=seed, share=0.5, stall_s=0.1), tmp_path / str(number)) as proxy:
            store = HTTPStore.from_url(proxy.url, client_options=HTTP, retry_config=PATIENT)
            for begin in range(0, 10_000, 500):
                try:
                    store.get_range("seeded", start=begin, length=100)
                except Exception:
                    continue
            outcomes.append(proxy.counts())
    assert outcomes[0] == outcomes[1] != outcomes[2]
    assert sum(outcomes[0].faults.values()) > 5


def put_again_and_again(store: S3Store, name: str, data: bytes) -> None:
    """Put an object; obstore itself repeats neither the begin nor the end of a multipart upload."""
    for attempt in range(30):
        try:
            store.put(name, data, chunk_size=5 << 20)
            return
        except (BaseError, OSError):
            if attempt == 29:
                raise


def test_s3_signatures_and_multiparts_pass(s3_server: S3Server, tmp_path: Path) -> None:
    data = os.urandom(12 << 20)
    with proxied(s3_server.port, Faults(seed=3, share=0.4, stall_s=0.1), tmp_path) as proxy:
        at = environment(proxy.url)
        store = S3Store(
            BUCKET,
            prefix="faults",
            endpoint=proxy.url,
            access_key_id=at["AWS_ACCESS_KEY_ID"],
            secret_access_key=at["AWS_SECRET_ACCESS_KEY"],
            client_options=HTTP,
            retry_config=PATIENT,
        )
        for number in range(8):
            put_again_and_again(store, f"{number}", data[: number << 20])
        counts = proxy.counts()
    direct = S3Store(
        BUCKET,
        prefix="faults",
        endpoint=s3_server.endpoint,
        access_key_id=at["AWS_ACCESS_KEY_ID"],
        secret_access_key=at["AWS_SECRET_ACCESS_KEY"],
        client_options=HTTP,
    )
    for number in range(8):
        there = bytes(direct.get(f"{number}").bytes())
        assert hashlib.sha256(there).digest() == hashlib.sha256(data[: number << 20]).digest()
    assert counts.faults
    assert counts.bytes_up >= sum(number << 20 for number in range(8))
