"""Cloud Storage: the only importer of google.cloud and requests.

Listing, metadata and uploads go through google-cloud-storage; bytes are read through its authorised session, which is
several times as fast, and are checked here, because ranged reads do not notice damage. There is one policy of
retries, ours; the library's own loop is used within a resumable upload only, which it alone can go on with.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import google_crc32c

from trainer.config import StorageConfig
from trainer.errors import ObjectChanged
from trainer.storage.answers import Refusal, asked_to_wait, resuming, split, translated
from trainer.storage.connection import connected
from trainer.storage.retry import PassingError, Patience, persistently

CHUNK_BYTES = 2**20
RESUMABLE_BYTES = 8 * 2**20
CONNECT_SECONDS = 10.0
READ, LIST, CREATE, DELETE = (f"storage.objects.{verb}" for verb in ("get", "list", "create", "delete"))


class Entry(NamedTuple):
    """A file or object; local files have neither checksum nor generation."""

    bytes: int
    crc32c: int | None
    generation: int


def listing(folder: str, policy: StorageConfig, most: int | None = None) -> dict[str, Entry]:
    """All objects below a prefix, or the first so many, by the rest of their names."""
    bucket, name = split(folder)
    prefix = f"{name.rstrip('/')}/" if name.strip("/") else ""

    def attempt() -> dict[str, Entry]:
        client = connected().client
        found = client.list_blobs(
            bucket,
            prefix=prefix,
            max_results=most,
            timeout=_timeout(policy),
            retry=None,
            fields=f"items({FIELDS}),nextPageToken",
        )
        return {blob.name.removeprefix(prefix): _entry(blob) for blob in found if not blob.name.endswith("/")}

    return persistently(policy, folder, lambda: translated(attempt, folder, LIST))


FIELDS = "name,size,crc32c,generation"


def stat(location: str, policy: StorageConfig) -> Entry | None:
    """An object's entry; None where there is none."""
    bucket, name = split(location)

    def attempt() -> Entry | None:
        blob = connected().client.bucket(bucket).get_blob(name, timeout=_timeout(policy), retry=None)
        return _entry(blob) if blob is not None else None

    return persistently(policy, location, lambda: translated(attempt, location, READ))


def chunks(location: str, entry: Entry, offset: int, length: int, policy: StorageConfig) -> Iterator[bytes]:
    """Bytes of one generation of an object, going on after a failure where it was.

    Where they are the whole object their checksum is compared at the end, after the last chunk has been given.

    Raises:
        ObjectChanged: there is another object of the name now.
        StorageError, StorageRefused: it cannot be read. PassingError: the whole object came, damaged.
    """
    patience, at, stop = Patience(policy, location), offset, offset + length
    checksum = google_crc32c.Checksum()
    while at < stop:
        try:
            for chunk in translated(lambda at=at: _open(location, entry, at, stop, policy), location, READ):  # type: ignore[misc]
                checksum.update(chunk)
                at += len(chunk)
                patience.progress()
                yield chunk
            if at < stop:
                raise PassingError(f"the body ended {stop - at} bytes early")
        except PassingError as error:
            patience.wait(error)
    found = int.from_bytes(checksum.digest(), "big")
    if offset == 0 and length == entry.bytes and entry.crc32c not in (None, found):
        raise PassingError("the bytes that came do not have the checksum of the object")


def _open(location: str, entry: Entry, at: int, stop: int, policy: StorageConfig) -> Iterator[bytes]:
    """The body of one request; never more than was asked for."""
    import requests

    bucket, name = split(location)
    client = connected().client
    url = f"{client.api_endpoint}/download/storage/v1/b/{quote(bucket, safe='')}/o/{quote(name, safe='')}"
    response = client._http.get(
        url,
        params={"alt": "media", "ifGenerationMatch": str(entry.generation)},
        headers={"Range": f"bytes={at}-{stop - 1}", "Accept-Encoding": "identity"},
        stream=True,
        timeout=_timeout(policy),
    )
    with response:
        status = response.status_code
        if status >= 300:
            raise Refusal(status, response.text[:200], asked_to_wait(response.headers.get("Retry-After", "")))
        generation = response.headers.get("x-goog-generation", str(entry.generation))
        if generation != str(entry.generation):
            raise Refusal(412, "another generation came")
        if status != 206 and not (at == 0 and stop == entry.bytes):
            raise PassingError(f"status {status} instead of 206 for a part of the object")
        place = response.headers.get("Content-Range", "")
        if status == 206 and not place.startswith(f"bytes {at}-{stop - 1}/"):
            raise PassingError(f"other bytes came than were asked for (Content-Range {place or 'missing'})")
        left = stop - at
        try:
            for chunk in response.iter_content(CHUNK_BYTES):
                if len(chunk) > left:
                    raise PassingError("more bytes came than were asked for")
                left -= len(chunk)
                yield chunk
        except requests.RequestException as error:
            raise PassingError(f"the connection broke ({type(error).__name__})") from None


