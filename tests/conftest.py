"""What the tests share: no network, a simulated sample, a tiny model, and the survey images where they are at hand."""

import socket
from contextlib import nullcontext

import matplotlib
import numpy as np
import pytest
import torch

from rgz.data import datasets, fetch, simulate
from rgz.models import vdvae
from rgz.transforms import prepare

matplotlib.use("Agg")
torch.set_num_threads(1)  # two crawl where another process is at work


def pytest_collection_modifyitems(items):
    """Mark what asks for survey images, so that ``-m "not data"`` leaves it out."""
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
    return torch.from_numpy(
        np.stack([prepare.prepare(i, simulated.pixel, prepare.Recipe()) for i in simulated.images])[:, None]
    )


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return vdvae.VDVAE(vdvae.PRESETS["tiny"])


@pytest.fixture(scope="session")
def survey():
    """Read a survey sample, or skip where its archive is not on this machine."""

    def load(name):
        if fetch.locate(datasets.SAMPLES[name][0]) is None:
            pytest.skip(f"the images of {name} are not here: set RGZ_DATA_MIRROR or run rgz data fetch")
        return datasets.load_dataset(name)

    return load


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line in this process: ``run("data", "fetch")`` gives exit status, stdout, stderr."""
    from rgz.app import cli
    from studies import classification

    monkeypatch.setattr(
        classification, "parallel_config", lambda **_: nullcontext()
    )  # in this process, where a test can look

    def command(*arguments):
        monkeypatch.setattr("sys.argv", ["rgz", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return command
