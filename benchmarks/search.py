"""Speed of the search, compared with its upper limit, and run time of ``rgz look``.

The exact search is one product of a matrix with a vector, so no query can be faster than that product alone; both are
timed alternately on the same million codes, and so are a thousand queries at once and the exact search of faiss, if it
is installed. Processor time is compared, which a busy machine changes less. ``rgz look`` has to import torch first, so
its time is compared with that of the import; each run is a process of its own.

    python benchmarks/search.py --codes 1000000
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table

from rgz.features import metric
from rgz.tasks import search as searching
from studies import simulate

TURNS = 15
RUNS = 9


def seconds(what) -> float:
    """Seconds that a call takes."""
    begun = time.perf_counter()
    what()
    return time.perf_counter() - begun


def processor(what) -> float:
    """Seconds of all processor cores that a call takes."""
    begun = time.process_time()
    what()
    return time.process_time() - begun


def search(count: int, dimensions: int):
    """Print seconds of a query among ``count`` codes and of the bare product, and the median of their ratios."""
    rng = np.random.default_rng(0)
    codes = rng.standard_normal((count, dimensions), dtype=np.float32)
    names = Table({"name": np.arange(count).astype(str), "sample": np.full(count, "made")})
    for cosine in (True, False):
        index = searching.build(codes, names, metric.plain(codes[:1000], cosine))
        own, bare, ratio = _turns(index, index.vectors[:1].copy())
        if cosine:
            _many(index)
        speed = index.vectors.nbytes / bare / 1e9
        print(
            f"ten nearest of {count:,} × {dimensions}, {'cosine' if cosine else 'Euclidean'}: {1e3 * own:.1f} ms, "
            f"bare product {1e3 * bare:.1f} ms ({speed:.1f} GB/s), {ratio:.2f} times as long"
        )


def _turns(index: searching.SearchIndex, query: np.ndarray) -> tuple[float, float, float]:
    """Median seconds of the search and of the product, and the median of their ratios."""
    index.nearest(query)
    pairs = [
        (processor(lambda: index.nearest(query)), processor(lambda: index.vectors @ query[0])) for _ in range(TURNS)
    ]
    return *np.median(pairs, axis=0), float(np.median([own / bare for own, bare in pairs]))


def _many(index: searching.SearchIndex):
    """Print processor seconds of a thousand queries at once, and those of faiss."""
    try:
        import faiss
    except ImportError:
        return
    queries, flat = index.vectors[:1000].copy(), faiss.IndexFlatIP(index.vectors.shape[1])
    flat.add(index.vectors)
    pairs = [(processor(lambda: index.nearest(queries)), processor(lambda: flat.search(queries, 10))) for _ in range(3)]
    own, other = np.median(pairs, axis=0)
    ratio = np.median([one / two for one, two in pairs])
    print(f"a thousand queries: {own:.1f} processor seconds, faiss {other:.1f}, {ratio:.2f} times as long")


def look():
    """Print seconds of ``rgz look`` on a FITS image, and of importing torch, each in fresh processes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "galaxy.fits"
        header = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 20.0}
        header |= {"CRPIX1": 150.5, "CRPIX2": 150.5, "CDELT1": -0.0005, "CDELT2": 0.0005}
        pixels = simulate.source("FRII", np.random.default_rng(0), size=300).astype(np.float32)
        fits.PrimaryHDU(pixels, fits.Header(header)).writeto(path)
        commands = ([sys.executable, "-m", "rgz", "look", str(path)], [sys.executable, "-c", "import torch"])
        runs = [
            [seconds(lambda one=one: subprocess.run(one, check=True, capture_output=True)) for one in commands]
            for _ in range(RUNS)
        ]
    own, torch = np.median(runs, axis=0)
    print(f"rgz look: {own:.2f} s; import torch: {torch:.2f} s, twice that and a second: {2 * torch + 1:.2f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codes", type=int, default=1_000_000, help="codes to search")
    parser.add_argument("--dimensions", type=int, default=256, help="numbers of each code")
    asked = parser.parse_args()
    search(asked.codes, asked.dimensions)
    look()
