"""The client of Cloud Storage: one for each process, with the credentials that there are."""

from __future__ import annotations

import os
import threading
import warnings
from typing import Any, NamedTuple

from trainer.errors import StorageRefused

EMULATOR = "STORAGE_EMULATOR_HOST"
KEY_FILE = "GOOGLE_APPLICATION_CREDENTIALS"

# google's libraries tell users, at import, of the years in which they will drop versions of Python
warnings.filterwarnings("ignore", category=FutureWarning, module=r"google\.")


class Connection(NamedTuple):
    client: Any
    identity: str


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
        client, identity = storage.Client(credentials=AnonymousCredentials(), project="emulator"), "anonymous"
    else:
        try:
            credentials, project = google.auth.default()
            client = storage.Client(credentials=credentials, project=project or "none")
            identity = getattr(credentials, "service_account_email", None) or "the default credentials"
        except DefaultCredentialsError as error:
            if path := os.environ.get(KEY_FILE):  # asked for, so anonymous access would hide the mistake
                reason = " ".join(str(error).split())[:120]
                raise StorageRefused(f"{KEY_FILE}={path}: no usable credentials ({reason}); mend or unset it") from None
            client, identity = storage.Client.create_anonymous_client(), "anonymous (no credentials were found)"
    adapter = requests.adapters.HTTPAdapter(pool_connections=8, pool_maxsize=64)
    for scheme in ("https://", "http://"):
        client._http.mount(scheme, adapter)
    return Connection(client, identity)
