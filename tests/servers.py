"""Servers on loopback that tests start: files over HTTP by ranges, and S3 (moto); both log requests and fail on demand.

The fixtures `http_server`, `s3` and `s3_environment` are there for all tests, through `tests/conftest.py`.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a server was asked."""

    method: str
    path: str
    """Path and query."""
    headers: dict[str, str]
    """Names in lower case."""

    @property
    def range(self) -> str | None:
        """`bytes=first-last`, as it was sent."""
        return self.headers.get("range")


Fault = Callable[[Request], int | None]
"""Status to answer a request with instead of doing it; `RESET` cuts the connection, `SHORT` sends half of the body and
`STALL` half of it and then nothing more."""
RESET, SHORT, STALL = -1, -2, -3
STALLED_S = 10.0
"""How long a stalled answer keeps its connection open."""


@dataclass
class Log:
    """Requests so far, and what is to go wrong."""

    requests: list[Request] = field(default_factory=list)
    fault: Fault | None = None
    """Asked before each request."""
    delay_s: float = 0.0
    """Time that each answer takes at least."""

    def seen(self, method: str | None = None, ending: str = "") -> list[Request]:
        """Requests of a method to paths with that ending."""
        return [
            r for r in list(self.requests) if method in (None, r.method) and r.path.partition("?")[0].endswith(ending)
        ]

    def clear(self) -> None:
        self.requests.clear()

    def enter(self, request: Request) -> int | None:
        """Note a request; return the status it is to fail with."""
        self.requests.append(request)
        if self.delay_s:
            time.sleep(self.delay_s)
        return self.fault(request) if self.fault else None


def first(count: int, status: int, *, method: str = "GET") -> Fault:
    """The fault that hits the first `count` requests of a method with `status`."""
    left = [count]
    lock = threading.Lock()

    def fault(request: Request) -> int | None:
        with lock:
            if request.method != method or left[0] == 0:
                return None
            left[0] -= 1
            return status

    return fault


@dataclass(frozen=True, kw_only=True)
class HttpServer:
    """A folder over HTTP, with ranges, ETag, Last-Modified and If-Match."""

    root: Path
    url: str
    log: Log


def sent_bytes(server: HttpServer) -> Counter[str]:
    """Return the bytes that a server has sent of each file."""
    found: Counter[str] = Counter()
    for request in server.log.seen("GET"):
        path = server.root / request.path.lstrip("/")
        span, size = re.fullmatch(r"bytes=(\d+)-(\d*)", request.range or ""), path.stat().st_size
        found[path.name] += min(int(span[2] or size) + 1, size) - int(span[1]) if span else size
    return found


