"""Whose credentials a message names."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import google.oauth2.credentials
import pytest
from google.auth.compute_engine import Credentials, _metadata
from google.auth.exceptions import TransportError

from trainer.storage import answers
from trainer.storage.connection import Connection

MACHINE = "trainer@project.iam.gserviceaccount.com"


def of(credentials: Any) -> str:
    return Connection(SimpleNamespace(_credentials=credentials)).identity


def test_a_machine_of_google_is_named_by_its_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its credentials call themselves 'default' until they are first refreshed."""
    told = {"email": MACHINE, "scopes": []}
    monkeypatch.setattr(_metadata, "get_service_account_info", lambda *_, **__: told)
    monkeypatch.setattr(_metadata, "get_service_account_token", lambda *_, **__: ("token", None))
    client = SimpleNamespace(_credentials=Credentials())
    monkeypatch.setattr(answers, "connected", lambda: Connection(client))
    message = str(answers._meaning(403, "", "gs://bucket/a", "storage.objects.get"))
    assert message.startswith(f"gs://bucket/a: {MACHINE} lacks permission storage.objects.get on bucket bucket")


def test_a_machine_that_does_not_tell_is_named_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise TransportError("no metadata server")

    monkeypatch.setattr(_metadata, "get_service_account_info", fails)
    assert of(Credentials()) == "the default service account of this machine"


def test_a_user_is_named_where_the_credentials_say_who() -> None:
    user = google.oauth2.credentials.Credentials("token", account="ann@example.org")
    assert of(user) == "ann@example.org"
    assert of(google.oauth2.credentials.Credentials("token")) == "the default credentials"
    assert Connection(None, "anonymous").identity == "anonymous"
