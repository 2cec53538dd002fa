"""Browser for the tests: Chromium, by its DevTools protocol and the package `websockets`.

Each line of standard input is an order, and each has one line of JSON as its answer.

| order | effect |
| --- | --- |
| `open URL` | opens a page; the answer is its number |
| `run PAGE SCRIPT` | runs a script, and answers with its value |
| `type PAGE TEXT` | presses the keys of a text |
| `key PAGE NAME` | presses a key of `KEYS`, such as `Enter`, `Tab`, `ShiftTab` or `ArrowDown` |
| `look PAGE WIDTH SCHEME FILE` | draws the page, `light` or `dark`, so many pixels wide |
"""

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

import websockets

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-breakpad --disable-dev-shm-usage --remote-debugging-port=0"
).split()
KEYS = {
    "Enter": 13, "Tab": 9, "ShiftTab": 9, "Escape": 27, "PageUp": 33, "PageDown": 34, "End": 35, "Home": 36,
    "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40,
}
SHIFT = 8


class Browser:
    def __init__(self, socket):
        self.socket, self.number, self.pages = socket, 0, []

    async def ask(self, method, page=None, **params):
        self.number += 1
        order = {"id": self.number, "method": method, "params": params}
        if page is not None:
            order["sessionId"] = self.pages[page]
        await self.socket.send(json.dumps(order))
        while True:
            answer = json.loads(await self.socket.recv())
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    async def open(self, url):
        target = await self.ask("Target.createTarget", url=url)
        attached = await self.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self.pages.append(attached["sessionId"])
        # A page in the background is not drawn, and has no focus.
        await self.ask("Emulation.setFocusEmulationEnabled", len(self.pages) - 1, enabled=True)
        while not await self.is_loaded(len(self.pages) - 1):
            await asyncio.sleep(0.02)
        return len(self.pages) - 1

    async def is_loaded(self, page):
        """Whether scripts find the page that was opened, and not the empty one before it."""
        script = "location.href !== 'about:blank' && document.readyState === 'complete'"
        try:
            return await self.run(page, script)
        except RuntimeError:
            # Between the two pages there is none.
            return False

    async def run(self, page, script):
        result = await self.ask("Runtime.evaluate", page, expression=script, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{script}: {result['exceptionDetails']}")
        return result["result"].get("value")

    async def type(self, page, text):
        for c in text:
            await self.ask("Input.dispatchKeyEvent", page, type="keyDown", text=c, key=c)
            await self.ask("Input.dispatchKeyEvent", page, type="keyUp", key=c)

    async def key(self, page, name):
        shift = SHIFT if name.startswith("Shift") else 0
        key = name.removeprefix("Shift")
        about = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[name], "modifiers": shift}
        text = {"text": "\r"} if key == "Enter" else {}
        await self.ask("Input.dispatchKeyEvent", page, type="keyDown", **about, **text)
        await self.ask("Input.dispatchKeyEvent", page, type="keyUp", **about)

    async def look(self, page, width, scheme, file):
        size = {"width": int(width), "height": 640, "deviceScaleFactor": 1, "mobile": False}
        await self.ask("Emulation.setDeviceMetricsOverride", page, **size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.ask("Emulation.setEmulatedMedia", page, features=features)
        drawn = await self.ask("Page.captureScreenshot", page)
        with open(file, "wb") as f:
            f.write(base64.b64decode(drawn["data"]))

    async def obey(self, order):
        verb, _, rest = order.partition(" ")
        if verb == "open":
            return await self.open(rest)
        page, _, rest = rest.partition(" ")
        if verb == "look":
            return await self.look(int(page), *rest.split(" ", 2))
        return await {"run": self.run, "type": self.type, "key": self.key}[verb](int(page), rest)


async def main(profile):
    port = os.path.join(profile, "DevToolsActivePort")
    while not os.path.exists(port) or open(port).read().count("\n") < 1:
        time.sleep(0.02)
    number, path = open(port).read().split("\n")[:2]
    async with websockets.connect(f"ws://127.0.0.1:{number}{path}", max_size=None) as socket:
        browser, loop = Browser(socket), asyncio.get_running_loop()
        while order := await loop.run_in_executor(None, sys.stdin.readline):
            print(json.dumps(await browser.obey(order.rstrip("\n"))), flush=True)


# An end of the test is one of the browser, too.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
    chromium = subprocess.Popen(
        ["chromium", *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        asyncio.run(main(profile))
    finally:
        os.killpg(chromium.pid, signal.SIGKILL)
        chromium.wait()