@lru_cache(maxsize=64)
def _etag(path: Path, _mtime_ns: int) -> str:
    return f'"{hashlib.md5(path.read_bytes()).hexdigest()}"'


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        request = Request(method=self.command, path=self.path, headers={k.lower(): v for k, v in self.headers.items()})
        status = self.server.log.enter(request)
        path = self.server.root / unquote(self.path.partition("?")[0]).lstrip("/")
        if status == RESET:
            self.close_connection = True
            self.connection.shutdown(2)
            return
        if status is not None and status not in (SHORT, STALL):
            self._send(status, b"refused", {}, with_body=with_body)
        elif not path.is_file():
            self._send(404, b"not there", {}, with_body=with_body)
        else:
            self._file(path, request, is_short=status in (SHORT, STALL), with_body=with_body)
            if status == STALL:
                self.wfile.flush()
                time.sleep(STALLED_S)

    def _file(self, path: Path, request: Request, *, is_short: bool, with_body: bool) -> None:
        found = path.stat()
        size, etag = found.st_size, _etag(path, found.st_mtime_ns)
        headers = {"Accept-Ranges": "bytes"}
        if self.server.has_validators:
            headers |= {"ETag": etag, "Last-Modified": formatdate(found.st_mtime, usegmt=True)}
        if (wanted := request.headers.get("if-match")) is not None and wanted not in ("*", etag):
            self._send(412, b"changed", headers, with_body=with_body)
            return
        status, begin, end = 200, 0, size
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", request.range or "")
        if span and self.server.has_ranges:
            begin, end = int(span[1]), min(int(span[2] or size) + 1, size)
            if begin >= size:
                self._send(416, b"", {"Content-Range": f"bytes */{size}"}, with_body=with_body)
                return
            status, headers["Content-Range"] = 206, f"bytes {begin}-{end - 1}/{size}"
        with path.open("rb") as file:
            file.seek(begin)
            data = file.read(end - begin)
        self._send(status, data, headers, with_body=with_body, is_short=is_short)

    def _send(
        self, status: int, data: bytes, headers: dict[str, str], *, with_body: bool, is_short: bool = False
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(data[: len(data) // 2] if is_short else data)
        if is_short:
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, root: Path, *, has_ranges: bool, has_validators: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root, self.log = root, Log()
        self.has_ranges, self.has_validators = has_ranges, has_validators

    def handle_error(self, *_: Any) -> None:
        pass  # clients that are killed, or connections that a test has cut


@contextmanager
def serve_http(root: Path, *, has_ranges: bool = True, has_validators: bool = True) -> Iterator[HttpServer]:
    """Serve a folder on loopback while the block runs."""
    server = _Server(root, has_ranges=has_ranges, has_validators=has_validators)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield HttpServer(root=root, url=f"http://127.0.0.1:{server.server_port}", log=server.log)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass(frozen=True, kw_only=True)
class S3:
    """A bucket of its own on an S3 server."""

    endpoint: str
    bucket: str
    log: Log

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}"

    @property
    def options(self) -> dict[str, Any]:
        """fsspec storage options."""
        return {
            "key": "test",
            "secret": "test",
            "client_kwargs": {"endpoint_url": self.endpoint, "region_name": "us-east-1"},
        }

    @property
    def environment(self) -> dict[str, str]:
        """What says the same to a command that takes no options."""
        return {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.endpoint,
        }

    @property
    def fs(self) -> Any:
        import s3fs

        return s3fs.S3FileSystem(**self.options, use_listings_cache=False)

    def upload(self, path: Path, key: str = "") -> str:
        """Copy a file or folder into the bucket and return its URL."""
        target = f"{self.bucket}/{key or path.name}"
        self.fs.put(str(path), target, recursive=path.is_dir())
        return f"s3://{target}"


@contextmanager
def serve_s3() -> Iterator[tuple[str, Log]]:
    """Run moto's S3 server on loopback while the block runs; yields its address and its log."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, *_: Any) -> None:
            pass

    log = Log()
    inner = DomainDispatcherApplication(create_backend_app)

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        headers = {k[5:].lower().replace("_", "-"): v for k, v in environ.items() if k.startswith("HTTP_")}
        path = environ["PATH_INFO"] + (f"?{environ['QUERY_STRING']}" if environ.get("QUERY_STRING") else "")
        status = log.enter(Request(method=environ["REQUEST_METHOD"], path=path, headers=headers))
        if status is None:
            return inner(environ, start_response)
        if status < 0:
            raise ConnectionAbortedError
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        code = {403: "AccessDenied", 500: "InternalError", 503: "SlowDown"}[status]
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
        start_response(f"{status} {code}", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", log
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def http_server(tmp_path: Path) -> Iterator[HttpServer]:
    """A folder `served` below `tmp_path`, over HTTP."""
    (tmp_path / "served").mkdir()
    with serve_http(tmp_path / "served") as server:
        yield server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[tuple[str, Log]]:
    """Address and log of an S3 server that lives as long as the tests."""
    with serve_s3() as server:
        yield server


@pytest.fixture
def s3(s3_server: tuple[str, Log]) -> Iterator[S3]:
    """An empty bucket; give `s3.options` to what takes fsspec options."""
    endpoint, log = s3_server
    bucket = S3(endpoint=endpoint, bucket=f"bucket-{uuid.uuid4().hex[:8]}", log=log)
    bucket.fs.call_s3("create_bucket", Bucket=bucket.bucket)  # mkdir sends a region that S3 refuses
    log.clear()
    log.fault, log.delay_s = None, 0.0
    yield bucket
    log.fault, log.delay_s = None, 0.0


@pytest.fixture
def s3_environment(s3: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """The same bucket, found through environment variables: for commands and for calls without options."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return s3
