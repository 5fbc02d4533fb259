"""The clients of object stores and web servers: how they retry, how long they wait, and where credentials come from.

The main thread waits, and another makes the request (`waited_for`): a client in Rust takes no notice of Ctrl-C for as
long as it retries.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

from obstore.exceptions import BaseError, GenericError, PermissionDeniedError, UnauthenticatedError
from obstore.store import AzureStore, GCSStore, HTTPStore, S3Store

from maskstream.shards.errors import MissingFileError, OutageError

from .url import StorePlace, hide_password, parse_place

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

log = logging.getLogger(__name__)

T = TypeVar("T")

BUCKETS = ("s3", "gs", "az")
"""The schemes of object stores, which can be written to. In `az://`, a bucket is a container."""
CONNECT_S, READ_S = 10.0, 30.0
"""How long a connection may take, and how long a server may send nothing."""
LEAST_BYTES_S = 1024
"""How many bytes a second a server must send of a file, on average over READ_S seconds (remote_files.py)."""
ASK_S, RANGE_S, FILE_S = 300.0, 3600.0, 86400.0
"""How long a request may take in all: one for facts, lists or several ranges; one for a range; one for a file, or that
writes. The first bound what no answer's rate does: headers that come byte by byte."""
MAX_RETRIES, RETRY_S = 10, 120.0
"""How often a request is tried again, and within which time from its first try."""
TOLD_S = 15.0
"""After so many seconds the main thread says that it waits."""
LEAST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
_ENDPOINTS = (
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT",
    "AZURE_STORAGE_ENDPOINT",
    "AZURE_ENDPOINT",
    "AZURITE_BLOB_STORAGE_URL",
)
_ALLOW = ("AWS_ALLOW_HTTP", "AZURE_ALLOW_HTTP")
_BEFORE_PROFILES = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_SKIP_SIGNATURE")
"""What Amazon's tools look at before they look for a profile."""
_CREDENTIALS = "~/.aws/credentials"
_MACHINE = "169.254."
"""The beginning of the addresses where a machine asks for its own credentials."""
_MOST_WORDS = 300
_SECRET = re.compile("KEY|SECRET|TOKEN|PASSWORD|SAS|SIGNATURE", re.IGNORECASE)
_HEADER = re.compile(
    r"""((?:authorization|cookie|[\w-]*token|[\w-]*signature|sig|[\w-]*credential)["']?\s*[:=]\s*)"""
    r"""(?:"[^"]*"?|'[^']*'?|(?:(?:bearer|basic|sharedkey|aws4-hmac-sha256)\s+)?[^\s,;&<>"'})]+)""",
    re.IGNORECASE,
)
"""A header or parameter whose value is secret, as a server may send it back."""
_ELEMENT = re.compile(r"(<[\w-]*(?:token|signature|credential)[\w-]*>)[^<]+", re.IGNORECASE)
_HIDDEN, _SHORT = "(hidden)", 5
_KEYS = {
    "s3": "export AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_ENDPOINT_URL for a server of your own)",
    "gs": "export GOOGLE_APPLICATION_CREDENTIALS, the path of a key file",
    "az": "export AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
"""Where each store's keys are taken from; more ways are in docs/stores.md."""
_NO_LENGTH = "Content-Length Header missing"
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")
"""What stores say where there is no bucket; a server may have a file that is missing too, which is another thing."""

_started_in: int | None = None
"""The process in which this package first used a client. Its threads do not survive a fork."""


def open_bucket_client(place: StorePlace, total_s: float = RANGE_S) -> ObjectStore:
    """The client of the whole bucket or server of a place, for reading, whose requests take at most `total_s` seconds;
    the stores of a process share one.

    Raises OutageError in a process that was forked after a client was used: there a request would never end.
    """
    return _client(place.scheme, place.bucket, "", READ_S, total_s)


def make_client(location: str, *, read_timeout_s: float = READ_S) -> ObjectStore:
    """A client of the folder at a URL with a scheme of `BUCKETS`, for writing. Names are relative to the folder.

    Raises ValueError for another location, OutageError as `open_bucket_client` does.
    """
    place = parse_place(location)
    if place.scheme not in BUCKETS:
        legal = ", ".join(f"{scheme}://BUCKET/FOLDER" for scheme in BUCKETS)
        raise ValueError(f"{location!r} is no place in an object store; legal are {legal}")
    return _client(place.scheme, place.bucket, place.folder, read_timeout_s, FILE_S)


def _client(scheme: str, bucket: str, folder: str, read_s: float, total_s: float) -> ObjectStore:
    global _started_in
    if _started_in not in (None, os.getpid()):
        raise OutageError(
            f"{bucket} cannot be reached in a process that was forked after its parent had used a store; start "
            "processes by 'spawn' or 'forkserver' (multiprocessing_context= of a DataLoader)"
        )
    _started_in = os.getpid()
    try:
        return _made(scheme, bucket, folder, read_s, total_s, _read_environment())
    except BaseError as error:
        raise ValueError(f"{scheme}://{bucket} cannot be opened ({say_why(error)}); see docs/stores.md") from None


def make_retry_policy() -> RetryConfig:
    """How requests are tried again."""
    pauses = {"init_backoff": LEAST_PAUSE_S, "max_backoff": LONGEST_PAUSE_S}
    backoff = {name: timedelta(seconds=seconds) for name, seconds in pauses.items()}
    return {
        "max_retries": MAX_RETRIES,
        "retry_timeout": timedelta(seconds=RETRY_S),
        "backoff": {"base": 2, "init_backoff": backoff["init_backoff"], "max_backoff": backoff["max_backoff"]},
    }


def waiting(read_s: float, total_s: float, *, allow_http: bool, headers: dict[str, str] | None = None) -> ClientConfig:
    """How long requests wait, and whether they may be unencrypted."""
    options: ClientConfig = {
        "allow_http": allow_http,
        "connect_timeout": timedelta(seconds=CONNECT_S),
        "read_timeout": timedelta(seconds=read_s),
        "timeout": timedelta(seconds=total_s),
    }
    if headers:
        options["default_headers"] = headers
    return options


@contextmanager
def store_errors(where: str) -> Iterator[None]:
    """Raises MissingFileError and OutageError for what a client raises about `where`, without that error as their
    cause: its text may have secrets.
    """
    try:
        yield
    except (FileNotFoundError, GenericError) as error:
        if any(code in str(error) for code in _NO_BUCKET):
            raise OutageError(
                f"there is no bucket {parse_place(where).bucket!r} for {where}; create it, or give another"
            ) from None
        if isinstance(error, FileNotFoundError):
            raise MissingFileError(f"there is no file {where}") from None
        if _MACHINE in str(error) and parse_place(where).scheme in _KEYS:
            raise OutageError(
                f"there are no credentials for {where} ({say_why(error)}); {_KEYS[parse_place(where).scheme]}, or run "
                "where the machine has an account for it; see docs/stores.md"
            ) from None
        if _NO_LENGTH in str(error):
            raise OutageError(
                f"{where} comes without its size (Content-Length), which is how a file that was cut is told; have the "
                "server send files as they are, not in chunks or compressed on the way, or copy them to a local disk"
            ) from None
        raise OutageError(f"{where} cannot be reached ({say_why(error)})") from None
    except (UnauthenticatedError, PermissionDeniedError) as error:
        raise OutageError(
            f"{where} may not be accessed with these credentials ({say_why(error)}); see docs/stores.md"
        ) from None
    except BaseError as error:
        raise OutageError(f"{where}: {say_why(error)}") from None


def waited_for(where: str, request: Callable[[], T]) -> T:
    """What a request for `where` gives.

    A client takes no notice of signals. So the main thread lets another one make the request: Ctrl-C then ends the
    wait, and a long one is told.
    """
    if threading.current_thread() is not threading.main_thread():
        return request()
    answer: Future[T] = Future()
    threading.Thread(target=_wait_for_answer, args=(answer, request), name="maskstream-request", daemon=True).start()
    while True:
        done, _ = wait([answer], TOLD_S)
        if done:
            return answer.result()
        log.warning("still waiting for %s; it is tried for %g s", where, RETRY_S)


def _wait_for_answer(answer: Future[T], request: Callable[[], T]) -> None:
    try:
        answer.set_result(request())
    except BaseException as error:
        answer.set_exception(error)


def is_beyond_the_end(error: GenericError) -> bool:
    """Whether a server says that a file ends before the range that it was asked for (416)."""
    return "status code: 416" in str(error)


def say_why(error: Exception) -> str:
    """What a client's error says, on one line, without its debug output, the page of a server, and secrets."""
    text = " ".join(str(error).partition("Debug source")[0].partition("<!DOCTYPE")[0].split())
    return hide_secrets(text)[:_MOST_WORDS].rstrip(" :")


def hide_secrets(text: str) -> str:
    """A text without passwords in URLs, the secrets of this process's environment, and signatures, tokens and cookies,
    which a server may send back.
    """
    named = [value.partition("=") for value in _read_environment()]
    for secret in sorted((value for name, _, value in named if _SECRET.search(name) and len(value) > 3), key=len)[::-1]:
        for form in {secret, quote(secret, safe=""), quote(secret), *filter(None, secret.split("="))}:
            if len(form) > _SHORT:
                text = text.replace(form, _HIDDEN)
    return _ELEMENT.sub(rf"\1{_HIDDEN}", _HEADER.sub(rf"\1{_HIDDEN}", hide_password(text)))


def _read_environment() -> tuple[str, ...]:
    """What in the environment a client depends on, so that a change of it makes another client."""
    ours = ("AWS_", "AZURE_", "AZURITE_", "GOOGLE_", "HF_")
    return tuple(sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith(ours)))


