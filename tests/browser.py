# SPDX-License-Identifier: Apache-2.0
"""Chromium, a real browser that looks at our pages; without it, their tests skip."""

import html
import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    None,
)
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
    *("--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)

# --- files, each in a frame of its own ---

PROBE = """<script>
const problems = [];
addEventListener("error", e => problems.push(e.message || "not loaded: "
  + e.target.tagName), true);
console.error = (...words) => problems.push("console: " + words.join(" "));
addEventListener("load", () => {
  for (const part of document.querySelectorAll("details")) part.open = true;
  for (const image of document.images)
    if (!image.complete || !image.naturalWidth || !image.clientWidth)
      problems.push("broken picture: " + image.alt);
  const width = document.documentElement.scrollWidth;
  if (width > innerWidth) problems.push(width + " px wide");
  for (const part of document.querySelectorAll("*"))
    if (part.scrollWidth > part.clientWidth + 1
        && ["auto", "scroll"].includes(getComputedStyle(part).overflowX))
      problems.push("scrolls sideways: " + part.getAttribute("aria-label"));
  parent.postMessage({width: innerWidth, images: document.images.length, problems},
    "*");
});
</script>"""

# The narrowest window of Chromium is wider than a phone; a frame may be narrower.
WRAPPER = """<!DOCTYPE html><title>frames</title><script>
addEventListener("message", e => document.body.append(Object.assign(
  document.createElement("pre"), {{textContent: JSON.stringify(e.data)}})));
</script><body>{frames}"""


def look_at(folder, pages, widths):
    """Opens pages at each width in a browser.

    Returns:
      Per page and width what the probe in it found: `width` (of the screen), `images`
      (their number) and `problems`.
    """
    frames = []
    for number, page in enumerate(pages):
        source = page.read_text(encoding="utf-8")
        assert source.count("<head>") == 1
        copy = folder / f"{number}.html"
        copy.write_text(source.replace("<head>", f"<head>{PROBE}"), encoding="utf-8")
        frames += [
            f'<iframe src="{copy.name}" width="{width}" height="800"></iframe>'
            for width in widths
        ]
    wrapper = folder / "wrapper.html"
    wrapper.write_text(WRAPPER.format(frames="".join(frames)), encoding="utf-8")
    done = subprocess.run(
        [
            CHROMIUM,
            *OPTIONS,
            f"--user-data-dir={folder / 'profile'}",
            "--virtual-time-budget=10000",
            "--dump-dom",
            wrapper.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = re.findall("<pre>(.*?)</pre>", done.stdout, re.DOTALL)
    return [json.loads(html.unescape(text)) for text in found]


# --- a site, by the debugging protocol ---

# The words of a page, those in shadow trees and in frames too.
WORDS = """
(function words(node) {
  const parts = node.shadowRoot ? [words(node.shadowRoot)] : [];
  for (const child of node.childNodes) {
    if (child.nodeType === 3) parts.push(child.data);
    else if (child.contentDocument) parts.push(words(child.contentDocument.body));
    else if (!["SCRIPT", "STYLE"].includes(child.nodeName)) parts.push(words(child));
  }
  return parts.join(" ");
})(document.body)
"""


class Chromium:
    """A browser that we control through pipes; a context manager."""

    def __init__(self, folder: Path):
        reading, self.commands = os.pipe()
        self.answers, writing = os.pipe()
        options = [*OPTIONS, f"--user-data-dir={folder}", "--window-size=1280,900"]
        # Which wants its ends as files 3 and 4.
        redirected = f'exec "$0" "$@" 3<&{reading} 4>&{writing}'
        self.process = subprocess.Popen(
            ["bash", "-c", redirected, CHROMIUM, *options, "--remote-debugging-pipe"],
            pass_fds=(reading, writing),
            stderr=subprocess.DEVNULL,
        )
        os.close(reading)
        os.close(writing)
        self.received, self.count = b"", 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ask("Browser.close")
        self.process.wait(30)
        os.close(self.commands)
        os.close(self.answers)

    def ask(self, method, session=None, **params):
        """Sends a command of the debugging protocol; returns the browser's answer."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.received:
                assert (read := os.read(self.answers, 1 << 16)), "the browser has ended"
                self.received += read
            answer, _, self.received = self.received.partition(b"\0")
            if (answer := json.loads(answer)).get("id") == self.count:
                return answer["result"]

    def words(self, address, wanted, unwanted=(), seconds=120):
        """Text of a page once it has all that it should and no more, or at last."""
        target = self.ask("Target.createTarget", url=address)["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        session, end = attached["sessionId"], time.monotonic() + seconds
        while True:
            done = self.ask("Runtime.evaluate", session, expression=WORDS)
            words = " ".join(str(done["result"].get("value")).split())
            wrong = [w for w in wanted if w not in words]
            wrong += [w for w in unwanted if w in words]
            if not wrong or time.monotonic() > end:
                self.ask("Target.closeTarget", targetId=target)
                return words
            time.sleep(0.2)
