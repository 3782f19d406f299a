"""A real browser: what a page says and asks for, and its keys and buttons by remote control.

The remote control speaks the DevTools protocol over two pipes: lines of JSON that end in a zero.
"""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

PATIENCE_S = 30.0
"""How long a browser may take to answer on a busy machine [s]."""


@dataclass(frozen=True)
class Visit:
    """What a browser made of a page: its text, its complaints, what it asked of the network."""

    text: str
    console: list[str]
    requests: list[str]


def visited(page: Path, tmp_path: Path) -> Visit:
    log = tmp_path / "net.json"
    done = subprocess.run(
        [
            *command(tmp_path),
            "--enable-logging=stderr",
            "--v=0",
            f"--log-net-log={log}",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    # The browser itself asks for updates and the like, in the name of other origins or of none;
    # what a page in a file asks for is kept apart under file://.
    asked = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    urls = [
        params["url"]
        for params in asked
        if params.get("network_isolation_key", "").startswith("file://")
    ]
    return Visit(
        text=done.stdout,
        console=[line for line in done.stderr.splitlines() if "CONSOLE" in line],
        requests=[url for url in urls if url.startswith(("http:", "https:", "ws:", "wss:"))],
    )


def command(tmp_path: Path) -> list[str]:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("needs chromium on the PATH")
    return [
        browser,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--host-resolver-rules=MAP * ~NOTFOUND",  # whatever is asked for stays here
        f"--user-data-dir={tmp_path / 'profile'}",
    ]


class Browser:
    """One tab of a headless browser; `requests` and `console` collect what its pages do."""

    def __init__(self, tmp_path: Path) -> None:
        self.downloads = tmp_path / "downloads"
        self._asked: dict[str, str] = {}
        self.console: list[str] = []
        self._number = 0
        self._session: str | None = None
        self._rest = b""
        read_here, write_there = os.pipe()
        read_there, write_here = os.pipe()
        # The browser reads from descriptor 3 and writes to 4; a shell puts the pipes there;
        # not every sh can, whose descriptors may have one digit only.
        self._process = subprocess.Popen(
            [
                *("bash", "-c", f'exec "$@" 3<&{read_there} 4>&{write_there}', "bash"),
                *command(tmp_path),
                "--remote-debugging-pipe",
            ],
            pass_fds=(read_there, write_there),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_there)
        os.close(write_there)
        self._in, self._out = read_here, write_here
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.call("Browser.close")
            self._process.wait(PATIENCE_S)
        finally:
            self._process.kill()
            self._process.wait()
            os.close(self._in)
            os.close(self._out)

    @property
    def requests(self) -> list[str]:
        """What pages asked of the network, or of themselves, and were allowed to."""
        return list(self._asked.values())

    def forget(self) -> None:
        """Begin `requests` and `console` anew."""
        self._asked.clear()
        self.console.clear()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask the browser for something and wait for its answer."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return dict(answer["result"])

    def open(self, page: Path, width: int = 1280, height: int = 900, fragment: str = "") -> None:
        """Load a page in a window of this size."""
        self.resize(width, height)
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=page.as_uri() + fragment)
        self.wait("document.readyState === 'complete' && location.protocol === 'file:'")

    def resize(self, width: int, height: int) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def run(self, script: str) -> Any:
        """The value of an expression in the page, which its security policy does not bind."""
        answer = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, condition: str) -> None:
        """Until an expression in the page is true."""
        deadline = time.monotonic() + PATIENCE_S
        while not self.run(condition):
            assert time.monotonic() < deadline, f"never: {condition}"
            time.sleep(0.02)

    def press(self, *keys: str) -> None:
        """Press and release keys as a person would: `j`, `Enter`, `ArrowDown`."""
        codes = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowLeft": 37, "ArrowUp": 38}
        codes |= {"ArrowRight": 39, "ArrowDown": 40}
        for key in keys:
            text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
            code = codes.get(key, ord(key.upper()) if len(key) == 1 else 0)
            event = {"key": key, "windowsVirtualKeyCode": code}
            self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **event)
            self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def type(self, text: str) -> None:
        """Put text in at the cursor."""
        self.call("Input.insertText", text=text)

    def downloaded(self, name: str) -> Path:
        """A file that the page saved, once it is there."""
        deadline = time.monotonic() + PATIENCE_S
        while not (self.downloads / name).exists():
            assert time.monotonic() < deadline, f"no {name} was saved"
            self.run("1")
            time.sleep(0.02)
        return self.downloads / name

    def picture(self, file: Path, dark: bool = False, whole: bool = False) -> None:
        """Write what the window shows as a PNG, for people to look at."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(shot["data"]))

    def _next(self) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_S
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(deadline - time.monotonic(), 0))
            assert ready, "the browser does not answer"
            read = os.read(self._in, 1 << 20)
            assert read, "the browser has ended"
            self._rest += read
        line, _, self._rest = self._rest.partition(b"\0")
        message = dict(json.loads(line))
        told = message.get("params", {})
        if message.get("method") == "Network.requestWillBeSent":
            self._asked[told["requestId"]] = told["request"]["url"]
        elif message.get("method") == "Network.loadingFailed" and told.get("blockedReason"):
            self._asked.pop(told["requestId"], None)  # the page's policy kept it in
        elif message.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
            self.console.append(json.dumps(told))
        elif message.get("method") == "Runtime.consoleAPICalled":
            self.console.append(json.dumps(told["args"]))
        return message
