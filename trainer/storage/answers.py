"""What Cloud Storage's answers mean: a failure that passes, another object, or a line for a person."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from trainer.config import StorageConfig
from trainer.errors import ObjectChanged, ObjectMissing, StorageRefused
from trainer.storage.connection import connected
from trainer.storage.retry import PassingError, passes

T = TypeVar("T")
log = logging.getLogger("capsnet")

SCHEME = "gs://"


def split(location: str) -> tuple[str, str]:
    """(bucket, name) of gs://bucket/name. Raises StorageRefused where no bucket is named."""
    bucket, _, name = location.removeprefix(SCHEME).partition("/")
    if not (bucket[:1].isalnum() and bucket[-1:].isalnum()):  # what the client refuses with a ValueError
        raise StorageRefused(f"{location}: names no bucket; give gs://BUCKET/...")
    return bucket, name


class Refusal(Exception):
    """An answer that is not what was asked for."""

    def __init__(self, status: int, reason: str, wait_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.status, self.wait_seconds = status, wait_seconds


def asked_to_wait(header: str) -> float:
    """Seconds, from a header Retry-After: a number of them, or a date."""
    if header.isdigit():
        return float(header)
    try:
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):  # nothing, or neither
        return 0.0


def translated(attempt: Callable[[], T], location: str, permission: str) -> T:
    """What ``attempt`` gives; its failures as PassingError or as a line for a person."""
    result = _one_try(attempt, location, permission)
    if isinstance(result, Iterator):
        return _items(result, location, permission)  # type: ignore[return-value]
    return result


def resuming(policy: StorageConfig, location: str) -> Any:
    """Our policy for the parts of a resumable upload, each of which is progress: a ``google.api_core.retry.Retry``."""
    import requests
    from google.api_core.retry import Retry
    from google.auth.exceptions import TransportError

    def may_pass(error: Exception) -> bool:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status is not None:
            return passes(int(status))
        return isinstance(error, requests.RequestException | TransportError | ConnectionError | TimeoutError)

    return Retry(
        predicate=may_pass,
        initial=policy.first_wait_seconds,
        maximum=policy.longest_wait_seconds,
        timeout=policy.deadline_seconds,
        on_error=lambda error: log.info("%s: a part of the upload: %s; trying again", location, type(error).__name__),
    )


def _items(items: Iterator[Any], location: str, permission: str) -> Iterator[Any]:
    nothing = object()
    while (item := _one_try(lambda: next(items, nothing), location, permission)) is not nothing:
        yield item


def _one_try(attempt: Callable[[], T], location: str, permission: str) -> T:
    import requests
    from google.api_core.exceptions import GoogleAPICallError, RetryError
    from google.auth.exceptions import GoogleAuthError, TransportError
    from google.cloud.storage.exceptions import DataCorruption

    try:
        return attempt()
    except Refusal as error:
        raise _meaning(error.status, str(error), location, permission, error.wait_seconds) from None
    except GoogleAPICallError as error:
        headers = getattr(error.response, "headers", None) or {}
        wait_seconds = asked_to_wait(headers.get("Retry-After", ""))
        raise _meaning(int(error.code or 0), error.message, location, permission, wait_seconds) from None
    except RetryError as error:
        raise PassingError(f"no part could be uploaded any more ({type(error.cause).__name__})") from None
    except DataCorruption:
        raise PassingError("what the server stored does not have the checksum of what was sent") from None
    except (requests.RequestException, TransportError, ConnectionError, TimeoutError) as error:
        raise PassingError(f"no connection ({type(error).__name__})") from None
    except GoogleAuthError as error:
        if error.retryable:
            raise PassingError("the credentials could not be renewed") from None
        # what the session makes of a 401 that new credentials did not mend
        raise _meaning(401, str(error), location, permission) from None


def _meaning(status: int, reason: str, location: str, permission: str, wait_seconds: float = 0.0) -> Exception:
    bucket, _ = split(location)
    if passes(status):
        return PassingError(f"the server answered {status}", wait_seconds)
    if status == 412:
        return ObjectChanged(f"{location}: is another object than when reading or writing began; start again")
    if status == 404:
        return ObjectMissing(f"{location}: there is no such object, or no bucket {bucket}; check the name")
    if status in (401, 403):
        identity = connected().identity
        mend = "renew the credentials" if status == 401 else f"grant {permission} on bucket {bucket} to it"
        return StorageRefused(
            f"{location}: {identity} lacks permission {permission} on bucket {bucket} (status {status}); {mend}"
        )
    return StorageRefused(f"{location}: the server answered {status} ({' '.join(reason.split())[:120]})")
