"""Radio galaxies in the latent space of a very deep variational autoencoder.

A thin library behind a book: each chapter runs on one or two of these modules, and each module reads like the
page that it serves. Importing :mod:`rgz` costs nothing; take the rooms that you need::

    from rgz import readers, images, vdvae
"""

import os

os.environ.setdefault(
    "OMP_WAIT_POLICY", "PASSIVE"
)  # torch's idle threads sleep: spinning, they stall where others work too

__version__ = "0.11.0"
