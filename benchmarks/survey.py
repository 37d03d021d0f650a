"""Speed and memory of ``rgz survey``, what it finds again among injected sources, and the search in a large survey.

Half of the cut-outs are real FIRST fields. In the other half simulated sources, a third of them points, are injected
into corners of such fields where nothing reaches five times the rms; without the archive, into Gaussian noise. There
are a thousand images, which several sources share. The whole command is timed, once with all sources, and with a tenth
of them on all cores and on one, and with sources in a mosaic that has the pixels of LoTSS. Memory is that of the
largest process, and bytes are those of a source that shares its image with no other.

The graph of the search is built from codes between those of similar galaxies, with the changes that other observations
make, once from all codes and once from a tenth of them.

    python benchmarks/survey.py --sources 100000 --codes 1000000
"""

import argparse
import io
import os
import resource
import subprocess
import sys
import tempfile
import time
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from astropy.io import fits
from astropy.table import Table
from scipy import ndimage
from search import seconds

from rgz.app.survey import PAGES
from rgz.data import archives, datasets, detect, fetch
from rgz.features import codes as codefile
from rgz.progress import progress
from rgz.tasks import search, surveys
from rgz.transforms import fields
from studies import results, simulate

IMAGES, QUIET = 1000, 20  # different cut-outs at most, and different fields for injected sources
ROWS = 2000  # of a partition at most
SIDE, APART, FINE = 32, 160, 1.5  # of the mosaic: sources along a side, pixels between them, and arcsec of a pixel
SNR = 5.0, 10.0, 20.0, 50.0, 100.0  # peak over rms, edges of the bins of the injected sources


def skies(rng: np.random.Generator) -> tuple[list[np.ndarray], list[bytes]]:
    """Fields without a source (150, 150), rms 1, and the content of files of FIRST fields, if they are at hand."""
    if fetch.locate(datasets.FITS_FIELDS) is None:
        return [rng.normal(size=(150, 150)) for _ in range(QUIET)], []
    files = [data for _, data in islice(archives.members(fetch.fetch(datasets.FITS_FIELDS)), IMAGES // 2)]
    found: list[np.ndarray] = []
    for data in files:
        corner = fields.fill(archives.read_plane(data)[0][:150, :150])
        median, rms = fields.noise(corner)
        if np.abs(corner - median).max() < 5 * rms:
            found.append((corner - median) / rms)
        if len(found) == QUIET:
            break
    return found, files


def injected(number: int) -> tuple[str, np.ndarray]:
    """What a simulated source is, and its image without noise (150, 150), peak 1."""
    kind = ("FRI", "FRII", "point")[number % 3]
    if kind != "point":
        return kind, simulate.source(kind, np.random.default_rng(number), snr=1e6) / 1e6
    y, x = simulate.PIXEL / simulate.BEAM * (np.mgrid[:150, :150] - 74.5)
    return kind, np.exp(-4 * np.log(2) * (x**2 + y**2))


def mosaic(folder: Path, count: int) -> Table:
    """Write a mosaic with simulated sources on a grid; the catalogue of ``count`` of them, the same ones again."""
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=2 * (SIDE * APART,)), 1.7)  # a beam of 6″
    noise /= noise.std()
    places = APART * np.array(np.divmod(np.arange(SIDE**2), SIDE)).T
    for number, (y, x) in enumerate(places):
        noise[y : y + 150, x : x + 150] += 30 * injected(number)[1]
    wcs = detect.north_up(noise.shape, FINE, 180.0, 45.0)
    fits.PrimaryHDU(noise.astype(np.float32), wcs.to_header()).writeto(folder / "mosaic.fits")
    sky = wcs.pixel_to_world(*(places[np.arange(count) % len(places)].T[::-1] + 74.5)).icrs
    return Table({"id": np.arange(count), "ra": sky.ra.deg, "dec": sky.dec.deg})


