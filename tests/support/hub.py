"""A model hub on loopback that serves folders."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest


def commit_of(branch: str) -> str:
    return hashlib.sha1(branch.encode()).hexdigest()


class Hub:
    """Hub whose repositories lie in `root/BRANCH/owner/name`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[str] = []
        """Names of the files that were fetched."""
        self.status = 0
        """Status that answers every request, unless it is 0."""

    def branch(self, revision: str) -> str:
        for folder in self.root.iterdir():
            if revision in (folder.name, commit_of(folder.name)):
                return folder.name
        return "no such branch"

    def files(self, revision: str, repository: str) -> dict[str, bytes]:
        folder = self.root / self.branch(revision) / repository
        return {
            str(file.relative_to(folder)): file.read_bytes()
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        }

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        parts = unquote(path).strip("/").split("/")
        if self.status:
            return self.status, {"X-Error-Message": "the hub is out of sorts"}, b""
        if parts[:2] == ["api", "models"]:
            repository = "/".join(parts[2:4])
            revision = parts[5] if len(parts) > 5 else "main"
            if not any(self.root.glob(f"*/{repository}")):
                return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
            if self.branch(revision) == "no such branch":
                return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
            files = self.files(revision, repository)
            if "tree" in parts:
                rows = [
                    {"type": "file", "path": name, "size": len(data), "oid": "1" * 40}
                    for name, data in files.items()
                ]
                return 200, {"Content-Type": "application/json"}, json.dumps(rows).encode()
            commit = commit_of(self.branch(revision))
            info = {"id": repository, "sha": commit, "private": False, "tags": []}
            info |= {"downloads": 0, "likes": 0}
            return 200, {"Content-Type": "application/json"}, json.dumps(info).encode()
        repository, revision, name = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
        data = self.files(revision, repository).get(name)
        if data is None:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        headers = {
            "ETag": f'"{hashlib.sha1(data).hexdigest()}"',
            "X-Repo-Commit": commit_of(self.branch(revision)),
        }
        return 200, headers, data


@contextmanager
def hub(root: Path) -> Iterator[Hub]:
    """Serve a hub and make `huggingface_hub` use it, with a cache of its own."""
    served = Hub(root)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

        def do_GET(self) -> None:
            path = urlparse(self.path).path
            status, headers, body = served.answer(path)
            if self.command == "GET" and "/resolve/" in path:
                served.asked.append(path.rpartition("/")[2])
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        constants = "huggingface_hub.constants"
        patch.setattr(f"{constants}.HF_HUB_OFFLINE", False)
        patch.setattr(f"{constants}.HF_HUB_CACHE", str(root.parent / "hub-cache"))
        endpoint = f"http://127.0.0.1:{server.server_port}"
        patch.setattr(f"{constants}.ENDPOINT", endpoint)
        template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr(f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", template)
        try:
            yield served
        finally:
            server.shutdown()
            server.server_close()
