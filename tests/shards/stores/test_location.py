"""Which locations are legal, and what they lead to."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

import pytest
from obstore.exceptions import GenericError

from maskstream.shards.errors import OutageError
from maskstream.shards.stores import client
from maskstream.shards.stores.local import LocalStore
from maskstream.shards.stores.open import open_store
from maskstream.shards.stores.read_ahead import ReadAhead
from maskstream.shards.stores.url import StorePlace, beside, get_local_path, is_url, parse_place, split_name

from ...web_server import serving


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("s3://bucket/k400/train", StorePlace("s3", "bucket", "k400/train")),
        ("s3://bucket", StorePlace("s3", "bucket", "")),
        ("gs://bucket//k400/", StorePlace("gs", "bucket", "k400")),
        ("az://container/a b", StorePlace("az", "container", "a b")),
        ("https://host:8080/a%20b/c", StorePlace("http", "https://host:8080", "a b/c")),
        (
            "hf://datasets/me/k400/train",
            StorePlace("hf", "https://huggingface.co/datasets/me/k400/resolve/main", "train"),
        ),
        (
            "hf://datasets/me/k400@refs%2Fpr%2F1/a/b",
            StorePlace("hf", "https://huggingface.co/datasets/me/k400/resolve/refs%2Fpr%2F1", "a/b"),
        ),
    ],
)
def test_the_parts_of_a_url(url: str, place: StorePlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    assert parse_place(url) == place
    store = open_store(url)
    assert isinstance(store, ReadAhead)
    assert store.location == url.rstrip("/")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://host/a", "s3://, gs://, az://, http://, https://, hf://"),
        ("file:///a", "expected a local path"),
        ("s3://", "has no bucket"),
        ("https:///a", "has no server"),
        ("s3://b/a/../c", "'.' and '..' are not allowed"),
        ("https://host/a?token=x", "credentials as environment variables"),
        ("https://me:secret@host/a", "credentials as environment variables"),
        ("hf://datasets/me", "expected hf://datasets/OWNER/NAME/FOLDER"),
        ("hf://models/me/x/y", "expected hf://datasets/OWNER/NAME/FOLDER"),
    ],
)
def test_an_illegal_url_is_refused_with_what_is_legal(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words.replace(".", r"\.")) as raised:
        open_store(url)
    assert "secret" not in str(raised.value)


def test_paths_are_local(tmp_path: Path) -> None:
    for path in (tmp_path, str(tmp_path), "s3:", "a:b/c", "./http:/x"):
        assert not is_url(path)
        assert isinstance(open_store(path), LocalStore)
        assert get_local_path(path, "--out") == Path(path)
    with pytest.raises(ValueError, match=r"--out 's3://b/x': expected a local path"):
        get_local_path("s3://b/x", "--out")
    with pytest.raises(ValueError, match=r"pass it as a str"):
        open_store(Path("s3://b/x"))


def test_neighbours(tmp_path: Path) -> None:
    assert beside("s3://b/k400/val/", "train") == "s3://b/k400/train"
    assert beside(str(tmp_path / "val"), "train") == str(tmp_path / "train")


def test_the_hub_gets_the_token_and_its_redirects_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train/a b.json").write_bytes(b"from another host")
    with serving(tmp_path) as files, serving(tmp_path / "none") as hub:
        hub.redirects["/datasets/me/k400/resolve/refs%2Fpr%2F1"] = files.url.replace("127.0.0.1", "localhost")
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", "secret-token")
        (tmp_path / "train/b.json").write_bytes(b"0123456789")
        store = open_store("hf://datasets/me/k400@refs%2Fpr%2F1/train")
        assert store.unchecked("b.json", 3, 4) == b"3456"
        assert hub.headers["authorization"] == "Bearer secret-token"
        assert "authorization" not in files.headers


@pytest.mark.parametrize("how", ["AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE"])
def test_a_profile_needs_boto3(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS")]:
        monkeypatch.delenv(name)
    (tmp_path / "keys").write_text("[default]")
    monkeypatch.setenv(how, str(tmp_path / "keys"))
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ValueError, match=r"AWS_PROFILE and ~/.aws/credentials need boto3; run pip install boto3"):
        open_store("s3://bucket/x").size("a")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a key comes before a profile")
    assert not client._has_profile()


SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "s3cret/key+AB==",
    "AWS_SESSION_TOKEN": "FwoGsession",
    "AZURE_STORAGE_SAS_KEY": "sv=2022&sig=pEr%2Fmit99",
    "HF_TOKEN": "hf_t0ken",
}


@pytest.mark.parametrize(
    "said",
    [
        "url (http://me:pa55word@host:9/bucket?x=1): refused",
        "you sent {'Authorization': 'Bearer hf_t0ken', 'x-amz-security-token': 'of-a-profile1'}",
        '{"authorization": "AWS4-HMAC-SHA256 Credential=AK/of-a-profile1", "cookie": "of-a-profile1; b"}',
        "Authorization: Bearer of-a-profile1, GET /x?sv=2022&sig=pEr%2Fmit99&X-Amz-Signature=of-a-profile1",
        "GET /?sig=pEr%2Fmit99 pEr%2Fmit99 s3cret%2Fkey%2BAB%3D%3D s3cret/key+AB FwoGsession",
        "<Error><Code>ExpiredToken</Code><Token-0>of-a-profile1</Token-0></Error>",
    ],
)
def test_what_a_client_says_has_no_secrets(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    shown = client.say_why(GenericError(said))
    assert not any(one in shown for one in ("pa55", "s3cret", "FwoG", "pEr", "mit99", "t0ken", "of-a-profile1")), shown
    assert shown != said
    plain = "403 Forbidden: AccessDenied to x.tar"
    assert client.say_why(GenericError(plain)) == plain


def test_the_password_of_an_endpoint_is_in_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_RETRIES", 0)
    monkeypatch.setattr(client, "RETRY_S", 0.1)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://me:pa55word@127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "A")
    with pytest.raises(OutageError, match="cannot be reached") as raised:
        open_store("s3://bucket/x").size("a")
    assert "pa55" not in "".join(traceback.format_exception(raised.value))


def test_an_account_that_is_not_named_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AZURE")]:
        monkeypatch.delenv(name)
    with pytest.raises(ValueError, match=r"az://container cannot be opened .*[Aa]ccount.*`maskstream docs stores`"):
        open_store("az://container/x").size("a")


def test_a_server_without_tls_must_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://host")
    assert not client._is_http_allowed()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://host")
    assert client._is_http_allowed()


@pytest.mark.parametrize(
    ("location", "split", "name"),
    [
        ("/data/shards/pets/train", "train", "pets/train"),
        ("/data/shards/pets/train/", "val", "train"),
        ("s3://bucket/pets/val", "val", "pets/val"),
        ("https://host/mine", "train", "mine"),
        ("/train", "train", "train"),
    ],
)
def test_a_split_is_called_by_its_folders(location: str, split: str, name: str) -> None:
    assert split_name(location, split) == name


def test_a_split_is_called_by_its_folders_wherever_it_is_named_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pets").mkdir()
    monkeypatch.chdir(tmp_path / "pets")
    assert split_name("train", "train") == "pets/train"
