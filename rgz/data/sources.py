"""The images of the sources of a catalogue: files, members of tar archives, or surroundings of positions in mosaics.

A mosaic is a FITS image that shows many sources. It is mapped into memory, so that no more is read than the
surroundings of a source.
"""

import io
import os
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from mmap import ACCESS_READ, mmap
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales
from numpy.typing import NDArray

from rgz.data import archives, cutout, detect
from rgz.data.cutout import Cutout, Observation
from rgz.errors import BadInput, as_bad_input

__all__ = ["locate", "opened"]

SEVERAL = 3  # mosaics with the nearest middles, of which one shows a source best
READING = Lock()  # an open mosaic has one place to read from, and a worker may have several threads


def locate(
    images: Path, files: list[str] | None, ra: NDArray[Any], dec: NDArray[Any]
) -> tuple[str, dict[str, Sequence[Any]]]:
    """How the images of sources at ``ra`` and ``dec`` (N,), degrees, are found: ``file``, ``member`` or ``mosaic``.

    ``images`` is a folder or one file, and ``files`` are the names in the catalogue; without, the images are mosaics.
    Also returns the columns ``file`` and, for members of tar archives, ``offset`` and ``size``. Raises
    :class:`BadInput` if there are no such images.
    """
    if not images.exists():
        raise BadInput(f"{images} does not exist: name a folder of cut-outs, mosaics or tar files")
    with as_bad_input(f"{images} cannot be read", "check its permissions"):
        inside = [one for one in sorted(images.iterdir()) if one.is_file()] if images.is_dir() else [images]
    if files is None:
        wide = [one for one in inside if ".fits" in one.name.lower()]
        if not wide:
            raise BadInput(f"{images} has no FITS mosaics: name their folder, or give the catalogue a column file")
        return "mosaic", {"file": [str(wide[number]) for number in _best(wide, SkyCoord(ra, dec, unit="deg"))]}
    if tars := [one for one in inside if one.suffix == ".tar"]:
        members = _members(tars)
        found = [members.get(name, (name, 0, -1)) for name in files]
        return "member", dict(zip(("file", "offset", "size"), zip(*found, strict=True), strict=True))
    if not images.is_dir():
        raise BadInput(f"{images} is one image, but the catalogue has a column of files: name their folder")
    return "file", {"file": [os.path.join(images, name) for name in files]}


def _members(tars: list[Path]) -> dict[str, tuple[str, int, int]]:
    """The archive of each member of uncompressed tar archives, and its place and size there, in bytes."""
    found: dict[str, tuple[str, int, int]] = {}
    for tar in tars:
        with as_bad_input(f"{tar} is damaged", "make it again"), tarfile.open(tar, "r:") as archive:
            for one in archive:
                if one.isfile() and found.setdefault(one.name, (str(tar), one.offset_data, one.size))[0] != str(tar):
                    raise BadInput(f"{tar} and {found[one.name][0]} both have {one.name}: leave one out")
    return found


def _best(mosaics: list[Path], sky: SkyCoord) -> NDArray[np.intp]:
    """For each of N positions, the mosaic with a near middle from whose edges it is farthest."""
    frames = [_frame(one) for one in mosaics]
    middles = SkyCoord([middle for *_, middle in frames], unit="deg")
    nearest = range(1, 1 + min(SEVERAL, len(mosaics)))
    near = np.stack([sky.match_to_catalog_sky(middles, nthneighbor=n)[0] for n in nearest])  # (K, N)
    inside = np.full(near.shape, -np.inf)  # arcsec from the nearest edge
    for number, (wcs, shape, _) in enumerate(frames):
        if (of := near == number).any():
            x, y = wcs.world_to_pixel(sky[of.nonzero()[1]])
            edge = np.min([x, shape[1] - 1 - x, y, shape[0] - 1 - y], axis=0)
            inside[of] = np.nan_to_num(edge, nan=-np.inf) * _width(wcs)
    return np.asarray(np.take_along_axis(near, inside.argmax(0)[None], 0)[0])


