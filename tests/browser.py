"""Real browsers that tests talk to by their own protocols: open, evaluate, press keys, watch requests.

Chromium runs headless and speaks its debugging protocol. Firefox has no WebGL without a display, so it gets a virtual
one (Xvfb), and speaks WebDriver BiDi.
"""

import asyncio
import contextlib
import itertools
import json
import os
import pathlib
import shutil
import subprocess
import time

import aiohttp
import pytest

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
FIREFOX = next((found for name in ("firefox-esr", "firefox") if (found := shutil.which(name))), "")
needs_browser = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")
needs_firefox = pytest.mark.skipif(not (FIREFOX and shutil.which("Xvfb")), reason="no Firefox, or no Xvfb, here")
_SECONDS = 60
_KEYS = {"ArrowLeft": "\ue012", "ArrowUp": "\ue013", "ArrowRight": "\ue014", "ArrowDown": "\ue015"}  # of WebDriver
_PREFERENCES = {
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "remote.active-protocols": 1,  # WebDriver BiDi
    "webgl.force-enabled": True,
}


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
                assert "error" not in message, message
                return message["result"]
            self._hear(message.get("method"), message.get("params", {}))

    def open(self, path: pathlib.Path, hash: str = "") -> None:
        """Open a file and wait until it says in data-state how it ended."""
        self._go("about:blank")
        self._go(f"{path.as_uri()}#{hash}")
        self.wait("document.body && document.body.dataset.state")

    def wait(self, expression: str) -> None:
        """Wait until an expression is true."""
        until = time.monotonic() + _SECONDS
        while not self.evaluate(expression):
            assert time.monotonic() < until, f"not within {_SECONDS} s: {expression}"
            time.sleep(0.02)


class ChromiumPage(Page):
    """By Chromium's debugging protocol."""

    files_are_heard = True  # among the requests

    def start(self) -> None:
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def _go(self, address: str) -> None:
        self.call("Page.navigate", url=address)

    def _hear(self, kind: str, about: dict) -> None:
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

    def press(self, key: str) -> None:
        """Press a key."""
        text = {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)


class FirefoxPage(Page):
    """By WebDriver BiDi."""

    files_are_heard = False

    def start(self) -> None:
        self.call("session.new", capabilities={})
        self._context = self.call("browsingContext.getTree")["contexts"][0]["context"]
        heard = ["log.entryAdded", "network.beforeRequestSent", "browsingContext.userPromptOpened"]
        self.call("session.subscribe", events=heard)

    def _go(self, address: str) -> None:
        self.call("browsingContext.navigate", context=self._context, url=address, wait="complete")

    def _hear(self, kind: str, about: dict) -> None:
        if kind == "network.beforeRequestSent":
            self.requests.append(about["request"]["url"])
        elif kind == "browsingContext.userPromptOpened":
            self.dialogs += 1
        elif kind == "log.entryAdded" and about["level"] == "error":
            self.errors.append(str(about))

    def evaluate(self, expression: str):
        """The value of an expression, or of what it promises."""
        text = f"(async () => JSON.stringify(await ({expression})))()"
        target = {"context": self._context}
        answer = self.call("script.evaluate", expression=text, target=target, awaitPromise=True)
        assert answer["type"] == "success", answer["exceptionDetails"]
        return json.loads(answer["result"].get("value", "null"))

    def press(self, key: str) -> None:
        """Press a key."""
        steps = [{"type": kind, "value": _KEYS.get(key, key)} for kind in ("keyDown", "keyUp")]
        actions = [{"type": "key", "id": "keyboard", "actions": steps}]
        self.call("input.performActions", context=self._context, actions=actions)


@contextlib.contextmanager
def opened(folder: pathlib.Path, *flags: str):
    """A page of a new Chromium whose profile lies in a folder."""
    always = ["--headless", "--no-sandbox", "--remote-debugging-port=0", f"--user-data-dir={folder}", "--no-first-run"]
    drawing = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--window-size=640,480"]
    with _running([CHROMIUM, *always, *drawing, *flags, "about:blank"]):
        with _talking(ChromiumPage, _chromium_address(folder / "DevToolsActivePort")) as page:
            yield page


@contextlib.contextmanager
def opened_firefox(folder: pathlib.Path):
    """A page of a new Firefox whose profile lies in a folder."""
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in _PREFERENCES.items()]
    (folder / "user.js").write_text("\n".join(lines))
    given, taken = os.pipe()
    xvfb = ["Xvfb", "-screen", "0", "1280x1024x24", "-displayfd", str(taken)]
    with _running(xvfb, pass_fds=[taken]):
        os.close(taken)
        with open(given) as numbers:
            display = f":{numbers.readline().strip()}"
        always = ["--profile", str(folder), "--remote-debugging-port=0", "--no-remote", "--width=640", "--height=480"]
        with _running([FIREFOX, *always, "about:blank"], env=os.environ | {"DISPLAY": display}):
            with _talking(FirefoxPage, _firefox_address(folder / "WebDriverBiDiServer.json")) as page:
                yield page


@contextlib.contextmanager
def _running(command: list[str], **how):
    """A program that is ended afterwards."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **how) as program:
        try:
            yield
        finally:
            program.kill()


@contextlib.contextmanager
def _talking(kind: type[Page], address):
    """A page behind a socket whose address is awaited."""
    loop = asyncio.new_event_loop()
    with contextlib.closing(loop):
        session = loop.run_until_complete(_connect(address))
        page = kind(loop, session[1])
        page.start()
        try:
            yield page
        finally:
            loop.run_until_complete(session[0].close())


async def _connect(address):
    session = aiohttp.ClientSession()
    return session, await session.ws_connect(await address, max_msg_size=0)


async def _text_of(path: pathlib.Path) -> str:
    """What a file holds, once it is there."""
    until = time.monotonic() + _SECONDS
    while not (path.exists() and path.read_text().strip()):
        assert time.monotonic() < until, "the browser did not start"
        await asyncio.sleep(0.05)
    return path.read_text()


async def _chromium_address(port_file: pathlib.Path) -> str:
    port = (await _text_of(port_file)).split()[0]
    async with aiohttp.ClientSession() as session:
        targets = await (await session.get(f"http://127.0.0.1:{port}/json")).json()
    return next(target["webSocketDebuggerUrl"] for target in targets if target["type"] == "page")


async def _firefox_address(server_file: pathlib.Path) -> str:
    server = json.loads(await _text_of(server_file))
    return f"ws://{server['ws_host']}:{server['ws_port']}/session"