def cutouts(folder: Path, count: int) -> Table:
    """Write cut-outs into a folder; the catalogue of ``count`` sources, of which some share an image."""
    rng, rows = np.random.default_rng(0), []
    quiet, files = skies(rng)
    for number in progress(range(min(count, IMAGES)), "making cut-outs"):
        path, kind, snr = folder / f"{number}.fits", "", 0.0
        if number % 2 and files:
            path.write_bytes(files[number // 2 % len(files)])
            pixels, wcs, *_ = archives.read_plane(path)
            sky = wcs.pixel_to_world(*(np.array(pixels.shape[::-1]) - 1) / 2).icrs
            ra, dec = sky.ra.deg, sky.dec.deg
        else:
            snr = float(np.exp(rng.uniform(*np.log([SNR[0], SNR[-1]]))))
            ra, dec = rng.uniform(0, 360), np.degrees(np.arcsin(rng.uniform(-1, 1)))
            kind, source = injected(number // 2)
            pixels = np.rot90(quiet[number % len(quiet)], rng.integers(4)) + snr * source
            header = detect.north_up(pixels.shape, simulate.PIXEL, ra, dec).to_header()
            fits.PrimaryHDU(pixels.astype(np.float32), header).writeto(path)
        rows.append((ra, dec, path.name, kind, snr))
    again = [(n, *rows[n % len(rows)]) for n in range(count)]
    found = [(f"{n}-{kind}-{snr:.2f}", ra, dec, file) for n, ra, dec, file, kind, snr in again]
    return Table(rows=found, names=("id", "ra", "dec", "file"))


def survey(folder: Path, sources: Table, cores: int, images: str = "cutouts") -> dict[str, float]:
    """Seconds of ``rgz survey`` and its processor seconds, sources a second, and megabytes of its largest process."""
    catalogue, out = folder / "sources.csv", folder / f"{images}-{len(sources)}-{cores}"
    sources.write(catalogue, overwrite=True)
    words = [sys.executable, "-m", "rgz", "survey", catalogue, "--images", folder / images, "--out", out]
    words += ["--rows", str(min(ROWS, max(20, len(sources) // 10)))]
    single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    begun = time.perf_counter()
    limit = None if cores == os.cpu_count() else lambda: os.sched_setaffinity(0, range(cores))
    running = subprocess.Popen(list(map(str, words)), env=os.environ | single, preexec_fn=limit)
    _, status, used = os.wait4(running.pid, 0)
    if status:
        sys.exit("rgz survey failed")
    passed = time.perf_counter() - begun
    table = pq.read_table(out / "dataset")
    once = np.unique(table["ra"], return_index=True)[1]  # equal rows would be compressed
    pq.write_table(table.take(once), written := io.BytesIO(), **PAGES)
    return {
        "seconds": passed,
        "processor seconds a source": (used.ru_utime + used.ru_stime) / len(sources),
        "sources a second": len(sources) / passed,
        "megabytes": used.ru_maxrss / 1e3,
        "bytes a source": written.tell() / len(once),
    }


def found_again(out: Path) -> dict[str, float]:
    """Shares of the injected sources that are coded and classified, by S/N; of equal images, one counts."""
    table = pq.read_table(out / "dataset", columns=["id", "status", "class"]).to_pandas()
    number, kind, snr = (table["id"].str.split("-").str[part] for part in range(3))
    measured = {}
    for low, high in pairwise(SNR):
        inside = (number.astype(int) < IMAGES) & snr.astype(float).between(low, high)
        part, point = table[inside & kind.isin(["FRI", "FRII"])], table[inside & (kind == "point")]
        coded = part["status"] != "refused"
        classed, called = (one["class"].isin(["FRI", "FRII"]) for one in (part, point))
        right = part["class"] == kind[part.index]
        found = {"injected": len(part), "coded": coded.mean(), "FRI or FRII": classed.mean()}
        found |= {"right class": right[classed].mean(), "points": len(point), "points as FRI or FRII": called.mean()}
        measured |= {f"{name}, S/N {low:g} to {high:g}": float(value) for name, value in found.items()}
    return measured


def graph(folder: Path, count: int) -> dict[str, float]:
    """Seconds to build the graph, its size, and recall and milliseconds of a query."""
    table, codes, space = search.for_search()
    near = search.build(codes, table, space).neighbours(codes, 21)[0]
    changes = [(codefile.read_observed(None, n) - codefile.read_codes(None, n)[1][:, None]) for n in datasets.SAMPLES]
    moved = np.concatenate([one.reshape(-1, codes.shape[1]) for one in changes])
    moved, half = moved[np.isfinite(moved).all(1)], space.about_centroid
    rng = np.random.default_rng(0)

    def draw(number: int):
        row = rng.integers(0, len(codes), number)
        other = codes[near[row, rng.integers(1, 21, number)]]
        made = (
            codes[row]
            + rng.random((number, 1), np.float32) * (other - codes[row])
            + moved[rng.integers(0, len(moved), number)]
        )
        return half.transform(made[:, -len(half.centre) :])

    vectors = np.concatenate([draw(min(50_000, count - start)) for start in range(0, count, 50_000)])
    queries, kept = draw(200), []
    (folder / surveys.DONE).touch()
    parts = (vectors[start : start + 10_000] for start in range(0, count, 10_000))
    used = resource.getrusage(resource.RUSAGE_SELF)
    passed = seconds(lambda: kept.append(surveys._graph(parts, folder, count)))
    after = resource.getrusage(resource.RUSAGE_SELF)
    exact = search.SearchIndex(vectors, Table({"name": np.arange(count)}), half).nearest(queries, 10)[0]
    found = []
    asking = seconds(lambda: found.extend(kept[0].search(one, 10).keys for one in queries))
    hits = [len(set(one) & set(other)) / 10 for one, other in zip(exact, found, strict=True)]
    return {
        "seconds to build": passed,
        "processor seconds to build": after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime,
        "bytes a code": (folder / "search.usearch").stat().st_size / count,
        "recall@10": float(np.mean(hits)),
        "milliseconds a query": 1e3 * asking / len(queries),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=int, default=100_000, help="sources of the largest survey")
    parser.add_argument("--codes", type=int, default=1_000_000, help="codes of the graph")
    asked = parser.parse_args()
    cores, rows = os.cpu_count() or 1, []

    def keep(what: str, n: int, used: int, measured: dict[str, float]) -> None:
        rows.extend({"what": what, "n": n, "cores": used, "metric": m, "value": v} for m, v in measured.items())
        print(what, n, used, {m: round(v, 3) for m, v in measured.items()}, flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for images in ("cutouts", "mosaics"):
            (folder / images).mkdir()
        sources = cutouts(folder / "cutouts", asked.sources)
        few = sources[: max(20, asked.sources // 10)]
        for part, used in ((sources, cores), (few, cores), (few, 1)):
            keep("survey", len(part), used, survey(folder, part, used))
        keep("injected", len(sources), cores, found_again(folder / f"cutouts-{len(sources)}-{cores}"))
        wide = mosaic(folder / "mosaics", len(few))
        keep("mosaic", len(wide), cores, survey(folder, wide, cores, "mosaics"))
        for count in (asked.codes, asked.codes // 10):
            keep("graph", count, cores, graph(folder, count))
    results.write("survey", rows)


if __name__ == "__main__":
    main()