class _Mapped(mmap):
    """A file mapped into memory; a place after its end can be sought, because the last padding may be missing."""

    def seek(self, place: int, whence: Any = 0) -> None:
        """Move to a place, at most the end."""
        super().seek(place if whence else min(place, len(self)), whence)


@lru_cache(8)
def _mosaic(path: Path) -> tuple[archives.Image, WCS, int]:
    """The first celestial image of a FITS file, mapped or unpacked, its WCS, and the length of the file in bytes."""
    with as_bad_input(f"{path} is not a readable FITS mosaic", "fetch it again, or leave it out"):
        data = archives.content(path, str(path))
        with path.open("rb") as file:  # which the map of it outlives
            stream: Any = io.BytesIO(data) if isinstance(data, bytes) else _Mapped(file.fileno(), 0, access=ACCESS_READ)
        length = len(data) if isinstance(data, bytes) else len(stream)
        image = next(iter(archives.read_images(stream, length).values()), None)
        if image is None or image.wcs is None:
            raise BadInput(f"{path} has no image with celestial coordinates: leave it out")
        if max(image.others, default=1) > 1:
            raise BadInput(f"{path} has an image of shape {image.unit.shape}: give one plane of it")
        return image, image.wcs, length


def _frame(path: Path) -> tuple[WCS, tuple[int, int], tuple[float, float]]:
    """WCS and shape (H, W) of a mosaic, and RA and Dec of its middle, degrees."""
    image, wcs, _ = _mosaic(path)
    height, width = (image.unit.shape[axis] for axis in image.axes)
    with as_bad_input(f"{path} has celestial coordinates that cannot be used", "correct its header, or leave it out"):
        sky = wcs.pixel_to_world((width - 1) / 2, (height - 1) / 2).icrs
        if not np.isfinite([sky.ra.deg, sky.dec.deg]).all():
            raise ValueError("its middle is outside of the sky")
        return wcs, (height, width), (float(sky.ra.deg), float(sky.dec.deg))


def _width(wcs: WCS) -> float:
    """Mean width of a pixel, arcsec."""
    return 3600 * float(proj_plane_pixel_scales(wcs).mean())


def _section(path: str, at: tuple[float, float]) -> Observation:
    """The surroundings of a position in a mosaic, of which no more is read."""
    with READING:
        image, wcs, length = _mosaic(Path(path))
        pixel = _width(wcs)
        side = 2 * int(1.5 * max(cutout.REACH, detect.FIELD / 2 * pixel) / pixel + 3)
        pixels, window = archives.section(path, image, None, length, SkyCoord(*at, unit="deg"), side)
    return cutout.observed(path, pixels, window, image.header, [*image.notes])


def _member(row: dict[str, Any]) -> bytes:
    """The content of the member of a tar file."""
    if row["size"] < 0:
        raise BadInput(f"no tar file has a member {row['file']}: name members as the tar files do")
    if row["size"] > archives.LARGEST:
        raise BadInput(f"{row['file']} has a member of {row['size']} bytes for {row['id']}: at most 512 MiB are read")
    with open(row["file"], "rb") as stream:
        stream.seek(row["offset"])
        return stream.read(row["size"])


def opened(row: dict[str, Any], way: str, hosts: bool) -> Cutout:
    """The cut-out of a source that :func:`locate` has found, at ``ra`` and ``dec`` (degrees), those of a host or not.

    A picture, which has no coordinates, shows it in its middle. Raises :class:`BadInput` if it cannot be used.
    """
    path, at = row["file"], (row["ra"], row["dec"])
    with as_bad_input(f"{path} cannot be read for {row['id']}", "fetch it again"), np.errstate(all="ignore"):
        if way == "mosaic":
            image = _section(path, at)
        elif way == "member":
            image = cutout.read_image(_member(row), row["id"], at)
        else:
            image = cutout.read_image(Path(path), path, at)
        found = cutout.centre(image, None if image.wcs is None else at)
    return found if hosts else replace(found, given=False)
