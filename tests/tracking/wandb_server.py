"""As much of a W&B server, on this machine, as a run needs to begin online; it can be taken away in the middle."""

from __future__ import annotations

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_PROJECT = {"id": "p", "name": "fss", "entity": {"id": "e", "name": "team"}}
_VIEWER = {
    "id": "u", "entity": "team", "username": "team", "email": "a@b.c", "flags": "{}", "teams": {"edges": []},
}  # fmt: skip


class WandbServer:
    """Answers on a free port until it is closed.

    Attributes:
        status: of every answer; 401 refuses the key.
        runs: variables of the requests that began or changed a run.
    """

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.runs: list[dict[str, Any]] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def close(self) -> None:
        """Go away: connections are refused from now on."""
        self._http.shutdown()
        self._http.server_close()

    def answer(self, path: str, body: bytes) -> dict[str, Any]:
        if "graphql" not in path:
            return {"exitcode": None, "limits": {}}
        asked = json.loads(body)
        text, data = asked["query"], dict[str, Any]()
        if "viewer" in text:
            data["viewer"] = _VIEWER
        if "upsertBucket" in text:
            self.runs.append(asked["variables"])
            run = {"id": "r", "name": asked["variables"]["name"], "displayName": "d", "config": "{}"}
            more = {"description": "", "sweepName": None, "project": _PROJECT, "historyLineCount": 0}
            data["upsertBucket"] = {"bucket": {**run, **more}, "inserted": True}
        if "createRunFiles" in text:
            files = [{"name": name, "uploadUrl": f"{self.url}/file"} for name in asked["variables"]["files"]]
            data["createRunFiles"] = {"runID": "r", "uploadHeaders": [], "files": files}
        return {"data": data}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.0"  # no connection outlives its answer

            def log_message(self, *_: Any) -> None:
                pass

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                content = json.dumps(server.answer(self.path, body)).encode()
                self.send_response(server.status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_PUT = do_POST  # noqa: N815

        return Handler
