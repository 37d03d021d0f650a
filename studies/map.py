"""A map of all galaxies for the explorer: t-SNE of the vectors of the similarity search, and numbers to colour it by.

*Size* is the root mean square distance of the emission from the middle of the image, in arcsec
(:class:`rgz.transforms.prepare.Pose`). *S/N* is three times the peak over the faintest pixel, because the archives
clipped at three times the rms. This says nothing if that pixel has fewer than four of 255 grey levels, and in the Radio
Galaxy Dataset, whose images had the threshold subtracted. There, the S/N is that in the fields of FIRST behind
MiraBest, which are not clipped, or unknown if no field shows the galaxy. *Percentile* is the anomaly percentile,
relative to held-out galaxies.
"""

from contextlib import suppress

import numpy as np
import pandas as pd
from astropy.coordinates import SkyCoord
from astropy.table import Table
from numpy.typing import NDArray

from rgz import artifacts
from rgz.app import explorer
from rgz.data import archives, cutout, datasets, fetch
from rgz.data.cutout import Cutout
from rgz.errors import BadInput
from rgz.features import codes as codefile
from rgz.models.flow import FlowEnsemble
from rgz.progress import progress
from rgz.tasks import inspect, search
from studies import results

FAINTEST = 4  # grey levels, of 255
SUBTRACTED = "rgd"
NVSS = "frdeep-nvss"
REACH = 200.0  # arcsec from the middle of a field of FIRST, which is 540″ wide
FIELDS = 1255


def signal_to_noise(name: str, names: NDArray[np.str_]) -> NDArray[np.float64]:
    """S/N of some galaxies of a sample, NaN where unknown."""
    if name == SUBTRACTED:
        return np.full(len(names), np.nan)
    sample = datasets.load_dataset(name).named(names)
    images = np.nan_to_num(np.asarray(sample.images, np.float32))
    cutouts = (Cutout("", image, sample.pixel, (np.nan, np.nan), np.nan, 0, ()) for image in images)
    found = np.array([inspect.signal_to_noise(cutout) for cutout in cutouts])
    return np.where(found <= 3 * 255 / FAINTEST, found, np.nan)


def in_fields(table: Table) -> NDArray[np.float64]:
    """S/N of galaxies with these ``ra`` and ``dec`` in unclipped fields of FIRST, NaN where there is none."""
    sky, found = SkyCoord(table["ra"], table["dec"], unit="deg"), np.full(len(table), np.nan)
    stored = archives.members(fetch.fetch(datasets.FITS_FIELDS))
    for name, data in progress(stored, "S/N in fields of FIRST", FIELDS, unit="field"):
        field = cutout.read_image(data, name)
        if field.wcs is None:
            continue
        middle = field.wcs.pixel_to_world(*(np.array(field.pixels.shape[::-1]) - 1) / 2)
        for row in np.flatnonzero(sky.separation(middle).arcsec < REACH):
            with suppress(BadInput):  # too faint there, or the field does not show all of it
                seen = cutout.centre(field, (float(table["ra"][row]), float(table["dec"][row])))
                if seen.given:  # or it is another source
                    found[row] = seen.snr
    return found


def main() -> None:
    """Compute and write ``results/map.csv``, positions from 0 to 9999; two minutes."""
    table, codes, space = search.for_search()
    flows = FlowEnsemble.from_pretrained()
    x, y = explorer.flat(search.build(codes, table, space).vectors).T
    tables = {name: codefile.read_codes(None, name)[0] for name in datasets.SAMPLES}
    size = np.concatenate([one["length"] for one in tables.values()])
    snr = np.concatenate([signal_to_noise(name, one["name"]) for name, one in tables.items()])
    unknown = np.flatnonzero(np.isnan(snr) & (np.asarray(table["sample"]) != NVSS))
    snr[unknown] = in_fields(table[unknown])
    percentile = flows.percentile(flows.score_samples(codes.astype(float)))
    columns = {"name": list(table["name"]), "x": x, "y": y, "size": size, "snr": snr, "percentile": percentile}
    inputs = [artifacts.artifact(name) for name in ("codes.h5", "density.safetensors")]
    results.write("map", pd.DataFrame(columns).round(2), inputs)


if __name__ == "__main__":
    results.run(main)
