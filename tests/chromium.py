"""Opens a page in headless Chromium, by its debugging pipe, and tells what the page said and asked for."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 90  # seconds, for the browser to start too


def executable() -> str | None:
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@dataclass
class Visit:
    requests: list[str] = field(default_factory=list)  # URLs
    console: list[str] = field(default_factory=list)  # messages, errors that nobody caught, complaints of the browser
    picture: bytes = b""  # PNG
    value: Any = None


class _Pipe:
    """Chrome's debugging protocol: messages of JSON, each followed by a zero byte."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from, self._rest, self._number = to_browser, from_browser, b"", 0
        self.events: list[dict[str, Any]] = []

    def send(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def await_event(self, method: str) -> None:
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self.receive())

    def receive(self) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(self._from, 1 << 16) if ready else b""
            assert data, "the browser did not answer"
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)


def visit(page: Path, script: str = "null", *, width: int = 1100) -> Visit:
    """Open the file, run `script` in it, take a picture of all of it."""
    (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
    # The browser expects them as descriptors 3 and 4; a shell puts them there.
    options = (
        "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --remote-debugging-pipe --no-first-run "
        "--disable-background-networking --disable-component-update --disable-sync --disable-extensions --hide-scrollbars"
    )
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = f'exec "$0" {options} --user-data-dir="$1" about:blank 3<&{theirs_in} 4>&{theirs_out}'
        process = subprocess.Popen(
            ["bash", "-c", command, executable() or "", profile],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            pass_fds=(theirs_in, theirs_out),
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        try:
            return _look(_Pipe(ours_out, ours_in), page, script, width)
        finally:
            process.kill()
            process.wait()
            os.close(ours_out)
            os.close(ours_in)


def _look(pipe: _Pipe, page: Path, script: str, width: int) -> Visit:
    target = pipe.send("Target.createTarget", url="about:blank")["targetId"]
    session = pipe.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    for domain in ("Page", "Network", "Log", "Runtime"):
        pipe.send(f"{domain}.enable", session)
    pipe.send("Page.navigate", session, url=page.resolve().as_uri())
    pipe.await_event("Page.loadEventFired")
    found = Visit()
    found.value = pipe.send("Runtime.evaluate", session, expression=script, returnByValue=True)["result"].get("value")
    height = pipe.send("Runtime.evaluate", session, expression="document.documentElement.scrollHeight")["result"][
        "value"
    ]
    pipe.send(
        "Emulation.setDeviceMetricsOverride", session, width=width, height=height, deviceScaleFactor=1, mobile=False
    )
    picture = pipe.send("Page.captureScreenshot", session, captureBeyondViewport=True)
    found.picture = base64.b64decode(picture["data"])
    for event in pipe.events:
        method, params = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            found.requests.append(params["request"]["url"])
        elif method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            found.console.append(json.dumps(params))
    return found
