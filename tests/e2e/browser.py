"""Drives a headless Chromium through its DevTools pipe, with nothing but Python's standard library.

Commands and events are JSON, one after the other with a NUL between; Chromium reads them from file descriptor 3
and writes to 4 (--remote-debugging-pipe). Used by page.py; run by itself it takes a screenshot:
browser.py PAGE.html OUT.png [WIDTH [dark]].
"""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time

KEYS = {"Enter": (13, "\r"), "Tab": (9, ""), "ArrowUp": (38, ""), "ArrowDown": (40, ""), "ArrowLeft": (37, ""),
        "ArrowRight": (39, ""), "Home": (36, ""), "End": (35, ""), "PageUp": (33, ""), "PageDown": (34, ""), " ": (32, " ")}


def find():
    for name in ("chromium", "chromium-browser", "google-chrome"):
        path = shutil.which(name)
        if path:
            return path
    return None


class Browser:
    def __init__(self, path, width=1280, height=900):
        self.profile = tempfile.mkdtemp(prefix="cortado-browser-")
        to_child, self.write_fd = os.pipe()
        self.read_fd, from_child = os.pipe()

        def redirect():
            # Both away from 3 and 4 before they are put there.
            a, b = os.dup(to_child), os.dup(from_child)
            os.dup2(a, 3)
            os.dup2(b, 4)

        self.process = subprocess.Popen(
            [path, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
             "--disable-extensions", "--disable-background-networking", "--remote-debugging-pipe",
             f"--window-size={width},{height}", f"--user-data-dir={self.profile}", "about:blank"],
            preexec_fn=redirect, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, close_fds=False)
        os.close(to_child)
        os.close(from_child)
        self.buffer = b""
        self.next_id = 0
        self.session = None
        self.events = []
        target = [t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page"][0]
        self.session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(domain + ".enable")

    def close(self):
        try:
            self.session = None
            self.call("Browser.close")
            self.process.wait(10)
        except Exception:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.profile, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def receive(self, until):
        while b"\0" not in self.buffer:
            if not select.select([self.read_fd], [], [], max(0, until - time.monotonic()))[0]:
                raise TimeoutError("the browser does not answer")
            data = os.read(self.read_fd, 1 << 20)
            if not data:
                raise EOFError("the browser ended")
            self.buffer += data
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, seconds=60, **params):
        self.next_id += 1
        message = {"id": self.next_id, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.write_fd, data):]
        until = time.monotonic() + seconds
        while True:
            answer = self.receive(until)
            if answer.get("id") == self.next_id:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.events.append(answer)

    def wait(self, event, seconds=60):
        until = time.monotonic() + seconds
        while True:
            for i, e in enumerate(self.events):
                if e.get("method") == event:
                    del self.events[i]
                    return e["params"]
            self.events.append(self.receive(until))

    def open(self, path):
        """Loads a file; returns the milliseconds from the navigation's start to the load event's end, as the page
        itself measures them (its script runs before that event)."""
        self.events.clear()
        address = "file://" + os.path.abspath(path.split("#")[0]) + ("#" + path.split("#")[1] if "#" in path else "")
        self.call("Page.navigate", url=address)
        self.wait("Page.loadEventFired")
        return self.run("performance.getEntriesByType('navigation')[0].loadEventEnd") or self.run(
            "new Promise(r => setTimeout(() => r(performance.getEntriesByType('navigation')[0].loadEventEnd), 0))")

    def run(self, script):
        """The value of an expression in the page; promises are awaited."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"].get("exception", {}).get("description", "script failed"))
        return result["result"].get("value")

    def key(self, name):
        code, text = KEYS[name]
        for kind in ("keyDown", "keyUp"):
            params = {"type": kind, "key": name, "windowsVirtualKeyCode": code}
            if kind == "keyDown" and text:
                params["text"] = text
            self.call("Input.dispatchKeyEvent", **params)

    def prefer(self, scheme, media=""):
        self.call("Emulation.setEmulatedMedia", media=media,
                  features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, out, selector=None):
        """The whole page, or the element that the selector finds."""
        params = {}
        if selector:
            box = self.run("(() => { const r = document.querySelector(%s).getBoundingClientRect();"
                           " return [r.x + scrollX, r.y + scrollY, r.width, r.height]; })()" % json.dumps(selector))
            params["clip"] = dict(zip(("x", "y", "width", "height"), box), scale=1)
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, **params)["data"]
        with open(out, "wb") as f:
            f.write(base64.b64decode(data))

    def troubles(self):
        """What went wrong in the page: exceptions, errors of the console, anything asked from the network."""
        found = []
        for e in self.events:
            method, params = e.get("method"), e.get("params", {})
            if method == "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                found.append(details.get("exception", {}).get("description", details["text"]))
            elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
                found.append(params["entry"]["text"])
            elif method == "Network.requestWillBeSent":
                address = params["request"]["url"]
                if params.get("type") != "Document":
                    found.append("asked for " + address)
        return found


if __name__ == "__main__":
    with Browser(find(), int(sys.argv[3]) if len(sys.argv) > 3 else 1280) as b:
        b.prefer("dark" if "dark" in sys.argv[4:] else "light")
        print(f"{b.open(sys.argv[1]):.0f} ms", b.troubles())
        b.screenshot(sys.argv[2])
