"""Damaged files dropped into the page for a galaxy of one's own: the page's own worker, in headless Chromium.

Its network is replaced by constant numbers, which takes no time. A file goes wrong if the worker raises, names an
error of JavaScript, or needs more than ten seconds.
"""

import base64
import gzip
import json
import shutil
import sys
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import psutil
from tqdm import tqdm

from studies import page

KINDS = "FITS", "FITS with check sums", "FITS in gzip", "FITS cube", "PNG", "JPEG"
RUNTIME = """
export const env = {wasm: {}};
export class Tensor { constructor(type, data) { this.data = data; } }
const found = {code: [0], likelihood: [0, 0, 50], cosines: [1, 0.5]};
Object.assign(found, {centroid: [0.3, 0.5, 0.1, 0.1], coarse: [0.4, 0.6]});
const tensors = Object.fromEntries(Object.entries(found).map(([name, data]) => [name, {data: new Float32Array(data)}]));
export const InferenceSession = {create: async () => ({run: async () => tensors})};
"""
TRY = """
let worker, waiting;
async function started() {
  worker = new Worker("worker.mjs", {type: "module"});
  const first = new Promise((done) => (waiting = done));
  worker.onmessage = ({data}) => waiting(data);
  worker.onerror = (error) => waiting({error: error.message || "uncaught error"});
  if (!(await first).ready) throw new Error("the worker does not start");
}
window.tried = async (name, text) => {
  if (!worker) await started();
  const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0)), begun = performance.now();
  const answer = new Promise((done) => (waiting = done));
  const late = new Promise((done) => setTimeout(() => done({error: "it does not end"}), 10000));
  worker.postMessage({file: new File([bytes], name), name});
  const {refused, error, found} = await Promise.race([answer, late]);
  if (error) worker = worker.terminate();
  return {refused, error, answered: found?.status, seconds: (performance.now() - begun) / 1000};
};
"""
UNFORESEEN = " cannot be read: "  # with which the worker tells of an error of JavaScript


@contextmanager
def served(folder: Path):
    """The address of a page with a function ``tried``, made in a folder."""
    shutil.copytree(Path(page.__file__).parents[1] / "book" / "look", folder, dirs_exist_ok=True)
    known = {"ra": [1.0, 2.0], "dec": [1.0, 2.0], "label": [0, 1], "labels": ["FRI", "FRII"]}
    (folder / "look.json").write_text(json.dumps({"library": page.library(), "galaxies": known}))
    (folder / "ort.wasm.bundle.min.mjs").write_text(RUNTIME)
    for name in ("ort.wasm.gz", "galaxy.onnx.gz"):
        (folder / name).write_bytes(gzip.compress(b"-"))
    (folder / "try.html").write_text(f"<!doctype html><script>{TRY}</script>")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/try.html"
    server.shutdown()
    server.server_close()


@contextmanager
def opened(folder: Path):
    """That page, in Chromium; ends the program without it."""
    from playwright.sync_api import sync_playwright

    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        sys.exit("no Chromium is installed: apt-get install chromium")
    with served(folder) as address, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        shown = browser.new_page()
        shown.goto(address)
        yield shown
        browser.close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Nothing."""


def dropped(shown, name: str, data: bytes) -> tuple[str, str, float]:
    """Drop a file into the page: whether it was refused, answered or went wrong, what is said, and the seconds."""
    answer = shown.evaluate("([name, data]) => tried(name, data)", [name, base64.b64encode(data).decode()])
    text = answer.get("error") or answer.get("refused") or ""
    if answer.get("error") or UNFORESEEN in text:
        return "wrong", text, answer["seconds"]
    if answer.get("refused"):
        return ("refused" if 20 < len(text) < 600 and text.isprintable() else "wrong"), text, answer["seconds"]
    return ("answered" if answer.get("answered") else "wrong"), text, answer["seconds"]


def memory() -> float:
    """MB of the largest process of the browser."""
    return max((one.memory_info().rss / 1e6 for one in psutil.Process().children(recursive=True)), default=0.0)


def tried(kinds: dict, mutated: Callable, count: int, seed: int, folder: Path) -> tuple[dict, list[tuple[str, bytes]]]:
    """Counts of outcomes of mutated files, and the files that went wrong with what happened."""
    outcomes, seconds, largest, kept = [], [0.0], [0.0], []
    with opened(folder) as shown:
        for draw in tqdm(range(count), desc="page", disable=not sys.stderr.isatty()):
            kind, rng = kinds[KINDS[draw % len(KINDS)]], np.random.default_rng([seed, len(kinds), draw])
            data = mutated(kind, rng) if draw >= len(KINDS) else kind.pack(kind.inner)
            found, text, took = dropped(shown, f"{draw}{kind.ending}", data)
            for known, one in zip((outcomes, seconds, largest), (found, took, memory()), strict=True):
                known.append(one)
            if found == "wrong":
                kept.append((f"{draw}{kind.ending}: {text}", data))
    counts = {one: outcomes.count(one) for one in ("refused", "answered", "wrong")}
    row = {"kind": "page in the browser", "tried": count} | counts
    return row | {"seconds": max(seconds), "megabytes": max(largest), "seed": seed}, kept