@lru_cache(maxsize=64)
def _made(
    scheme: str, bucket: str, folder: str, read_s: float, total_s: float, environment: tuple[str, ...]
) -> ObjectStore:
    retry_config, prefix = make_retry_policy(), folder or None
    if scheme == "http":
        return HTTPStore(bucket, client_options=waiting(read_s, total_s, allow_http=True), retry_config=retry_config)
    if scheme == "hf":
        token = os.environ.get("HF_TOKEN")
        headers = {"authorization": f"Bearer {token}"} if token else None
        options = waiting(read_s, total_s, allow_http=bucket.startswith("http://"), headers=headers)
        return HTTPStore(bucket, client_options=options, retry_config=retry_config)
    options = waiting(read_s, total_s, allow_http=_is_http_allowed())
    if scheme == "gs":
        return GCSStore(bucket, prefix=prefix, client_options=options, retry_config=retry_config)
    if scheme == "az":
        return AzureStore(bucket, prefix=prefix, client_options=options, retry_config=retry_config)
    if _has_profile():
        return _open_profile_client(bucket, prefix, options, retry_config)
    return S3Store(bucket, prefix=prefix, client_options=options, retry_config=retry_config)


def _has_profile() -> bool:
    """Whether Amazon's tools would use a profile."""
    if any(name in os.environ for name in _BEFORE_PROFILES):
        return False
    file = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE", _CREDENTIALS)).expanduser()
    return "AWS_PROFILE" in os.environ or file.is_file()


def _is_http_allowed() -> bool:
    """Whether the environment asks for a server without TLS."""
    endpoints = (os.environ.get(name, "") for name in _ENDPOINTS)
    allowed = (os.environ.get(name, "").lower() in ("1", "true") for name in _ALLOW)
    return any(endpoint.startswith("http://") for endpoint in endpoints) or any(allowed)


def _open_profile_client(bucket: str, prefix: str | None, options: ClientConfig, retry_config: RetryConfig) -> S3Store:
    """A client with the credentials of a profile (keys, SSO, roles), which boto3 reads."""
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError as error:
        raise ValueError(
            "the profiles of AWS_PROFILE and ~/.aws/credentials need boto3 (pip install boto3); or set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from error
    return S3Store(
        bucket,
        prefix=prefix,
        client_options=options,
        retry_config=retry_config,
        credential_provider=Boto3CredentialProvider(),
    )
