from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainer.errors import ConfigError, InterruptedRun
from trainer.launch.hosts import Host, read_hostfile, wait_for


def test_a_hostfile_of_the_operator(tmp_path: Path) -> None:
    (tmp_path / "hostfile").write_text("a-worker-0.a.ns.svc slots=8\na-worker-1.a.ns.svc slots=8\n# end\n\nlast\n")
    hosts = read_hostfile(tmp_path / "hostfile")
    assert hosts == [Host("a-worker-0.a.ns.svc", 8), Host("a-worker-1.a.ns.svc", 8), Host("last", 1)]
    assert hosts[1].pod == "a-worker-1"


@pytest.mark.parametrize("content", ["", "# nothing\n", "a slots=x\n", "a b c\n"])
def test_a_hostfile_that_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "hostfile").write_text(content)
    with pytest.raises(ConfigError, match="hostfile"):
        read_hostfile(tmp_path / "hostfile")


@pytest.fixture
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    """Of a server whose first word is the parameter."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(request.param)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]


@pytest.mark.parametrize("port", [b"SSH-2.0-OpenSSH\r\n"], indirect=True)
def test_sshd_is_found(port: int) -> None:
    wait_for([Host("127.0.0.1", 1), Host("localhost", 1)], 10, lambda: False, print, port=port)


@pytest.mark.parametrize("port", [b"", b"HTTP/1.1 400\r\n"], indirect=True)
def test_a_port_that_something_else_holds_open_is_not_enough(port: int) -> None:
    with pytest.raises(InterruptedRun, match=r"no answer within 1 s from 127 \(Pending: no GPU\)"):
        wait_for([Host("127.0.0.1", 1)], 1, lambda: False, print, lambda _host: "Pending: no GPU", port)


@pytest.mark.parametrize("port", [b""], indirect=True)
def test_a_stop_ends_the_wait(port: int) -> None:
    with pytest.raises(InterruptedRun, match="nothing new to save"):
        wait_for([Host("127.0.0.1", 1)], 60, lambda: True, print, port=port)
