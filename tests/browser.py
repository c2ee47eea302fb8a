"""A headless Chromium that tests talk to by its debugging protocol: open, evaluate, press keys, watch requests."""

import asyncio
import contextlib
import itertools
import pathlib
import shutil
import subprocess
import time

import aiohttp
import pytest

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
needs_browser = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")
_SECONDS = 60


class Page:
    """One page; every call waits for its answer."""

    def __init__(self, loop, socket):
        self._loop, self._socket, self._numbers = loop, socket, itertools.count(1)
        self.requests: list[str] = []  # addresses that the page asked for
        self.errors: list[str] = []  # what it complained of
        self.dialogs = 0

    def call(self, method: str, **arguments):
        """The answer to a command of the protocol."""
        return self._loop.run_until_complete(self._call(method, arguments))

    async def _call(self, method: str, arguments: dict):
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": arguments})
        while True:
            message = await asyncio.wait_for(self._socket.receive_json(), _SECONDS)
            if message.get("id") == number:
                assert "error" not in message, message["error"]
                return message["result"]
            self._hear(message)

    def _hear(self, message: dict) -> None:
        kind, about = message.get("method"), message.get("params", {})
        if kind == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        elif kind == "Page.javascriptDialogOpening":
            self.dialogs += 1
        elif kind == "Runtime.exceptionThrown" or (kind == "Log.entryAdded" and about["entry"]["level"] == "error"):
            self.errors.append(str(about))

    def evaluate(self, expression: str):
        """The value of an expression, or of what it promises."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def open(self, path: pathlib.Path, hash: str = "") -> None:
        """Open a file and wait until it says in data-state how it ended."""
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=f"{path.as_uri()}#{hash}")
        self.wait("document.body && document.body.dataset.state")

    def wait(self, expression: str) -> None:
        """Wait until an expression is true."""
        until = time.monotonic() + _SECONDS
        while not self.evaluate(expression):
            assert time.monotonic() < until, f"not within {_SECONDS} s: {expression}"
            time.sleep(0.02)

    def press(self, key: str) -> None:
        """Press a key."""
        text = {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)


@contextlib.contextmanager
def opened(folder: pathlib.Path, *flags: str):
    """A page of a new browser whose profile lies in a folder."""
    always = ["--headless", "--no-sandbox", "--remote-debugging-port=0", f"--user-data-dir={folder}", "--no-first-run"]
    drawing = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--window-size=640,480"]
    with subprocess.Popen(
        [CHROMIUM, *always, *drawing, *flags, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as browser:
        loop = asyncio.new_event_loop()
        try:
            with contextlib.closing(loop):
                session = loop.run_until_complete(_connect(folder / "DevToolsActivePort"))
                page = Page(loop, session[1])
                for domain in ("Page", "Runtime", "Network", "Log"):
                    page.call(f"{domain}.enable")
                yield page
                loop.run_until_complete(session[0].close())
        finally:
            browser.kill()


async def _connect(port_file: pathlib.Path):
    until = time.monotonic() + _SECONDS
    while not (port_file.exists() and port_file.read_text().strip()):
        assert time.monotonic() < until, "the browser did not start"
        await asyncio.sleep(0.05)
    port = port_file.read_text().split()[0]
    session = aiohttp.ClientSession()
    targets = await (await session.get(f"http://127.0.0.1:{port}/json")).json()
    address = next(target["webSocketDebuggerUrl"] for target in targets if target["type"] == "page")
    return session, await session.ws_connect(address, max_msg_size=0)