def read(location: str, entry: Entry, offset: int, length: int, policy: StorageConfig) -> bytes:
    """As ``chunks``, in one piece; read again where it came damaged."""
    length = max(0, min(length, entry.bytes - offset))
    return persistently(policy, location, lambda: b"".join(chunks(location, entry, offset, length, policy)))


def write(location: str, data: bytes | Path, policy: StorageConfig, *, generation: int | None = None) -> Entry:
    """Makes an object hold ``data``, whole or not at all, and compares what the server says it has.

    Args:
        generation: of the object that it replaces, 0 for none; None for the one that is there now, if any.

    Raises:
        ObjectChanged: another object is there, or another writer was faster.
        StorageError, StorageRefused; OSError where a file cannot be read.
    """
    size, checksum = _measured(data)
    if generation is None:
        before = stat(location, policy)
        generation = before.generation if before is not None else 0

    def attempt() -> Entry:
        now = stat(location, policy)
        if now is not None and now.generation != generation:
            return ours(now)
        expected = now.generation if now is not None else 0  # a damaged attempt was deleted, with what it replaced
        try:
            return translated(lambda: _upload(location, data, size, checksum, expected, policy), location, CREATE)
        except ObjectChanged:  # between the two looks
            return ours(stat(location, policy))

    def ours(now: Entry | None) -> Entry:
        """An earlier attempt that seemed to have failed."""
        if now is None or (now.bytes, now.crc32c) != (size, checksum):
            raise ObjectChanged(f"{location}: written by somebody else; name another place or remove it first")
        return now

    return persistently(policy, location, attempt)


def _upload(
    location: str, data: bytes | Path, size: int, checksum: int, generation: int, policy: StorageConfig
) -> Entry:
    bucket, name = split(location)
    resumable = size > RESUMABLE_BYTES
    blob = connected().client.bucket(bucket).blob(name, chunk_size=RESUMABLE_BYTES if resumable else None)
    blob.crc32c = base64.b64encode(checksum.to_bytes(4, "big")).decode()
    rules = {
        "if_generation_match": generation,
        "timeout": _timeout(policy),
        "retry": resuming(policy, location) if resumable else None,
        "checksum": "crc32c",
    }
    if isinstance(data, Path):
        blob.upload_from_filename(str(data), content_type="application/octet-stream", **rules)
    else:
        blob.upload_from_string(data, content_type="application/octet-stream", **rules)
    if _entry(blob)[:2] != (size, checksum):  # as the answer says; another writer's object is not touched
        blob.delete(timeout=_timeout(policy), retry=None, if_generation_match=blob.generation)
        raise PassingError("what the server stored does not have the checksum of what was sent")
    return _entry(blob)


def delete(location: str, policy: StorageConfig) -> None:
    """Removes an object, if it is there."""
    from google.api_core.exceptions import NotFound

    bucket, name = split(location)

    def attempt() -> None:
        try:
            connected().client.bucket(bucket).delete_blob(name, timeout=_timeout(policy), retry=None)
        except NotFound:
            return

    persistently(policy, location, lambda: translated(attempt, location, DELETE))


def _measured(data: bytes | Path) -> tuple[int, int]:
    """(bytes, crc32c)."""
    if not isinstance(data, Path):
        return len(data), int(google_crc32c.value(data))
    checksum, size = google_crc32c.Checksum(), 0
    with open(data, "rb") as file:
        while part := file.read(CHUNK_BYTES):
            checksum.update(part)
            size += len(part)
    return size, int.from_bytes(checksum.digest(), "big")


def _entry(blob: Any) -> Entry:
    checksum = int.from_bytes(base64.b64decode(blob.crc32c), "big") if blob.crc32c else None
    return Entry(int(blob.size), checksum, int(blob.generation or 0))


def _timeout(policy: StorageConfig) -> tuple[float, float]:
    return min(CONNECT_SECONDS, policy.stall_seconds), policy.stall_seconds
