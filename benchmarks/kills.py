"""Commands that are killed, or stopped with Ctrl-C, at random moments; the next run must go on as if nothing had been.

The commands run in a small copy of the project, on simulated archives that a server on this machine hands out slowly.
Each is killed four times, half of the times at a random moment and half of them just when a file changes, and then
runs to its end. A file is *torn* if it is at its final path with content that no complete run writes; a run *differs*
if its files are not those of an undisturbed run. Ctrl-C is *untidy* unless it ends in one line, status 130 and no
temporary files. Counts are written to ``results/kills.csv``.

    python benchmarks/kills.py --kills 8 --interrupts 3
"""

import argparse
import csv
import gzip
import hashlib
import io
import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import h5py
import numpy as np
import psutil
import torch
from astropy.io import fits
from tqdm import tqdm

from rgz.data import detect
from studies import results, simulate

HOUSE = Path(__file__).resolve().parents[1]
COUNT = 16  # galaxies of a sample
TOGETHER = 4  # kills of a run before it may end
PARTS = "rgz", "studies", "results", "dodo.py"
BEGUN = ".partial", ".unfinished"  # endings of temporary files


class Command(NamedTuple):
    """Arguments of Python, the files that it makes, and those that may differ from run to run."""

    words: tuple[str, ...]
    makes: tuple[str, ...]
    beside: tuple[str, ...] = ()


def rgz(words: str, *makes: str, beside: tuple[str, ...] = ()) -> Command:
    """A command of rgz."""
    return Command(("-m", "rgz", *words.split()), makes, beside)


RECORD = "results/steps.json"
COMMANDS = {
    "data fetch": rgz("data fetch", "cache/*"),
    "training set": rgz("study training-set", "runs/train.h5", RECORD),
    "train": rgz(
        "train --preset tiny --steps 110 --batch 4 --out artifacts",
        "artifacts/vdvae.safetensors",
        beside=("artifacts/log.csv", "artifacts/checkpoint.pt"),
    ),
    "encode": rgz("encode", "artifacts/codes.h5", "artifacts/classifier.safetensors"),
    "study": rgz("study cnn", "results/cnn.csv", RECORD),
    "look": rgz("look images --output found.jsonl", "found.jsonl"),
    "survey": rgz(
        "survey sources.csv --images images --out survey --rows 5",
        "survey/*",
        "survey/dataset/**/*",
    ),
}


def archives(folder: Path, address: str) -> str:
    """Simulated archives of few galaxies, and their registry as text."""
    folder.mkdir()
    sources = simulate.sources(4 * COUNT, seed=5)
    fields = [255 * image / image.max() for image in sources.images.astype(float)]
    place = [(100 + 1.03 * number, 30.5) for number in range(4 * COUNT)]  # some are for validation
    for name, start in {"MiraBest_F_batches": 0, "NVSS_PNG_dataset": COUNT, "FIRST_PNG_dataset": 2 * COUNT}.items():
        _batches(folder / f"{name}.tar.gz", fields[start:][:COUNT], place[start:][:COUNT])
    with io.BytesIO() as stream, zipfile.ZipFile(folder / "galaxy_data_h5.zip", "w") as packed:
        with h5py.File(stream, "w") as file:
            for number, (image, (ra, dec)) in enumerate(zip(fields[-COUNT:], place[-COUNT:], strict=True)):
                group = file.create_group(f"data_{number}")
                group["Img"] = np.pad(image, 75).astype(np.uint8)
                group["Img"].attrs.update(RA=ra, DEC=dec, Source="simulated")
                group["Label_literature"], group["Split_literature"] = number % 4, ("train", "test")[number % 6 == 0]
        packed.writestr("galaxy_data_h5.h5", stream.getvalue())
    with tarfile.open(folder / "MiraBest_FIRST_FITS.tar", "w") as tar:
        for image, (ra, dec) in zip(fields[:COUNT], place[:COUNT], strict=True):
            _added(tar, f"{_stem(ra, dec, 0)}.fits", _field(np.pad(image, 75), ra, dec))
    zoo = "".join(f"RGZ{n},{ra},{dec},60\n" for n, (ra, dec) in enumerate(place))
    known = "".join(
        f"{sample},{_stem(ra, dec, number % 2)},{ra},{dec}\n"
        for sample, start in {"frdeep-nvss": COUNT, "frdeep-first": 2 * COUNT}.items()
        for number, (ra, dec) in enumerate(place[start:][:COUNT])
    )
    (folder / "rgz_dr1_sources.csv.gz").write_bytes(gzip.compress(b"rgz_name,ra,dec,las_arcsec\n" + zoo.encode()))
    (folder / "frdeep_positions.csv.gz").write_bytes(gzip.compress(b"sample,name,ra,dec\n" + known.encode()))
    rows = [
        [path.name, hashlib.sha256(path.read_bytes()).hexdigest(), address, "", ""] for path in sorted(folder.iterdir())
    ]
    text = io.StringIO()
    csv.writer(text).writerows([["name", "sha256", "doi", "about", "source"], *rows])
    with open(HOUSE / "rgz" / "data" / "archives.csv", encoding="utf-8", newline="") as stream:
        others = [row | {"doi": ""} for row in csv.DictReader(stream) if not (folder / row["name"]).exists()]
    csv.writer(text).writerows(row.values() for row in others)
    return text.getvalue()


