"""A proxy in front of a Cloud Storage server that misbehaves as it is told, and counts what passes.

It also holds clients to ``ifGenerationMatch`` on reads, which fake-gcs-server ignores.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import struct
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MEDIA = re.compile(r"/(?:download/)?storage/v1/b/([^/]+)/o/([^/?]+)\?(?:.*&)?alt=media")


@dataclass
class Fault:
    """What is done to requests.

    kind: status (``value``), refuse (the connection is closed before an answer), reset (in mid-body), stall (in
    mid-body for ``value`` seconds), cut (the body ends early), flip (a bit), spoil (a bit of what is
    sent), slow (``value`` seconds before the answer), empty (a listing), act (``action`` before the request is passed
    on), act_midway (in mid-body).
    """

    kind: str
    value: float = 0
    where: str = "alt=media"
    times: int = 1
    every: int = 1
    action: Callable[[], None] = lambda: None
    seen: int = 0
    done: int = 0


@dataclass
class Proxy:
    upstream: str
    faults: list[Fault] = field(default_factory=list)
    requests: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    log: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    endpoint: str = ""
    counted: str = ""
    """The bucket whose requests are counted; threads of an earlier test may still read from another."""

    def fault(self, line: str) -> Fault | None:
        """The fault of a request, given as 'METHOD path?query'."""
        with self.lock:
            self.log.append(line)
            for fault in self.faults:
                if re.search(fault.where, line) and fault.done < fault.times:
                    fault.seen += 1
                    if fault.seen % fault.every == 0:
                        fault.done += 1
                        return fault
        return None

    def count(self, name: str, size: int) -> None:
        with self.lock:
            self.requests[name] += 1
            self.bytes[name] += size

    def generation(self, bucket: str, name: str) -> str:
        """Of an object; empty where there is none."""
        try:
            with urllib.request.urlopen(f"{self.upstream}/storage/v1/b/{bucket}/o/{name}") as answer:
                return str(json.load(answer)["generation"])
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            return ""


def _flipped(data: bytes) -> bytes:
    """With a bit of the byte in the middle changed."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :]


def _handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: tests read ``Proxy.log``."""

        def _serve(self) -> None:
            body = self._body()
            fault = proxy.fault(f"{self.command} {self.path}")
            kind = fault.kind if fault else ""
            if fault and kind == "status":
                return self._answer(int(fault.value), b'{"error": {"message": "told to"}}')
            if kind == "refuse":
                return self._reset()
            if fault and kind == "slow":
                time.sleep(fault.value)
            if fault and kind == "act":
                fault.action()
            if kind == "spoil" and body:
                body = _flipped(body)
            if kind == "empty":
                return self._answer(200, b'{"kind": "storage#objects"}')
            media = MEDIA.search(self.path)
            if media and not self._generation_holds(*media.groups()):
                return self._answer(412, b'{"error": {"message": "conditionNotMet"}}')
            self._pass_on(body, fault, urllib.parse.unquote(media[2]) if media else "")
            return None

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _serve

        def _body(self) -> bytes:
            if "chunked" in self.headers.get("Transfer-Encoding", ""):
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def _generation_holds(self, bucket: str, name: str) -> bool:
            wanted = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query).get("ifGenerationMatch")
            return not wanted or proxy.generation(bucket, name) in (wanted[0], "")  # the server says that it is gone

        def _pass_on(self, body: bytes, fault: Fault | None, name: str) -> None:
            address = urllib.parse.urlsplit(proxy.upstream)
            connection = http.client.HTTPConnection(address.hostname or "", address.port)
            headers = {key: value for key, value in self.headers.items() if key.lower() not in ("transfer-encoding",)}
            headers["Content-Length"] = str(len(body))
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            data = answer.read()
            connection.close()
            if name and f"/b/{proxy.counted}/" in self.path:
                proxy.count(name, len(data))
            passed = {
                key: value
                for key, value in answer.getheaders()
                if key.lower() not in ("content-length", "transfer-encoding", "connection", "date")
            }
            kind = fault.kind if fault else ""
            if kind == "flip" and data:
                data = _flipped(data)
            self._start(answer.status, passed, len(data))
            half = len(data) // 2
            self.wfile.write(data[:half])
            self.wfile.flush()
            if fault and kind == "stall":
                time.sleep(fault.value)
            if fault and kind == "act_midway":
                fault.action()
                return self._reset()
            if kind == "reset":
                return self._reset()
            if kind == "cut":
                self.close_connection = True
                return None
            self.wfile.write(data[half:])
            return None

        def _start(self, status: int, headers: dict[str, str], length: int) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(length))
            self.end_headers()

        def _answer(self, status: int, body: bytes) -> None:
            self._start(status, {"Content-Type": "application/json"}, len(body))
            self.wfile.write(body)

        def _reset(self) -> None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()

        def handle(self) -> None:
            try:
                super().handle()
            except (OSError, ValueError):
                self.close_connection = True  # the client has gone, or was sent away

        def finish(self) -> None:
            try:
                super().finish()
            except (OSError, ValueError):
                self.close_connection = True

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


@contextmanager
def running() -> Iterator[Proxy]:
    """On a free port; ``upstream`` is to be set before a request comes."""
    proxy = Proxy("")
    server = _Server(("127.0.0.1", 0), _handler(proxy))
    proxy.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
