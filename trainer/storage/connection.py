"""The client of Cloud Storage: one for each process, with the credentials that there are."""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
from typing import Any, NamedTuple

from trainer.errors import StorageRefused

EMULATOR = "STORAGE_EMULATOR_HOST"
KEY_FILE = "GOOGLE_APPLICATION_CREDENTIALS"
UNNAMED = "default"
"""What the credentials of a machine of Google's call their account until they are first refreshed."""

# google's libraries tell users, at import, of the years in which they will drop versions of Python
warnings.filterwarnings("ignore", category=FutureWarning, module=r"google\.")


class Connection(NamedTuple):
    client: Any
    anonymous: str = ""
    """Why there are no credentials, where there are none."""

    @property
    def identity(self) -> str:
        """Whose credentials these are, in words; a machine of Google's is asked for it."""
        return self.anonymous or account(self.client._credentials)


def account(credentials: Any) -> str:
    """The service account or the user of credentials, as far as they say."""
    from google.auth.exceptions import GoogleAuthError

    if _email(credentials) == UNNAMED:
        from google.auth.transport.requests import Request

        with contextlib.suppress(GoogleAuthError):
            credentials.refresh(Request())
    email = _email(credentials)
    return f"the {UNNAMED} service account of this machine" if email == UNNAMED else email or "the default credentials"


def _email(credentials: Any) -> str:
    names = (getattr(credentials, name, None) for name in ("service_account_email", "account"))
    return next((str(name) for name in names if name), "")


_connections: dict[tuple[int, str], Connection] = {}
_connecting = threading.RLock()
os.register_at_fork(before=_connecting.acquire, after_in_parent=_connecting.release, after_in_child=_connecting.release)


def connected() -> Connection:
    """The client of this process; one for each, since connections do not survive a fork."""
    key = (os.getpid(), os.environ.get(EMULATOR, ""))
    with _connecting:
        if key not in _connections:
            _connections[key] = _connect()
        return _connections[key]


def _connect() -> Connection:
    import google.auth
    import requests.adapters
    from google.auth.credentials import AnonymousCredentials
    from google.auth.exceptions import DefaultCredentialsError
    from google.cloud import storage

    if os.environ.get(EMULATOR):
        client, anonymous = storage.Client(credentials=AnonymousCredentials(), project="emulator"), "anonymous"
    else:
        try:
            credentials, project = google.auth.default()
            client, anonymous = storage.Client(credentials=credentials, project=project or "none"), ""
        except DefaultCredentialsError as error:
            if path := os.environ.get(KEY_FILE):  # asked for, so anonymous access would hide the mistake
                reason = " ".join(str(error).split())[:120]
                raise StorageRefused(f"{KEY_FILE}={path}: no usable credentials ({reason}); mend or unset it") from None
            client, anonymous = storage.Client.create_anonymous_client(), "anonymous (no credentials were found)"
    adapter = requests.adapters.HTTPAdapter(pool_connections=8, pool_maxsize=64)
    for scheme in ("https://", "http://"):
        client._http.mount(scheme, adapter)
    return Connection(client, anonymous)
