"""Cloud Storage, and the tools of a cluster."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable

from trainer import storage
from trainer.config import StorageConfig
from trainer.doctor.finding import OK, PROBLEM, SKIPPED, WARNING, Finding, Findings, answered
from trainer.errors import CapsnetError, DataError

DOCKER_SECONDS = 20.0
QUICK = StorageConfig(deadline_seconds=15, stall_seconds=10, first_wait_seconds=0.5)
LOGIN = "gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS"


PAGE = 100
"""Objects of a prefix that are listed: it may hold millions."""


def check(uri: str | None, written: str | None = None) -> Findings:
    """``uri``: a place in a bucket that runs are to read; ``written``: one, or a folder, that they are to write."""
    if written is not None and not storage.is_cloud(written):
        yield writing(written)
        written = None
    try:
        identity = storage.identity()
    except CapsnetError as error:
        yield Finding("credentials", PROBLEM, str(error), LOGIN)
        return
    anonymous = identity.startswith("anonymous (")
    yield Finding(
        "credentials", WARNING if anonymous else OK, identity, f"private buckets: {LOGIN}" if anonymous else ""
    )
    yield bucket(uri) if uri else Finding("bucket", SKIPPED, "name one with --uri gs://BUCKET/...")
    if written is not None:
        yield writing(written)


def bucket(uri: str) -> Finding:
    try:
        found = storage.first_objects(uri, PAGE, QUICK)
        some = next(iter(found), None)
        if some is not None:
            storage.read_range(storage.join(uri, some), 0, 1, QUICK)
    except CapsnetError as error:
        return Finding("bucket", PROBLEM, str(error), "the line above says what is missing")
    if not found:
        return Finding("bucket", OK, f"{uri}: empty")
    more = " or more" if len(found) == PAGE else ""
    return Finding("bucket", OK, f"{uri}: {len(found)} objects{more}, the first can be read")


def writing(place: str) -> Finding:
    """Writes a small object or file, reads it and removes it; says all of these that cannot be done."""
    location = storage.join(place, f"capsnet-doctor-{secrets.token_hex(4)}")
    content = b"written by 'capsnet doctor --write'; may be removed\n"

    def read() -> None:
        if storage.read_bytes(location, QUICK) != content:
            raise DataError(f"{location}: is not what was written")

    steps: dict[str, Callable[[], object]] = {
        "write": lambda: storage.create(location, content, QUICK),
        "read": read,
        "delete": lambda: storage.delete(location, QUICK),
    }
    failed: list[str] = []
    for what, attempt in steps.items():
        try:
            attempt()
        except CapsnetError as error:
            failed.append(f"cannot {what}: {error}")
        except OSError as error:
            failed.append(f"cannot {what}: {place}: {error.strerror}")
        if failed and what == "write":
            break
    if failed:
        mend = "runs need to write, read and delete where they are kept; on a bucket: roles/storage.objectUser"
        return Finding("write", PROBLEM, "; ".join(failed), mend)
    return Finding("write", OK, f"{place}: a small object was written, read and deleted")


def tools() -> Findings:
    """What only people with a cluster need."""
    for name, purpose in (("kubectl", "runs on a cluster"), ("docker", "make image")):
        if shutil.which(name) is None:
            yield Finding(name, SKIPPED, f"not here; for {purpose}")
        elif name == "docker" and answered(["docker", "info"], DOCKER_SECONDS).code:
            yield Finding(name, SKIPPED, f"its engine does not answer; for {purpose}")
        else:
            yield Finding(name, OK, f"for {purpose}")
