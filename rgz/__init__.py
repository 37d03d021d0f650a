"""Radio galaxies in the latent space of a very deep variational autoencoder.

The names below are loaded when they are first used, so ``import rgz`` itself is fast::

    cutout = rgz.open_cutout("galaxy.fits")
    print(rgz.inspect(cutout))
"""

import os
from importlib import import_module

TYPE_CHECKING = False  # importing it from typing takes as long as Python itself takes to start
if TYPE_CHECKING:
    from typing import Any

    from rgz.data.cutout import Cutout, open_cutout
    from rgz.data.datasets import load_dataset
    from rgz.data.sample import Sample
    from rgz.features.embed import Encoder
    from rgz.models.flow import FlowEnsemble
    from rgz.tasks.generate import generate
    from rgz.tasks.inspect import Inspection, inspect
    from rgz.tasks.search import SearchIndex

__version__ = "0.15.0"
__all__ = [
    "Cutout",
    "Encoder",
    "FlowEnsemble",
    "Inspection",
    "Sample",
    "SearchIndex",
    "generate",
    "inspect",
    "load_dataset",
    "open_cutout",
]

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # torch's idle threads would otherwise slow down other processes

_MODULES = {
    "Cutout": "rgz.data.cutout",
    "Encoder": "rgz.features.embed",
    "FlowEnsemble": "rgz.models.flow",
    "Inspection": "rgz.tasks.inspect",
    "Sample": "rgz.data.sample",
    "SearchIndex": "rgz.tasks.search",
    "generate": "rgz.tasks.generate",
    "inspect": "rgz.tasks.inspect",
    "load_dataset": "rgz.data.datasets",
    "open_cutout": "rgz.data.cutout",
}


def __getattr__(name: str) -> "Any":
    if name not in _MODULES:
        raise AttributeError(f"module 'rgz' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
