"""Files of generated galaxies: pixels as HDF5 or FITS, or all images on one sheet."""

import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from PIL import Image

from rgz import artifacts, plots
from rgz.data.sample import CHECKED
from rgz.errors import BadInput


def check_ending(path: Path) -> None:
    """Raise :class:`rgz.errors.BadInput` unless galaxies can be written to a file of this name."""
    if path.suffix not in (".h5", ".fits", ".png"):
        raise BadInput(f"{path} ends in {path.suffix or 'nothing'}: galaxies are written to .h5, .fits or .png")


def write(galaxies: NDArray[np.uint8], path: Path, settings: dict[str, Any]) -> None:
    """Write galaxies (N, H, W) and their settings to ``.h5`` (``images``), ``.fits`` (a cube) or ``.png`` (a sheet)."""
    check_ending(path)
    with artifacts.atomic(path) as partial:
        if path.suffix == ".h5":
            with h5py.File(partial, "w") as file:
                file.create_dataset("images", data=galaxies, **CHECKED)
                file.attrs.update(settings)
        elif path.suffix == ".fits":
            header = fits.Header([(name[:8].upper(), str(value)) for name, value in settings.items()])
            fits.PrimaryHDU(galaxies, header).writeto(partial)
        else:
            across = math.ceil(math.sqrt(len(galaxies)))
            sheet = np.zeros((-(-len(galaxies) // across) * across, *galaxies.shape[1:]), np.uint8)
            sheet[: len(galaxies)] = galaxies[:, ::-1]
            rows = [np.hstack(line) for line in sheet.reshape(-1, across, *galaxies.shape[1:])]
            picture = Image.fromarray(plots.colours(np.vstack(rows) / 255))
            picture.resize((3 * picture.width, 3 * picture.height), Image.Resampling.BICUBIC).save(partial, "PNG")
