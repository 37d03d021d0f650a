"""Radio galaxies in the latent space of a very deep variational autoencoder.

The public names, which ``__init__.pyi`` lists, are loaded when they are first used, so ``import rgz`` itself is fast::

    cutout = rgz.open_cutout("galaxy.fits")
    print(rgz.inspect(cutout))
"""

import os

import lazy_loader

__version__ = "0.20.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # torch's idle threads would otherwise slow down other processes
