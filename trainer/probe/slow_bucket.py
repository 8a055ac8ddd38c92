"""A bucket of imposed bandwidth and latency: ``python -m trainer.probe.slow_bucket FOLDER BYTES_PER_SECOND LATENCY``.

A simulation, for the study of data: it serves the files of a folder under the name of any bucket, as much of the JSON
API as reading takes, and prints its address. All connections share the bandwidth; every request waits the latency.
"""

from __future__ import annotations

import base64
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlparse

from trainer.storage import crc32c

CHUNK = 64 * 1024
GENERATION = "1"


class Pipe:
    """Bytes leave one after the other, at so many a second."""

    def __init__(self, bytes_per_second: float) -> None:
        self._rate = bytes_per_second
        self._free_at = 0.0
        self._lock = threading.Lock()

    def take(self, size: int) -> None:
        """Returns when they have left."""
        with self._lock:
            self._free_at = max(self._free_at, time.monotonic()) + size / self._rate
            until = self._free_at
        time.sleep(max(0.0, until - time.monotonic()))


class Bucket:
    """The objects: names, bytes, and what the API says of them."""

    def __init__(self, folder: Path) -> None:
        self.data = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        self.said = {name: _said(name, data) for name, data in self.data.items()}


def _said(name: str, data: bytes) -> dict[str, str]:
    checksum = base64.b64encode(crc32c(data).to_bytes(4, "big")).decode()
    return {"name": name, "size": str(len(data)), "crc32c": checksum, "generation": GENERATION}


def handler(bucket: Bucket, pipe: Pipe, latency: float) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            time.sleep(latency)
            asked = urlparse(self.path)
            before, _, name = asked.path.partition("/o/")
            name = unquote(name)
            if not name:
                prefix = parse_qs(asked.query).get("prefix", [""])[0]
                listed = [said for each, said in bucket.said.items() if each.startswith(prefix)]
                self._json({"items": listed})
            elif name not in bucket.data:
                self._answer(404, b"no such object", {})
            elif before.startswith("/download"):
                self._media(bucket.data[name])
            else:
                self._json(bucket.said[name])

        def _media(self, data: bytes) -> None:
            first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last or len(data) - 1), len(data) - 1) + 1
            place = {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}", "x-goog-generation": GENERATION}
            self._answer(206, data[start:stop], place)

        def _json(self, tree: object) -> None:
            self._answer(200, json.dumps(tree).encode(), {"Content-Type": "application/json"})

        def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            for at in range(0, len(body), CHUNK):
                part = body[at : at + CHUNK]
                pipe.take(len(part))
                self.wfile.write(part)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: standard error is the probe's."""

    return Handler


def main(folder: Path, bytes_per_second: float, latency: float) -> int:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(Bucket(folder), Pipe(bytes_per_second), latency))
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))
