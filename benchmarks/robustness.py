"""What the readers do with damaged and hostile files: answer, refuse in one line, or go wrong.

Each kind of file starts from a small valid one. Bits are flipped, pieces moved or cut off, numbers, header cards and
JSON values replaced; mostly before the file is packed, so that its check sums hold. A reader *goes wrong* if it raises
anything but ``BadInput``, prints a warning, crashes, or takes more than 10 s or 1 GB. Such files are kept in
``runs/robustness``, and the counts are written to ``results/robustness.csv``. A tenth as many files are dropped into
the page for a galaxy of one's own, in headless Chromium.

    python benchmarks/robustness.py --files 2000 --seed 0
"""

import argparse
import json
import os
import re
import resource
import sys
import time
import warnings
from multiprocessing import get_context, set_forkserver_preload
from pathlib import Path

import numpy as np
import robustness_page
from robustness_files import kinds
from tqdm import tqdm

from rgz.errors import BadInput
from studies import results

SECONDS, MEMORY = 10.0, 1000.0  # at most, for one file; MB
KEPT = Path("runs/robustness")
WORDS = b"nan", b"inf", b"-1", b"0", b"1e300", b"-1e300", b"1e-10", b"1e99999", b"1000000000", b"x", b"\xff\xfe", b""
VALUES = None, "x", -1, 0, 1e9, 10**9, 10**30, 1e-10, 0.5, float("nan"), float("inf"), [], {}, True, [[]], "\x1b[2J"
KEYS = (
    "SIMPLE BITPIX NAXIS NAXIS1 NAXIS2 NAXIS3 EXTEND PCOUNT GCOUNT TFIELDS CTYPE1 CTYPE2 CTYPE3 CRVAL1 CRVAL2 CRPIX1 "
    "CRPIX2 CDELT1 CDELT2 CROTA2 CD1_1 CD1_2 PC1_1 PC2_1 CUNIT1 RADESYS EQUINOX LONPOLE LATPOLE WCSAXES PV2_1 A_ORDER "
    "A_2_0 BSCALE BZERO BLANK BMAJ BMIN BUNIT DATE-OBS MJD-OBS SPECSYS RESTFRQ INHERIT EXTNAME CONTINUE COMMENT ZIMAGE "
    "ZCMPTYPE ZBITPIX ZNAXIS ZNAXIS1 ZTILE1 ZTILE2 ZNAME1 ZVAL1 ZQUANTIZ ZBLANK TFORM1 TTYPE1 END"
)
CARDS = (
    "NaN INF -1 0 1 2 3 7 16 -32 64 999 1e300 -1e300 1e-10 1e-300 1E99999 1000000000 100000000000000 T F 'UNKNOWN' "
    "'GALACTIC' 'RA---ZZZ' 'RA---SIN' 'GLON-CAR' 'FREQ' 'HCOMPRESS_1' 'PLIO_1' 'GZIP_2' 'FOO' 'm' 'open \x1b[2J \xff"
)


def flipped(data: bytearray, rng) -> None:
    """Change bits, half of the time near the start, where headers are."""
    end = len(data) if rng.random() < 0.5 else min(len(data), 512)
    for place in rng.integers(0, end, rng.integers(1, 9)):
        data[place] ^= int(rng.integers(1, 256))


def moved(data: bytearray, rng) -> None:
    """Cut off the end, or put another piece in place of one, or between."""
    start, other = (int(one) for one in rng.integers(0, len(data), 2))
    length = int(2 ** rng.uniform(0, 12))
    if rng.random() < 0.4:
        del data[start:]
    else:
        data[start : start + length * int(rng.integers(2))] = bytes(data[other : other + length])


def numbers(data: bytearray, rng) -> None:
    """Replace numbers that are written in digits."""
    found = list(re.finditer(rb"-?\d[\d.]*(e[-+]?\d+)?", bytes(data[:50_000])))
    for one in sorted(rng.choice(len(found), min(len(found), int(rng.integers(1, 4))), replace=False))[::-1]:
        data[found[one].start() : found[one].end()] = WORDS[rng.integers(len(WORDS))]


def cards(data: bytearray, rng) -> None:
    """Replace cards of a FITS header, or blank ones by new ones."""
    ends = [one.start() for one in re.finditer(rb"END {77}", bytes(data)) if one.start() % 80 == 0]
    for _ in range(int(rng.integers(1, 4))):
        key, value = (words[rng.integers(len(words))] for words in (KEYS.split(), CARDS.split(" ")))
        places = [at for at in range(0, max(ends, default=2880), 80) if data[at : at + 8] == f"{key:<8}".encode()]
        places = places or [at for at in range(0, max(ends, default=2880), 80) if data[at : at + 8] == b"COMMENT "]
        if places:
            at = places[rng.integers(len(places))]
            data[at : at + 80] = f"{key:<8}= {value:>20}".encode("latin1")[:80].ljust(80)


def values(data: bytearray, rng) -> None:
    """Replace values of a JSON text, also of JSON within JSON."""
    data[:] = json.dumps(_changed(json.loads(bytes(data)), rng)).encode()


def _changed(value, rng):
    if isinstance(value, str) and value.startswith("{"):
        return json.dumps(_changed(json.loads(value), rng))
    if isinstance(value, dict | list) and value and rng.random() < 0.96:
        value, keys = value.copy(), [*value] if isinstance(value, dict) else range(len(value))
        key = keys[int(rng.integers(len(keys)))]
        value[key] = _changed(value[key], rng)
        return value
    return VALUES[rng.integers(len(VALUES))]