def _stem(ra: float, dec: float, kind: int) -> str:
    return f"{kind + 1}00_{ra:07.3f}{dec:+08.3f}_0.1000_0060.00"


def _batches(path: Path, images: list[np.ndarray], place: list[tuple[float, float]]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, rows in {"data_batch_1": slice(0, -4), "test_batch": slice(-4, None)}.items():
            kinds = [number % 2 for number in range(len(images))][rows]
            names = [f"{_stem(*one, kind)}.png" for one, kind in zip(place[rows], kinds, strict=True)]
            data = [image.astype(np.uint8) for image in images[rows]]
            _added(tar, f"b/{name}", pickle.dumps({"labels": kinds, "filenames": names, "data": data}))


def _added(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


def _field(image: np.ndarray, ra: float, dec: float) -> bytes:
    rng, stream = np.random.default_rng(round(1000 * ra)), io.BytesIO()
    pixels = (image / 255 + rng.normal(0, 0.01, image.shape)).astype(np.float32)
    fits.PrimaryHDU(pixels, detect.north_up(image.shape, 1.8, ra, dec).to_header()).writeto(stream)
    return stream.getvalue()


class Slowly(SimpleHTTPRequestHandler):
    """Hands out files at a megabyte a second."""

    def copyfile(self, source, outputfile):
        """A file, in pieces."""
        with suppress(ConnectionError):  # of a client that was killed
            while piece := source.read(1 << 15):
                outputfile.write(piece)
                time.sleep(0.03)

    def log_message(self, *_):
        """Nothing."""


def world(folder: Path) -> Path:
    """A copy of the project in a folder, with a registry of simulated archives and a server for them."""
    clone = folder / "clone"
    for name in PARTS:
        source, ignored = HOUSE / name, shutil.ignore_patterns("__pycache__", "*.html")
        shutil.copytree(source, clone / name, ignore=ignored) if source.is_dir() else shutil.copy(source, clone)
    handler = partial(Slowly, directory=folder / "archives")
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    registry = archives(folder / "archives", f"http://127.0.0.1:{server.server_port}")
    (clone / "rgz" / "data" / "archives.csv").write_text(registry)
    for name, known, new in (
        ("rgz/data/fetch.py", 'f"doi:{self.doi}/', 'f"{self.doi}/'),  # an address, in this registry
        ("studies/cnn.py", "epochs: int = 60", "epochs: int = 1"),
    ):
        code = clone / name
        code.write_text(code.read_text().replace(known, new))
    (clone / "images").mkdir()
    lines = ["id,ra,dec,file"]
    for number, image in enumerate(simulate.sources(20, seed=6).images.astype(float)):
        (clone / "images" / f"{number}.fits").write_bytes(_field(255 * image / image.max(), 10 + number, 2.0))
        lines.append(f"s{number},{10 + number},2.0,{number}.fits")
    (clone / "sources.csv").write_text("\n".join(lines))
    return clone


def environment(clone: Path, name: str) -> dict[str, str]:
    """Variables of a command."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RGZ_")}
    given = {"PYTHONPATH": str(clone), "RGZ_CACHE": str(clone / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    given |= {"RGZ_ARTIFACTS": str(HOUSE / "artifacts")} if name in ("look", "survey") else {}
    return kept | given | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def started(clone: Path, name: str) -> subprocess.Popen:
    """A command in a session of its own, as at a terminal."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells ignore it in the background, children inherit it
    return subprocess.Popen(
        [sys.executable, *COMMANDS[name].words], cwd=clone, env=environment(clone, name), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def made(clone: Path, patterns: tuple[str, ...]) -> list[Path]:
    """The files that are there, temporary ones left out."""
    found = [path for pattern in patterns for path in clone.glob(pattern) if path.is_file()]
    return [path for path in found if path.suffix not in BEGUN and not path.name.startswith("tmp")]


def everything(clone: Path) -> set[Path]:
    """All files, without caches of Python."""
    return {path for path in clone.rglob("*") if path.is_file() and "__pycache__" not in path.parts}


def finished(clone: Path, name: str) -> float:
    """Run a command to its end; returns the seconds that it took."""
    begun, process = time.monotonic(), started(clone, name)
    _, told = process.communicate()
    if process.returncode:
        raise SystemExit(f"{name} ended with status {process.returncode}: {told[-2000:]}")
    return time.monotonic() - begun


def torn(clone: Path, name: str, allowed: dict[Path, list[bytes]]) -> list[str]:
    """Files at their final paths that are incomplete."""
    command = COMMANDS[name]
    found = [
        path.name
        for path in made(clone, command.makes)
        if not any(same(path, one) for one in allowed.get(path, ())) and not part(path, allowed.get(path, ()))
    ]
    for path in (path for pattern in command.beside for path in clone.glob(pattern)):
        try:
            if path.suffix == ".pt":
                torch.load(path, weights_only=True)
            elif path.read_bytes()[-1:] not in (b"", b"\n"):
                raise ValueError("its last line is incomplete")
        except Exception:
            found.append(path.name)
    return found


def stopped(clone: Path, name: str, seconds: float, how: signal.Signals, rng: random.Random) -> tuple[int, str]:
    """Status and stderr of a command that gets a signal, at a random moment or when a file changes."""
    process, moment, changes = started(clone, name), time.monotonic() + rng.uniform(0.3, seconds), rng.randint(1, 2)
    before = everything(clone) if rng.random() < 0.5 else None
    while process.poll() is None and (changes if before else time.monotonic() < moment):
        time.sleep(0.002)
        if before and (now := everything(clone)) != before:
            before, changes = now, changes - 1
    if process.poll() is None and how is signal.SIGKILL:
        whole = psutil.Process(process.pid)
        for one in (*whole.children(recursive=True), whole):
            one.kill()
    elif process.poll() is None:
        os.killpg(process.pid, how)
    _, told = process.communicate()
    return process.returncode, told


def same(path: Path, content: bytes) -> bool:
    """Whether a file is there and the same; numbers of JSON lines vary a little with the galaxies of a batch."""
    if not path.exists():
        return False
    if path.suffix != ".jsonl":
        return path.read_bytes() == content
    found, known = (re.split(rb"(-?\d+\.\d+)", one) for one in (path.read_bytes(), content))
    return found[::2] == known[::2] and np.allclose([*map(float, found[1::2])], [*map(float, known[1::2])], 0, 1e-3)


def part(path: Path, contents: Iterable[bytes]) -> bool:
    """Whether a table consists of whole lines of earlier and later ones, as one does that is completed in steps."""
    known = {line for content in contents for line in content.splitlines(keepends=True)}
    return path.suffix == ".csv" and set(path.read_bytes().splitlines(keepends=True)) <= known


def remove(clone: Path, name: str, first: dict[Path, bytes]) -> None:
    """Put the files that a command makes back to what they were before it ran for the first time."""
    command = COMMANDS[name]
    for path in (path for pattern in command.makes + command.beside for path in clone.glob(pattern)):
        if path.is_file():
            path.unlink()
    for path, content in first.items():
        path.write_bytes(content)


def tried(clone: Path, name: str, kills: int, interrupts: int, rng: random.Random) -> dict[str, object]:
    """Counts of one command."""
    command = COMMANDS[name]
    first = {path: path.read_bytes() for path in made(clone, command.makes)}
    seconds = finished(clone, name)
    right = {path: path.read_bytes() for path in made(clone, command.makes)}
    allowed = {path: [content, first.get(path, content)] for path, content in right.items()}
    whole, counts = everything(clone), dict.fromkeys(("kills", "torn", "differ", "interrupts", "untidy"), 0)
    bar = tqdm(total=kills + interrupts, desc=name, disable=not sys.stderr.isatty())
    while counts["interrupts"] < interrupts:
        remove(clone, name, first)
        status, told = stopped(clone, name, seconds, signal.SIGINT, rng)
        left = [path.name for path in everything(clone) - whole if path.suffix != ".unfinished"]
        for path in everything(clone) - whole:
            path.unlink()
        if status:
            counts["interrupts"] += 1
            bar.update()
            if status != 130 or told.splitlines()[-1:] != ["rgz: stopped"] or "Traceback" in told or left:
                counts["untidy"] += 1
                print(f"{name}: untidy, status {status}, left {left}: {told[-600:]}", flush=True)
    while counts["kills"] < kills:
        if counts["kills"] % TOGETHER == 0:
            remove(clone, name, first)
        if stopped(clone, name, seconds, signal.SIGKILL, rng)[0] != -signal.SIGKILL:
            remove(clone, name, first)  # it had ended before
            continue
        counts["kills"] += 1
        bar.update()
        if broken := torn(clone, name, allowed):
            counts["torn"] += 1
            print(f"{name}: torn {broken}", flush=True)
        if counts["kills"] % TOGETHER == 0 or counts["kills"] == kills:
            finished(clone, name)
            if not all(same(path, content) for path, content in right.items()):
                counts["differ"] += 1
                print(f"{name}: differs", flush=True)
            for path in everything(clone) - whole:  # temporary files, which a later run removes after an hour
                path.unlink()
    return {"command": name} | counts | {"seconds": seconds}


def main() -> None:
    """Kill and stop all commands, and write the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=8, help="times that each command is killed")
    parser.add_argument("--interrupts", type=int, default=3, help="times that each command is stopped with Ctrl-C")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    parser.add_argument("--only", nargs="*", default=[*COMMANDS], choices=COMMANDS, help="commands, if not all")
    chosen = parser.parse_args()
    bad, last = 0, max(map([*COMMANDS].index, chosen.only))
    with tempfile.TemporaryDirectory() as folder:
        clone = world(Path(folder))
        for name in [*COMMANDS][: last + 1]:
            if name not in chosen.only:
                finished(clone, name)
                continue
            row = tried(clone, name, chosen.kills, chosen.interrupts, random.Random(f"{name} {chosen.seed}"))
            print(row, flush=True)
            write(row)
            bad += row["torn"] + row["differ"] + row["untidy"]
    sys.exit(bool(bad))


def write(row: dict[str, object]) -> None:
    """Put the counts of a command in the place of earlier ones."""
    known = results.read("kills").to_dict("records") if (results.FOLDER / "kills.csv").exists() else []
    rows = {one["command"]: one for one in (*known, row)}
    results.write("kills", [rows[name] for name in COMMANDS if name in rows])


if __name__ == "__main__":
    main()
