"""A real browser without a window, driven by the DevTools protocol over a pipe: it needs Chromium alone."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.processes import wait_until

COMMAND = "chromium"
IS_INSTALLED = shutil.which(COMMAND) is not None
#: Generous: a page may load while six tests run beside it.
PATIENCE_SECONDS = 60.0
#: Keys that stand for no character: their codes.
_KEYS = {"Tab": 9, "Enter": 13, "Space": 32, "ArrowDown": 40}
_SHIFT = 8


class Browser:
    """A browser process with a profile of its own.

    Args:
        profile: A directory for its profile.
    """

    def __init__(self, profile: Path) -> None:
        commands_out, commands_in = os.pipe()
        replies_out, replies_in = os.pipe()
        arguments = (
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--hide-scrollbars", "--remote-debugging-pipe",
            f"--user-data-dir={profile}", "about:blank",
        )  # fmt: skip
        # It reads its commands at descriptor 3, and writes at 4; both pipes are moved out of the way first.
        script = 'exec 3<&"$0" 4>&"$1"; shift; exec "$@"'
        command = ["bash", "-c", script, str(commands_out), str(replies_in), COMMAND, *arguments]
        self._process = subprocess.Popen(
            command,
            pass_fds=(commands_out, replies_in),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(commands_out)
        os.close(replies_in)
        self._commands = os.fdopen(commands_in, "wb", buffering=0)
        self._replies = os.fdopen(replies_out, "rb", buffering=0)
        self._buffer = b""
        self._number = 0
        self.events: dict[str, list[dict[str, Any]]] = {}

    def open(self, url: str, width: int = 1200, features: Mapping[str, str] | None = None) -> Tab:
        """Open a page in a tab of its own and wait until its scripts have run.

        Args:
            url: The page.
            width: The width of its window in pixels.
            features: Media features of CSS and their values.
        """
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = Tab(self, target, session)
        for domain in ("Page", "Network", "Log", "Runtime"):
            tab.send(f"{domain}.enable")
        tab.send("Emulation.setFocusEmulationEnabled", enabled=True)
        tab.resize(width)
        media = [{"name": name, "value": value} for name, value in (features or {}).items()]
        tab.send("Emulation.setEmulatedMedia", features=media)
        tab.send("Page.navigate", url=url)
        wait_until(
            lambda: tab.run("location.href !== 'about:blank' && document.readyState === 'complete'"),
            PATIENCE_SECONDS,
            f"{url} to load",
        )
        return tab

    def send(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result; events that come meanwhile are kept by their session."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        self._commands.write(json.dumps(message).encode() + b"\0")
        while True:
            reply = self._read()
            if reply.get("id") == self._number:
                if "error" in reply:
                    raise RuntimeError(f"{method}: {reply['error']}")
                result: dict[str, Any] = reply["result"]
                return result
            self.events.setdefault(reply.get("sessionId", ""), []).append(reply)

    def close(self) -> None:
        """End it, with all its processes."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._commands.close()
        self._replies.close()

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            part = os.read(self._replies.fileno(), 1 << 20)
            if not part:
                raise RuntimeError("the browser has ended")
            self._buffer += part
        text, _, self._buffer = self._buffer.partition(b"\0")
        reply: dict[str, Any] = json.loads(text)
        return reply


class Tab:
    """A page in the browser."""

    def __init__(self, browser: Browser, target: str, session: str) -> None:
        self._browser = browser
        self._target = target
        self._session = session

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command to the page."""
        return self._browser.send(method, self._session, **parameters)

    def run(self, script: str) -> Any:
        """Return the value of a JavaScript expression; a promise is waited for."""
        reply = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, replMode=True)
        if "exceptionDetails" in reply:
            raise RuntimeError(reply["exceptionDetails"].get("exception", reply["exceptionDetails"]))
        return reply["result"].get("value")

    def until(self, script: str) -> Any:
        """Wait until a JavaScript expression is true, and return its value."""

        def state() -> str:
            return f"{script}; the page has\n{self.run('document.body.innerText')}"

        return wait_until(lambda: self.run(script), PATIENCE_SECONDS, state)

    def resize(self, width: int, height: int = 800) -> None:
        """Give the page a window of this size in pixels."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def type(self, text: str) -> None:
        """Type a text where the focus is."""
        self.send("Input.insertText", text=text)

    def press(self, key: str, times: int = 1, *, shift: bool = False) -> None:
        """Press a key that stands for no character."""
        stated = {"key": " " if key == "Space" else key, "code": key, "windowsVirtualKeyCode": _KEYS[key]}
        texts = {"Enter": {"text": "\r"}, "Space": {"text": " "}}.get(key, {})
        for _ in range(times):
            modifiers = _SHIFT if shift else 0
            self.send("Input.dispatchKeyEvent", type="keyDown", modifiers=modifiers, **stated, **texts)
            self.send("Input.dispatchKeyEvent", type="keyUp", modifiers=modifiers, **stated)

    def events(self, method: str) -> list[dict[str, Any]]:
        """Return the parameters of all events of a kind that the page has had."""
        self.run("0")  # whatever came before it is read
        found: Sequence[dict[str, Any]] = self._browser.events.get(self._session, ())
        return [event["params"] for event in found if event["method"] == method]

    def screenshot(self, path: Path) -> None:
        """Write a picture of the whole page."""
        shot = self.send("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        """Close it."""
        self._browser.send("Target.closeTarget", targetId=self._target)
