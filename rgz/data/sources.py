"""The images of the sources of a catalogue: files, members of tar archives, or surroundings of positions in mosaics.

A mosaic is a FITS image that shows many sources. It is mapped into memory, so that no more is read than the
surroundings of a source.
"""

import io
import os
import re
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
from scipy.spatial import KDTree

from rgz.data import archives, cutout
from rgz.data.cutout import Cutout, Observation
from rgz.errors import BadInput, as_bad_input
from rgz.progress import progress

__all__ = ["locate", "opened"]

MOSAIC = re.compile(r"\.fits?(\.(gz|bz2|fz|zip))?$")
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
        wide = [one for one in inside if MOSAIC.search(one.name.lower())]
        if not wide:
            raise BadInput(f"{images} has no FITS mosaics: name their folder, or give the catalogue a column file")
        return "mosaic", {"file": _best(wide, ra, dec)}
    if tars := [one for one in inside if one.suffix == ".tar"]:
        members = _members(tars)
        found = [members.get(os.path.normpath(name), (name, 0, -1)) for name in files]  # tar may write ./ before it
        return "member", dict(zip(("file", "offset", "size"), zip(*found, strict=True), strict=True))
    if not images.is_dir():
        raise BadInput(f"{images} is one image, but the catalogue has a column of files: name their folder")
    return "file", {"file": [os.path.join(images, name) for name in files]}


def _members(tars: list[Path]) -> dict[str, tuple[str, int, int]]:
    """The archive of each member of uncompressed tar archives, and its place and size there, in bytes."""
    found: dict[str, tuple[str, int, int]] = {}
    for tar in tars:
        with (
            as_bad_input(f"{tar} is damaged or compressed", "make it again, without compression"),
            tarfile.open(tar, "r:") as archive,
        ):
            for one in archive:
                name = os.path.normpath(one.name)
                if one.isfile() and found.setdefault(name, (str(tar), one.offset_data, one.size))[0] != str(tar):
                    raise BadInput(f"{tar} and {found[name][0]} both have {name}: leave one out")
    return found


def _best(mosaics: list[Path], ra: NDArray[Any], dec: NDArray[Any]) -> list[str]:
    """The mosaic in which each of N positions, degrees, is farthest from an edge; empty where none shows it."""
    sky, farthest, best = SkyCoord(ra, dec, unit="deg"), np.zeros(len(ra)), np.full(len(ra), -1)
    near = KDTree(sky.cartesian.xyz.value.T)
    for number, path in enumerate(progress(mosaics, "reading headers", unit="mosaic")):
        wcs, (height, width), middle, reach = _frame(path)
        of = np.array(near.query_ball_point(middle, reach), int)
        x, y = wcs.world_to_pixel(sky[of])
        inside = 0.5 + np.min([x, width - 1 - x, y, height - 1 - y], axis=0)  # pixels, or NaN
        inside *= 3600 * proj_plane_pixel_scales(wcs).mean()  # arcsec
        better = of[inside > farthest[of]]
        best[better], farthest[better] = number, inside[inside > farthest[of]]
    return [str(mosaics[one]) if one >= 0 else "" for one in best]


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


def _frame(path: Path) -> tuple[WCS, tuple[int, int], NDArray[np.float64], float]:
    """WCS and shape (H, W) of a mosaic, its middle as a unit vector, and how far from that it reaches (chord).

    This is 2, the diameter of the sphere, if the mosaic is wide or its edges are not on the sky.
    """
    image, wcs, _ = _mosaic(path)
    height, width = (image.unit.shape[axis] for axis in image.axes)
    with as_bad_input(f"{path} has celestial coordinates that cannot be used", "correct its header, or leave it out"):
        y, x = np.mgrid[:3, :3].reshape(2, -1) * np.array([[height - 1], [width - 1]]) / 2
        points = wcs.pixel_to_world(x, y).icrs.cartesian.xyz.value.T  # (9, 3)
    apart = 1.1 * float(np.linalg.norm(points - points[4], axis=1).max())
    return wcs, (height, width), np.nan_to_num(points[4]), apart if apart < 0.5 else 2.0


def _section(path: str, at: tuple[float, float]) -> Observation:
    """The surroundings of a position in a mosaic, of which no more is read."""
    if not path:
        raise BadInput(f"no mosaic shows {at[0]:.5f} {at[1]:+.5f}: add the one that does, or leave the source out")
    sky = SkyCoord(*at, unit="deg")
    with READING:
        image, wcs, length = _mosaic(Path(path))
        widths, _ = cutout.widths_at(wcs, *map(float, wcs.world_to_pixel(sky)))
        if not np.isfinite(widths).all():
            raise BadInput(f"{path} ends at {at[0]:.5f} {at[1]:+.5f}: leave the source out")
        side = min(cutout.LARGEST, 2 * int(cutout.reached(widths).max() + 3))
        pixels, window = archives.section(path, image, None, length, sky, side)
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
