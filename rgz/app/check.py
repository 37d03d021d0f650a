"""Describe a file in one line, to see whether rgz can use it."""

from collections import Counter
from pathlib import Path

import h5py

from rgz.data import archives, sample
from rgz.errors import BadInput, first_line
from rgz.features import codes
from rgz.models import checkpoint

__all__ = ["describe"]


def describe(path: Path) -> str:
    """One line about a FITS image, an archive of batches, a sample, codes, or weights.

    Raises
    ------
    BadInput
        The file is missing, damaged, or of an unknown kind.
    """
    if not path.is_file():
        raise BadInput(f"{path} is not a file: give the path of a FITS, tar.gz, h5 or safetensors file")
    for endings, function in KINDS.items():
        if path.name.lower().endswith(endings):
            return function(path)
    raise BadInput(f"{path} has an unknown ending; known are {', '.join(e for endings in KINDS for e in endings)}")


def _fits(path: Path) -> str:
    pixels, wcs = archives.read_fits(path)
    centre = ""
    if wcs is not None:
        sky = wcs.pixel_to_world((pixels.shape[1] - 1) / 2, (pixels.shape[0] - 1) / 2)
        centre = f", centre RA {sky.icrs.ra.deg:.4f} Dec {sky.icrs.dec.deg:+.4f} deg"
    return f"FITS image, {pixels.shape[0]}×{pixels.shape[1]} pixels{centre}"


def _batches(path: Path) -> str:
    images, classes, _, splits = archives.read_batches(path)
    return f"batches, {len(images)} images, {len(set(classes))} classes, {splits.count('test')} in the test batch"


def _hdf5(path: Path) -> str:
    try:
        with h5py.File(path, "r") as file:
            groups = [key for key in file if isinstance(file[key], h5py.Group) and "code" in file[key]]
    except OSError as error:
        raise BadInput(f"{path} is not a readable HDF5 file ({first_line(error)}): make or fetch it again") from error
    if groups:
        return "codes: " + ", ".join(f"{name} {codes.read_codes(path, name)[1].shape}" for name in groups)
    read = sample.read(path)
    labels = ", ".join(f"{n} {label or 'unlabelled'}" for label, n in Counter(read.table["label"].tolist()).items())
    return f"sample, {len(read)} images of {read.images.shape[1]}×{read.images.shape[2]} pixels: {labels}"


def _weights(path: Path) -> str:
    model, recipe, about = checkpoint.load(path)
    parameters = sum(value.numel() for value in model.parameters())
    return (
        f"{type(model).__name__}, {parameters / 1e6:.1f} M parameters for {recipe.size}×{recipe.size} images, "
        f"{about.get('steps', '?')} steps, commit {about.get('commit', 'unknown')}"
    )


KINDS = {
    (".fits", ".fits.fz", ".fits.gz", ".fit"): _fits,
    (".tar.gz", ".tar", ".tgz"): _batches,
    (".h5", ".hdf5"): _hdf5,
    (".safetensors",): _weights,
}
