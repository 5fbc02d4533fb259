"""Clients of object stores and web servers: retries, timeouts and credentials.

The main thread waits while another thread makes the request (`waited_for`), since a client in Rust ignores Ctrl-C as
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
"""Schemes of object stores, which can be written to. In `az://`, a bucket is a container."""
CONNECT_S, READ_S = 10.0, 30.0
"""Timeouts: for connecting, and for a server that sends nothing."""
LEAST_BYTES_S = 1024
"""Slowest accepted rate of a file in bytes per second, averaged over READ_S seconds (remote_files.py)."""
ASK_S, RANGE_S, FILE_S = 300.0, 3600.0, 86400.0
"""Total time limits of a request: for facts, lists or several ranges; for one range; and for a whole file or a write.
They also stop headers that arrive byte by byte, which no minimum rate covers.
"""
MAX_RETRIES, RETRY_S = 10, 120.0
"""Maximum number of retries of a request, and the time since its first attempt within which they are made."""
TOLD_S = 15.0
"""Seconds after which the main thread logs that it is waiting."""
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
"""Variables that Amazon's tools check before they look for a profile."""
_CREDENTIALS = "~/.aws/credentials"
_MACHINE = "169.254."
"""Prefix of the addresses from which a machine gets its own credentials."""
_MOST_WORDS = 300
_SECRET = re.compile("KEY|SECRET|TOKEN|PASSWORD|SAS|SIGNATURE", re.IGNORECASE)
_HEADER = re.compile(
    r"""((?:authorization|cookie|[\w-]*token|[\w-]*signature|sig|[\w-]*credential)["']?\s*[:=]\s*)"""
    r"""(?:"[^"]*"?|'[^']*'?|(?:(?:bearer|basic|sharedkey|aws4-hmac-sha256)\s+)?[^\s,;&<>"'})]+)""",
    re.IGNORECASE,
)
"""A header or parameter with a secret value, which a server may echo."""
_ELEMENT = re.compile(r"(<[\w-]*(?:token|signature|credential)[\w-]*>)[^<]+", re.IGNORECASE)
_HIDDEN, _SHORT = "(hidden)", 5
_KEYS = {
    "s3": "export AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_ENDPOINT_URL for your own server)",
    "gs": "export GOOGLE_APPLICATION_CREDENTIALS, the path of a key file",
    "az": "export AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
"""How to supply each store's keys; docs/stores.md lists more ways."""
_NO_LENGTH = "Content-Length Header missing"
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")
"""Error codes for a missing bucket, as opposed to a missing file."""

_started_in: int | None = None
"""The process in which this package first used a client. The client's threads do not survive a fork."""


def open_bucket_client(place: StorePlace, total_s: float = RANGE_S) -> ObjectStore:
    """Return the reading client of a place's bucket or server, whose requests take at most `total_s` seconds.

    The stores of a process share it.

    Raises:
        OutageError: The process was forked after a client was used, so requests would never end.
        ValueError: The client cannot be created.
    """
    return _client(place.scheme, place.bucket, "", READ_S, total_s)


def make_client(location: str, *, read_timeout_s: float = READ_S) -> ObjectStore:
    """Create a client for writing to the folder at a URL with a scheme of `BUCKETS`. Names are relative to the folder.

    Raises:
        ValueError: The location is not in an object store.
        OutageError: As for `open_bucket_client`.
    """
    place = parse_place(location)
    if place.scheme not in BUCKETS:
        legal = ", ".join(f"{scheme}://BUCKET/FOLDER" for scheme in BUCKETS)
        raise ValueError(f"{location!r} is not a location in an object store; expected {legal}")
    return _client(place.scheme, place.bucket, place.folder, read_timeout_s, FILE_S)


def _client(scheme: str, bucket: str, folder: str, read_s: float, total_s: float) -> ObjectStore:
    global _started_in
    if _started_in not in (None, os.getpid()):
        raise OutageError(
            f"{bucket} cannot be reached in a process that was forked after its parent had used a store; "
            "start processes with 'spawn' or 'forkserver' (multiprocessing_context= of a DataLoader)"
        )
    _started_in = os.getpid()
    try:
        return _made(scheme, bucket, folder, read_s, total_s, _read_environment())
    except BaseError as error:
        raise ValueError(
            f"{scheme}://{bucket} cannot be opened ({say_why(error)}); see `maskstream docs stores`"
        ) from None


def make_retry_policy() -> RetryConfig:
    """Return how often and how fast requests are retried."""
    pauses = {"init_backoff": LEAST_PAUSE_S, "max_backoff": LONGEST_PAUSE_S}
    backoff = {name: timedelta(seconds=seconds) for name, seconds in pauses.items()}
    return {
        "max_retries": MAX_RETRIES,
        "retry_timeout": timedelta(seconds=RETRY_S),
        "backoff": {"base": 2, "init_backoff": backoff["init_backoff"], "max_backoff": backoff["max_backoff"]},
    }


def waiting(read_s: float, total_s: float, *, allow_http: bool, headers: dict[str, str] | None = None) -> ClientConfig:
    """Return a client's timeouts, headers, and whether it may use unencrypted HTTP."""
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
    """Turn a client's errors about `where` into MissingFileError or OutageError.

    The original error is not chained as the cause, because its text may contain secrets.
    """
    try:
        yield
    except (FileNotFoundError, GenericError) as error:
        if any(code in str(error) for code in _NO_BUCKET):
            raise OutageError(
                f"the bucket {parse_place(where).bucket!r} of {where} does not exist; create it, or choose a "
                "different one"
            ) from None
        if isinstance(error, FileNotFoundError):
            raise MissingFileError(f"{where} does not exist") from None
        if _MACHINE in str(error) and parse_place(where).scheme in _KEYS:
            raise OutageError(
                f"no credentials were found for {where} ({say_why(error)}); "
                f"{_KEYS[parse_place(where).scheme]}, or run where the machine has an account for it; see "
                "`maskstream docs stores`"
            ) from None
        if _NO_LENGTH in str(error):
            raise OutageError(
                f"{where} was sent without its size (Content-Length), which is needed to detect truncated "
                "files; configure the server to send files unchanged (no chunks, no compression), or copy "
                "them to a local disk"
            ) from None
        raise OutageError(f"{where} cannot be reached ({say_why(error)})") from None
    except (UnauthenticatedError, PermissionDeniedError) as error:
        raise OutageError(
            f"{where} may not be accessed with these credentials ({say_why(error)}); see `maskstream docs stores`"
        ) from None
    except BaseError as error:
        raise OutageError(f"{where}: {say_why(error)}") from None


def waited_for(where: str, request: Callable[[], T]) -> T:
    """Return the result of a request for `where`.

    Clients ignore signals, so the main thread lets another thread make the request. Ctrl-C then ends the wait, and a
    long wait is logged.
    """
    if threading.current_thread() is not threading.main_thread():
        return request()
    answer: Future[T] = Future()
    threading.Thread(target=_wait_for_answer, args=(answer, request), name="maskstream-request", daemon=True).start()
    while True:
        done, _ = wait([answer], TOLD_S)
        if done:
            return answer.result()
        log.warning("still waiting for %s; retrying for up to %g s", where, RETRY_S)


def _wait_for_answer(answer: Future[T], request: Callable[[], T]) -> None:
    try:
        answer.set_result(request())
    except BaseException as error:
        answer.set_exception(error)


def is_beyond_the_end(error: GenericError) -> bool:
    """Return True if the server reports that the requested range is beyond the end of the file (416)."""
    return "status code: 416" in str(error)


def say_why(error: Exception) -> str:
    """Return a client's error on one line, without debug output, HTML pages and secrets."""
    text = " ".join(str(error).partition("Debug source")[0].partition("<!DOCTYPE")[0].split())
    return hide_secrets(text)[:_MOST_WORDS].rstrip(" :")


def hide_secrets(text: str) -> str:
    """Remove secrets from a text: passwords in URLs, secrets from the environment, signatures, tokens and cookies."""
    named = [value.partition("=") for value in _read_environment()]
    for secret in sorted((value for name, _, value in named if _SECRET.search(name) and len(value) > 3), key=len)[::-1]:
        for form in {secret, quote(secret, safe=""), quote(secret), *filter(None, secret.split("="))}:
            if len(form) > _SHORT:
                text = text.replace(form, _HIDDEN)
    return _ELEMENT.sub(rf"\1{_HIDDEN}", _HEADER.sub(rf"\1{_HIDDEN}", hide_password(text)))


def _read_environment() -> tuple[str, ...]:
    """Return the environment variables that a client depends on. If they change, a new client is created."""
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
    """Return True if Amazon's tools would use a profile."""
    if any(name in os.environ for name in _BEFORE_PROFILES):
        return False
    file = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE", _CREDENTIALS)).expanduser()
    return "AWS_PROFILE" in os.environ or file.is_file()


def _is_http_allowed() -> bool:
    """Return True if the environment configures a server without TLS."""
    endpoints = (os.environ.get(name, "") for name in _ENDPOINTS)
    allowed = (os.environ.get(name, "").lower() in ("1", "true") for name in _ALLOW)
    return any(endpoint.startswith("http://") for endpoint in endpoints) or any(allowed)


def _open_profile_client(bucket: str, prefix: str | None, options: ClientConfig, retry_config: RetryConfig) -> S3Store:
    """Create a client with the credentials of a profile (keys, SSO, roles), which boto3 reads."""
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError as error:
        raise ValueError(
            "profiles from AWS_PROFILE and ~/.aws/credentials need boto3; run pip install boto3, or set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from error
    return S3Store(
        bucket,
        prefix=prefix,
        client_options=options,
        retry_config=retry_config,
        credential_provider=Boto3CredentialProvider(),
    )
