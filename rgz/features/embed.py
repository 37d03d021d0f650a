r"""The code of a galaxy: posterior means of latents up to 8 × 8.

A VDVAE has more latents than it uses; inactive ones stay at their prior (posterior collapse). Latents of resolutions up
to 8 × 8 are ranked by their mean rate over the *training* images, without labels, and the first ones form the code.

The canonical orientation has four mirrored views. Where both halves of a source are equally bright, the choice between
them is arbitrary. The image is therefore encoded in all four views, once with the middle of the field in its middle,
where the host galaxy is, and once with the centroid of the emission, which does not depend on how the image was cut
out. A code has four parts, each of D numbers:

1. the galaxy in its canonical orientation: the mean over the four views, each weighted by how certainly it is the
   canonical one. This part can be decoded. With :math:`a \in [-1, 1]` the difference over the sum of the fluxes of the
   two halves, the weights of the view as it is, and of the mirrored one, are
   :math:`\tfrac12\,(1 \pm \tanh(|a| / s))` with :math:`s = 0.2`, along the axis and across it;
2. its asymmetry: the standard deviation over the four views;
3. its shape about the centroid: the mean over the four views about the centroid;
4. its asymmetry about the centroid: the standard deviation over these views.

Eight passes through the network give this one vector, the same for every task.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rgz import artifacts
from rgz.data.sample import Sample, usable
from rgz.errors import BadInput
from rgz.features import codes as codefile
from rgz.models import checkpoint
from rgz.models.vdvae import VDVAE
from rgz.progress import progress
from rgz.transforms.prepare import FRAMES, Pose, Prepare, Recipe, prepare

if TYPE_CHECKING:
    from rgz.data.cutout import Cutout

PARTS = 4  # of a code
UNCERTAIN = 0.2  # s above: difference of the fluxes of two halves at which the brighter one is fairly certain
BATCH, FIELDS = 32, 16  # prepared images in one pass through the network, and fields encoded together


class Encoder(nn.Module):
    """Encodes images of galaxies: a trained network, the preparation of images for it, and the average over views.

    ``latents`` (D,) are the indices of the latents in a code.
    """

    chosen: Tensor

    def __init__(self, model: VDVAE, recipe: Recipe, latents: NDArray[np.intp]):
        super().__init__()
        self.model, self.recipe, self.latents, self.prepare = model, recipe, np.asarray(latents), Prepare(recipe)
        self.register_buffer("chosen", torch.from_numpy(self.latents.astype(np.int64)))

    @classmethod
    def from_pretrained(cls, path: Path | None = None) -> "Encoder":
        """The trained encoder, or one from the files ``vdvae.safetensors`` and ``codes.h5`` in the folder ``path``."""
        files = "vdvae.safetensors", "codes.h5"
        weights, codes = (artifacts.artifact(name) if path is None else Path(path) / name for name in files)
        model, recipe, _ = checkpoint.load(weights)
        latents = codefile.chosen(codes)
        if latents.max() >= model.dimensions:
            raise BadInput(f"{codes} has codes of another network than {weights}: make them again with rgz study codes")
        return cls(model, recipe, latents)

    def forward(self, fields: Tensor, pixel: float | Tensor, hosts: bool = True) -> Tensor:
        """Clipped fields (N, H, W), with pixels of ``pixel`` arcsec (a number or (N,)), to codes (N, 4 D).

        Without ``hosts`` in the middle of the fields, all four parts are about the centroid, which takes four passes.
        """
        return self.encode(*self.prepare(fields, pixel, FRAMES if hosts else FRAMES[1:]))

    def encode(self, squares: Tensor, poses: list[Pose]) -> Tensor:
        """Prepared fields (frames, N, 1, H, W), the last frame about the centroid, to codes (N, 4 D)."""
        views = torch.stack((squares, squares.flip(-1), squares.flip(-2), squares.flip(-1, -2)))
        parts = torch.split(views.flatten(0, 2), 4 * FIELDS)
        means = torch.cat([self.model.means(part, self.model.coded)[:, self.chosen] for part in parts])
        of_frames = means.view(*views.shape[:3], -1).unbind(1)
        middle, centroid = of_frames[0], of_frames[-1]  # (views, N, D)
        sure = torch.tanh(poses[0].lean.abs() / UNCERTAIN)  # (N, 2)
        along, across = ((1 + sure) / 2).unbind(-1)
        weights = torch.stack(
            (along * across, (1 - along) * across, along * (1 - across), (1 - along) * (1 - across))
        )  # (views, N)
        canonical = (weights[..., None] * middle).sum(0)
        spread, spread_about_centroid = (views.std(0, correction=0) for views in (middle, centroid))
        return torch.cat((canonical, spread, centroid.mean(0), spread_about_centroid), dim=1)

    def transform(self, sample: "Sample | Cutout | Sequence[Cutout]", hosts: bool = True) -> NDArray[np.float32]:
        """Codes (N, 4 D), one row per galaxy; a cut-out gives one row.

        A sample without ``hosts`` in the middle of its images is encoded about the centroid of the emission, and so is
        a cut-out whose middle was not given as the position of the host: its code does not depend on how the image was
        cut out. Raises :class:`rgz.errors.BadInput` if an image has no emission in its middle, or values that single
        precision cannot hold.
        """
        if isinstance(sample, Sample):
            return self._encoded(*self._fields(sample), hosts)
        cutouts = sample if isinstance(sample, Sequence) else [sample]
        codes = np.empty((len(cutouts), PARTS * len(self.latents)), np.float32)
        for given in {cutout.given for cutout in cutouts}:
            rows = [row for row, cutout in enumerate(cutouts) if cutout.given == given]
            images = np.stack([cutouts[row].pixels for row in rows]).astype(np.float32)
            codes[rows] = self._encoded(images, np.array([round(cutouts[row].pixel, 6) for row in rows]), hosts=given)
        return codes

    @torch.no_grad()
    def _encoded(
        self, images: NDArray[np.float32], pixel: float | NDArray[np.float64], hosts: bool
    ) -> NDArray[np.float32]:
        if not len(images):
            return np.zeros((0, PARTS * len(self.latents)), np.float32)
        device, pixels = self.chosen.device, np.full(len(images), pixel)
        parts = list(zip(*(torch.split(torch.from_numpy(one), FIELDS) for one in (images, pixels)), strict=True))
        parts = progress(parts, desc="encoding", unit="batch", disable=len(parts) == 1)
        codes = torch.cat([self(*(one.to(device) for one in part), hosts).cpu() for part in parts]).numpy()
        if lost := int((~np.isfinite(codes).all(axis=1)).sum()):
            raise BadInput(f"{lost} images have too large values: divide them by a constant, such as their peak")
        return np.asarray(codes)

    def prepared(self, sample: "Sample | Cutout") -> NDArray[np.uint8]:
        """Prepared images (N, H, W) around the middle of each field."""
        images, pixel = self._fields(sample)
        return np.asarray(prepare(images, pixel, self.recipe)[0])

    def reconstruct(self, sample: "Sample | Cutout") -> NDArray[np.float32]:
        """Images (N, H, W), 0 … 255, decoded from the posterior means of all latents, coarse and fine."""
        return reconstruct(self.model, self.prepared(sample))

    def decode(self, codes: NDArray[Any]) -> NDArray[np.float32]:
        """Images (N, H, W), 0 … 255, of codes (N, 4 D), of their first part; fine latents at prior means.

        Raises :class:`rgz.errors.BadInput` if the codes have another length.
        """
        count = len(self.latents)
        if codes.ndim != 2 or codes.shape[1] != PARTS * count:
            raise BadInput(f"codes here have shape (N, {PARTS * count}); these have {codes.shape}")
        return decode(self.model, codes[:, :count], self.latents)

    def _fields(self, sample: "Sample | Cutout") -> tuple[NDArray[np.float32], float]:
        """Images (N, H, W) and pixel width, checked that all images can be prepared."""
        if isinstance(sample, Sample):
            found = usable(sample)
            if not found.all():
                blank = ", ".join(map(str, sample.table["name"][~found][:5]))
                raise BadInput(
                    f"{(~found).sum()} images have no emission in their middle ({blank}): leave them out with "
                    "sample[rgz.data.sample.usable(sample)]"
                )
            return np.nan_to_num(np.asarray(sample.images, np.float32), posinf=0.0, neginf=0.0), sample.pixel
        return np.asarray(sample.pixels[None], np.float32), sample.pixel


def reconstruct(model: Any, pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Images (N, H, W), 0 … 255, decoded from the posterior means of all latents of prepared images (N, H, W)."""
    parts = torch.split(torch.from_numpy(np.ascontiguousarray(pixels[:, None])), BATCH)
    return torch.cat([model.reconstruct(part) for part in parts])[:, 0].numpy()


def decode(model: Any, code: NDArray[Any], latents: NDArray[Any]) -> NDArray[np.float32]:
    """Images (N, H, W), 0 … 255, of the values (N, D) of some latents (D,); the others are at their prior means."""
    if code.ndim != 2 or code.shape[1] != len(latents):
        raise BadInput(f"codes here have shape (N, {len(latents)}); these have {code.shape}")
    full = torch.full((len(code), model.dimensions), torch.nan)
    full[:, latents] = torch.from_numpy(np.asarray(code, dtype=np.float32))
    return torch.cat([model.decode(part) for part in torch.split(full, BATCH)])[:, 0].numpy()
