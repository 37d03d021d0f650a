"""Shared fixtures: no network, a simulated sample, a tiny model, and the survey images if they are available."""

import http.server
import shutil
import socket
import threading
from contextlib import contextmanager
from functools import cache, partial

import matplotlib
import numpy as np
import pytest
import torch
from astropy.io import fits
from astropy.wcs import WCS

from rgz.data import datasets, fetch
from rgz.models import vdvae
from rgz.transforms import prepare
from studies import simulate

matplotlib.use("Agg")
torch.set_num_threads(1)  # two are slow if another process is running


def pytest_collection_modifyitems(items):
    """Mark tests that need survey images, so that ``-m "not data"`` skips them, and begin with files of slow tests."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)  # or one worker would end long after the others
    for item in items:
        if "survey" in item.fixturenames:
            item.add_marker("data")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(host, *_args, **_kwargs):
        raise socket.gaierror(-2, f"tests have no network, {host} was asked for")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="session")
def simulated():
    return simulate.sources(24, seed=1)


@pytest.fixture(scope="session")
def pixels(simulated):
    """Prepared simulated images, (24, 1, 32, 32) uint8."""
    return torch.from_numpy(prepare.prepare(simulated.images, simulated.pixel, prepare.Recipe(32))[0][:, None])


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return vdvae.VDVAE(vdvae.PRESETS["tiny"])


@pytest.fixture(scope="session")
def survey():
    """Read a survey sample, or skip the test if its archive is not on this machine."""

    @cache  # a quarter of a gigabyte; a skip is not kept
    def load(name):
        if fetch.locate(datasets.SAMPLES[name][0]) is None:
            pytest.skip(f"the images of {name} are not here: set RGZ_DATA_MIRROR or run rgz data fetch")
        return datasets.load_dataset(name)

    return load


@pytest.fixture
def fits_galaxy(tmp_path):
    """A simulated FRII of 9′ as a FITS file with a WCS, ``galaxy.fits`` in an otherwise empty folder."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ("RA---TAN", "DEC--TAN"), (150.0, 20.0), (150.5, 150.5)
    wcs.wcs.cdelt = -1.8 / 3600, 1.8 / 3600
    source = simulate.source("FRII", np.random.default_rng(4), size=300, snr=80)
    path = tmp_path / "images" / "galaxy.fits"
    path.parent.mkdir()
    fits.PrimaryHDU(source.astype(np.float32), wcs.to_header()).writeto(path)
    return path


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A plain static server."""

    def log_message(self, *_):
        """Nothing."""


@pytest.fixture(scope="session")
def served():
    """Serve a folder: ``with served(folder) as address``."""

    @contextmanager
    def serve(folder):
        handler = partial(Quiet, directory=str(folder))
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}/"
            server.shutdown()

    return serve


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium; without it the test is skipped."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line in this process: ``run("data", "fetch")`` gives exit status, stdout, stderr."""
    from rgz.app import cli

    def command(*arguments):
        monkeypatch.setattr("sys.argv", ["rgz", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return command