EDITS = {"cards": cards, "numbers": numbers, "values": values}


def mutated(kind, rng) -> bytes:
    """A file of this kind, damaged before or after it is packed."""
    inside = rng.random() < 0.75
    data = bytearray(kind.inner if inside else kind.pack(kind.inner))
    if inside and kind.edit and rng.random() < 0.7:
        EDITS[kind.edit](data, rng)
    else:
        (flipped, moved)[rng.integers(2)](data, rng)
    return kind.pack(bytes(data)) if inside else bytes(data)


def worker(pipe, name: str, folder: Path) -> None:
    """Read files, and tell of each what happened: outcome, message, seconds and MB."""
    printed = folder / "printed"
    with printed.open("wb", buffering=0) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    resource.setrlimit(resource.RLIMIT_DATA, (3 << 30, 3 << 30))
    read = kinds(folder)[name].read
    while path := pipe.recv():
        os.ftruncate(1, 0)
        Path("/proc/self/clear_refs").write_text("5")  # forgets the largest memory so far
        begun = time.perf_counter()
        with warnings.catch_warnings():
            for category in (UserWarning, RuntimeWarning, FutureWarning):
                warnings.simplefilter("always", category)
            outcome, message = _outcome(read, path)
        seconds = time.perf_counter() - begun
        memory = int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1000
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        if text := printed.read_bytes().strip(b"\0"):
            outcome, message = "wrong", f"it prints {text[-300:]!r}"
        elif outcome != "wrong" and (seconds > SECONDS or memory > MEMORY):
            outcome, message = "wrong", f"it takes {seconds:.1f} s and {memory:.0f} MB"
        pipe.send((outcome, message, seconds, memory))


def _outcome(read, path: Path) -> tuple[str, str]:
    try:
        read(path)
    except (BadInput, SystemExit) as error:
        line = " ".join(str(error).split())
        return ("refused" if 20 < len(line) < 600 and line.isprintable() else "wrong"), line
    except BaseException as error:
        return "wrong", f"{type(error).__name__}: {error}"[:300]
    return "answered", ""


def tried(name: str, count: int, seed: int, number: int, folder: Path) -> dict:
    """Counts of outcomes of mutated files of one kind, the longest time and the largest memory."""
    kind, process, context = kinds(folder)[name], None, get_context("forkserver")
    outcomes, seconds, memory = [], [0.0], [0.0]
    for draw in tqdm(range(count), desc=name, disable=not sys.stderr.isatty()):
        path = folder / f"{draw}{kind.ending}"
        path.write_bytes(mutated(kind, np.random.default_rng([seed, number, draw])) if draw else kind.pack(kind.inner))
        if process is None:
            pipe, other = context.Pipe()
            process = context.Process(target=worker, args=(other, name, folder), daemon=True)
            process.start()
            other.close()
            pipe.send(path)  # the first time, it imports what it needs
            pipe.poll(60) and pipe.recv()
        try:
            pipe.send(path)
            found = pipe.recv() if pipe.poll(2 * SECONDS) else ("wrong", "it does not end", 2 * SECONDS, 0.0)
        except (EOFError, OSError):
            found = "wrong", "it crashes", 0.0, 0.0
        if found[1] in ("it crashes", "it does not end"):
            process.kill()
            process = None
        for kept, one in zip((outcomes, seconds, memory), (found[0], *found[2:]), strict=True):
            kept.append(one)
        if found[0] == "wrong":
            KEPT.mkdir(parents=True, exist_ok=True)
            path.rename(KEPT / f"{name.replace(' ', '-')}-{seed}-{path.name}")
            print(f"{name} {draw}: {found[1]}", flush=True)
        path.unlink(missing_ok=True)
    if process:
        process.kill()
    counts = {one: outcomes.count(one) for one in ("refused", "answered", "wrong")}
    return {"kind": name, "tried": count} | counts | {"seconds": max(seconds), "megabytes": max(memory), "seed": seed}


def in_the_page(count: int, seed: int, folder: Path) -> dict:
    """Counts of outcomes of files that are dropped into the page of the book."""
    row, kept = robustness_page.tried(kinds(folder), mutated, count, seed, folder)
    for number, (told, data) in enumerate(kept):
        KEPT.mkdir(parents=True, exist_ok=True)
        (KEPT / f"page-{seed}-{number}").write_bytes(data)
        print(f"page {told}", flush=True)
    return row


def main() -> None:
    """Try all kinds and write the counts."""
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=2000, help="number of files, of all kinds together")
    parser.add_argument("--seed", type=int, default=0, help="of the random changes")
    parser.add_argument("--kind", help="only this kind of file; nothing is then written")
    chosen = parser.parse_args()
    set_forkserver_preload(["robustness_files"])  # imported once
    with tempfile.TemporaryDirectory() as folder:
        known = list(kinds(Path(folder)))
        names = [chosen.kind] if chosen.kind else known
        share = -(-chosen.files // len(names))
        rows = [tried(name, share, chosen.seed, known.index(name), Path(folder)) for name in names]
        if not chosen.kind:
            rows.append(in_the_page(chosen.files // 10, chosen.seed, Path(folder)))
    print(*rows, sep="\n")
    if not chosen.kind:
        results.write("robustness", rows)
    sys.exit(any(row["wrong"] for row in rows))


if __name__ == "__main__":
    main()
