"""Cloud Storage, and the tools of a cluster."""

from __future__ import annotations

import shutil

from trainer import storage
from trainer.config import StorageConfig
from trainer.doctor.finding import OK, PROBLEM, SKIPPED, WARNING, Finding, Findings, answered
from trainer.errors import CapsnetError

DOCKER_SECONDS = 20.0
QUICK = StorageConfig(deadline_seconds=15, stall_seconds=10, first_wait_seconds=0.5)
LOGIN = "gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS"


def check(uri: str | None) -> Findings:
    """``uri``: a place in a bucket that runs are to read."""
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


def bucket(uri: str) -> Finding:
    try:
        found = storage.listing(uri, QUICK)
        some = next(iter(found), None)
        if some is not None:
            storage.read_range(storage.join(uri, some), 0, 1, QUICK)
    except CapsnetError as error:
        return Finding("bucket", PROBLEM, str(error), "the line above says what is missing")
    return Finding("bucket", OK, f"{uri}: {len(found):,} objects, the first can be read" if found else f"{uri}: empty")


def tools() -> Findings:
    """What only people with a cluster need."""
    for name, purpose in (("kubectl", "runs on a cluster"), ("docker", "make image")):
        if shutil.which(name) is None:
            yield Finding(name, SKIPPED, f"not here; for {purpose}")
        elif name == "docker" and answered(["docker", "info"], DOCKER_SECONDS).code:
            yield Finding(name, SKIPPED, f"its engine does not answer; for {purpose}")
        else:
            yield Finding(name, OK, f"for {purpose}")
