"""A simulation of Cloud Storage: a local folder as a bucket that can be read, over a slow link.

It speaks what reading needs of the JSON API (listing, metadata, ranges of one generation), and nothing of writing,
credentials or failures. A process of its own, so that it does not share an interpreter with those it serves:
``python -m trainer.probe.object_server FOLDER MBIT LATENCY_MS`` prints its port.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from trainer import storage
from trainer.errors import StorageError
from trainer.probe.slow_link import Link
from trainer.stopping import die_with_parent

BUCKET = "simulated"
SENT = "/sent"
"""Asked for how many bytes of objects have crossed the link; that itself costs nothing."""
PATH = re.compile(rf"(?:/download)?/storage/v1/b/{BUCKET}/o(?:/([^/]+))?")
RANGE = re.compile(r"bytes=(\d+)-(\d+)")
CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True)
class Server:
    endpoint: str

    def sent(self) -> int:
        """Bytes of objects so far."""
        with urllib.request.urlopen(self.endpoint + SENT) as answer:
            return int(answer.read())


@contextmanager
def serving(folder: Path, mbit: float, latency_ms: float) -> Iterator[Server]:
    """The files of a folder as the objects of gs://simulated. Raises StorageError where it does not start."""
    command = [sys.executable, "-m", "trainer.probe.object_server", str(folder), str(mbit), str(latency_ms)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent) as process:
        try:
            port = process.stdout.readline().strip() if process.stdout else ""
            if not port:
                raise StorageError(f"the simulated bucket of {folder} did not start; what it said stands above")
            yield Server(f"http://127.0.0.1:{port}")
        finally:
            process.kill()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are written apart, and would wait for each other
    folder: Path
    link: Link
    entries: dict[str, dict[str, str]]

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == SENT:
            return self._answer(200, str(self.link.sent).encode())
        self.link.request()
        asked, query = PATH.fullmatch(url.path), parse_qs(url.query)
        if not asked:
            return self._answer(404, b"{}")
        if asked[1] is None:
            prefix = query.get("prefix", [""])[0]
            found = [entry for name, entry in self.entries.items() if name.startswith(prefix)]
            return self._answer(200, json.dumps({"kind": "storage#objects", "items": found}).encode())
        entry = self.entries.get(unquote(asked[1]))
        if entry is None:
            return self._answer(404, b"{}")
        if query.get("alt") != ["media"]:
            return self._answer(200, json.dumps(entry).encode())
        if query.get("ifGenerationMatch", [entry["generation"]]) != [entry["generation"]]:
            return self._answer(412, b"{}")
        return self._body(entry)

    def _body(self, entry: dict[str, str]) -> None:
        size = int(entry["size"])
        wanted = RANGE.fullmatch(self.headers.get("Range", ""))
        first, last = (int(wanted[1]), min(int(wanted[2]), size - 1)) if wanted else (0, size - 1)
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.send_header("x-goog-generation", entry["generation"])
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        for part in storage.chunks(self.folder / entry["name"], storage.Entry(size, None, 0), first, last + 1 - first):
            for at in range(0, len(part), CHUNK_BYTES):
                piece = memoryview(part)[at : at + CHUNK_BYTES]
                self.link.cross(len(piece))
                self.wfile.write(piece)

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:  # who asked has gone
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def entries_of(folder: Path) -> dict[str, dict[str, str]]:
    """What the server says of each file."""
    return {name: _entry(folder, name) for name in storage.listing(folder)}


def _entry(folder: Path, name: str) -> dict[str, str]:
    data = (folder / name).read_bytes()
    checksum = base64.b64encode(storage.crc32c(data).to_bytes(4, "big")).decode()
    return {"kind": "storage#object", "name": name, "size": str(len(data)), "crc32c": checksum, "generation": "1"}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def main(folder: Path, mbit: float, latency_ms: float) -> int:
    Handler.folder, Handler.link, Handler.entries = folder, Link(mbit, latency_ms), entries_of(folder)
    with _Server(("127.0.0.1", 0), Handler) as server:
        print(server.server_port, flush=True)
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))
