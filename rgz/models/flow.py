r"""Density of codes: a masked autoregressive flow.

A flow maps codes to Gaussian noise by invertible steps. In each step every component is shifted and scaled by functions
of the components before it (Papamakarios, Pavlakou & Murray 2017, arXiv:1705.07057). The density of a code :math:`x` is

.. math:: \ln p(x) = \ln \mathcal{N}\bigl(f(x);\, 0, I\bigr) + \ln\left|\det \frac{\partial f}{\partial x}\right| .

Codes are whitened first: rotated to their principal components, each divided by its standard deviation. Likelihoods are
those of whitened codes, in nats. An ensemble of five flows, each fitted to four fifths of the sources and stopped early
on the last fifth, gives a mean density; its scatter gives the error. A log-likelihood is converted to a *percentile*:
the percentage of galaxies in a calibration set that are less likely. The calibration set is held out from the training
of network and flows. If a flow gives no finite value, the log-likelihood is set to −∞.
"""

import copy
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nflows.transforms import (
    CompositeTransform,
    MaskedAffineAutoregressiveTransform,
    PointwiseAffineTransform,
    ReversePermutation,
)
from numpy.typing import NDArray
from torch import Tensor, nn

from rgz import artifacts
from rgz.errors import BadInput, as_bad_input
from rgz.models import checkpoint
from rgz.progress import progress

MEMBERS = 5
STRETCH = 2.0  # scale factor before each step: the steps of nflows can only shrink values


@dataclass(frozen=True)
class Config:
    """Shape of a flow, and how it is fitted by AdamW."""

    kept: int = 160  # principal components of the codes that are modelled
    layers: int = 3  # autoregressive steps
    hidden: int = 64  # width of their networks
    blocks: int = 1  # residual blocks in each
    dropout: float = 0.2
    decay: float = 0.1  # of the weights
    learning_rate: float = 1e-2
    batch: int = 256
    epochs: int = 30  # at most
    patience: int = 20  # epochs without a better held-out likelihood, after which to stop


class Flow(nn.Module):
    """One flow over whitened codes.

    >>> Flow(Config(kept=3, layers=2, hidden=8))(torch.zeros(5, 3)).shape
    torch.Size([5])
    """

    def __init__(self, config: Config):
        super().__init__()
        self.kept = config.kept
        networks = {"num_blocks": config.blocks, "dropout_probability": config.dropout}
        steps: list[nn.Module] = []
        for _ in range(config.layers):
            steps += [
                ReversePermutation(config.kept),
                PointwiseAffineTransform(torch.tensor(0.0), torch.tensor(STRETCH)),
                MaskedAffineAutoregressiveTransform(config.kept, config.hidden, **networks),
            ]
        self.steps = CompositeTransform(steps)

    def forward(self, values: Tensor) -> Tensor:
        """Log-likelihood in nats, (N,), of whitened codes (N, kept)."""
        noise, log_det = self.steps(values)  # (N, kept), (N,)
        likelihood: Tensor = log_det - 0.5 * (noise**2).sum(1) - 0.5 * self.kept * math.log(2 * math.pi)
        return likelihood

    def masked(self) -> list[tuple[str, Tensor, Tensor]]:
        """Name, values and mask of each parameter; outside the mask of an autoregressive network, weights are zero."""
        masks = {f"{name}.weight": part.mask.bool() for name, part in self.named_modules() if hasattr(part, "mask")}
        return [(name, one, masks.get(name, torch.ones_like(one).bool())) for name, one in self.named_parameters()]


@dataclass(frozen=True)
class FlowEnsemble:
    """An ensemble of flows over one kind of codes, and its calibration set.

    A code is whitened by subtracting ``centre`` (D,) and multiplying with ``matrix`` (D, kept). ``calibration`` are the
    sorted log-likelihoods (M,) of the calibration set, ``about_centroid`` those of codes of the same galaxies about the
    centroids of their emission. Both are empty before :func:`calibrate`.
    """

    config: Config
    centre: NDArray[np.float64]
    matrix: NDArray[np.float64]
    flows: tuple[Flow, ...]
    calibration: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    about_centroid: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def from_pretrained(cls, path: Path | None = None) -> "FlowEnsemble":
        """The calibrated ensemble over codes of FIRST galaxies, or that of another file."""
        return load(artifacts.artifact("density.safetensors") if path is None else Path(path))[0]

    def whitened(self, codes: NDArray[Any]) -> NDArray[np.float64]:
        """Whitened codes (N, kept) of codes (N, D); raises :class:`rgz.errors.BadInput` for a wrong length."""
        if codes.ndim != 2 or codes.shape[1] != len(self.centre):
            raise BadInput(f"this density is of codes of shape (N, {len(self.centre)}); these have {codes.shape}")
        return np.asarray((codes - self.centre) @ self.matrix)

    def member_scores(self, codes: NDArray[Any]) -> NDArray[np.float64]:
        """Log-likelihoods (members, N), in nats, of codes (N, D); −∞ where a flow gives no finite value."""
        with np.errstate(over="ignore", invalid="ignore"):
            values = torch.from_numpy(self.whitened(codes).astype(np.float32))
        with torch.no_grad():
            found = torch.stack([flow(values) for flow in self.flows]).numpy().astype(float)
        return np.where(np.isfinite(found), found, -np.inf)

    def score_samples(self, codes: NDArray[Any]) -> NDArray[np.float64]:
        """Log-likelihood (N,), in nats, of codes (N, D) under the mean density of the members."""
        return mean_density(self.member_scores(codes))

    def percentile(self, log_likelihood: NDArray[Any], hosts: NDArray[Any] | bool = True) -> NDArray[np.float64]:
        """Percentage (N,), 0 … 100, of the calibration set that is less likely; 0 for a value that is not finite.

        ``hosts`` tells which codes are of images with the host galaxy in their middle. The others are compared with
        codes about the centroid. Raises :class:`rgz.errors.BadInput` if the ensemble was not calibrated.
        """
        if not len(self.calibration) or not (np.all(hosts) or len(self.about_centroid)):
            raise BadInput("this density has no calibration set to compare with: calibrate it first")
        value = np.where(np.isfinite(log_likelihood), log_likelihood, -np.inf)
        ranks = []
        for known in (self.calibration, self.about_centroid):
            below, upto = (np.searchsorted(known, value, side) for side in ("left", "right"))
            ranks.append(100 * (below + upto + 1) / (2 * (len(known) + 1)))
        return np.where(np.isfinite(value), np.where(hosts, *ranks), 0.0)


def mean_density(members: NDArray[Any]) -> NDArray[np.float64]:
    """Logarithm of the mean density, (N,), of log-likelihoods of several flows (members, N)."""
    return np.asarray(np.logaddexp.reduce(members) - math.log(len(members)))


def whitening(codes: NDArray[Any], kept: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean (D,) of codes (N, D), and the matrix (D, kept) to their first principal components of variance one."""
    if not kept <= min(codes.shape):
        raise BadInput(f"codes of shape {codes.shape} do not have {kept} principal components")
    centre = codes.mean(axis=0)
    variance, directions = np.linalg.eigh(np.cov((codes - centre).T))
    order = np.argsort(-variance)[:kept]
    if not variance[order[-1]] > 1e-9 * variance[order[0]]:
        raise BadInput(f"codes of shape {codes.shape} vary along fewer than {kept} directions: keep fewer")
    return centre, directions[:, order] / np.sqrt(variance[order])


def fit_flow(values: NDArray[Any], held_out: NDArray[Any], config: Config, seed: int = 0) -> Flow:
    """One flow fitted to whitened codes (N, kept); the weights of the best epoch on ``held_out`` ones are kept."""
    fitted, checked = (torch.from_numpy(np.asarray(part, dtype=np.float32)) for part in (values, held_out))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        flow = Flow(config)
        optimizer = torch.optim.AdamW(flow.parameters(), config.learning_rate, weight_decay=config.decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.epochs)
        best, waited, kept = -math.inf, 0, flow.state_dict()
        for _ in range(config.epochs):
            flow.train()
            for rows in torch.split(torch.randperm(len(fitted)), config.batch):
                loss = -flow(fitted[rows]).mean()
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(flow.parameters(), 5.0)
                optimizer.step()
            schedule.step()
            flow.eval()
            with torch.no_grad():
                reached = float(flow(checked).mean().item())
            waited += 1
            if reached > best:
                best, waited, kept = reached, 0, copy.deepcopy(flow.state_dict())
            if waited >= config.patience:
                break
    if not math.isfinite(best):
        raise BadInput("no flow could be fitted: the held-out codes never had a finite likelihood")
    flow.load_state_dict(kept)
    return flow.eval().requires_grad_(False)


def fit_ensemble(
    codes: NDArray[Any], groups: NDArray[Any], config: Config = Config(), members: int = MEMBERS
) -> FlowEnsemble:
    """Flows fitted to codes (N, D); rows of one group (N,) stay together when a part is held out.

    Raises :class:`rgz.errors.BadInput` if a code is not finite, or there are too few codes or groups.
    """
    from joblib import Parallel, delayed
    from sklearn.model_selection import GroupKFold  # its import takes half a second

    if not np.isfinite(codes).all():
        raise BadInput("codes to fit a density to must be finite; some are not")
    if len(set(groups)) < members:
        raise BadInput(f"{members} flows need codes of as many groups; there are {len(set(groups))}")
    centre, matrix = whitening(codes, config.kept)
    values = (codes - centre) @ matrix
    parts = enumerate(GroupKFold(members).split(values, groups=groups))
    jobs = (delayed(fit_flow)(values[fitted], values[stopping], config, seed) for seed, (fitted, stopping) in parts)
    done = Parallel(n_jobs=-1, return_as="generator")(jobs)
    return FlowEnsemble(config, centre, matrix, tuple(progress(done, "fitting flows", members, unit="flow")))


def calibrate(density: FlowEnsemble, codes: NDArray[Any], about_centroid: NDArray[Any] | None = None) -> FlowEnsemble:
    """The ensemble with the calibration set of codes (M, D), which must be held out from network and flows.

    ``about_centroid`` are codes (M, D) of the same galaxies that do not depend on the middle of the images.
    """
    none = np.zeros(0)
    ranked = [none if one is None else np.sort(density.score_samples(one)) for one in (codes, about_centroid)]
    known, centroid = (scores[np.isfinite(scores)] for scores in ranked)
    return replace(density, calibration=known, about_centroid=centroid)


def save(path: Path, density: FlowEnsemble, about: dict[str, Any]) -> None:
    """Write an ensemble to one safetensors file, atomically: half precision, without the masked weights."""
    arrays = {"centre": density.centre, "matrix": density.matrix}
    arrays |= {"known": density.calibration, "about_centroid": density.about_centroid}
    tensors = {name: torch.from_numpy(value).float().contiguous() for name, value in arrays.items()}
    for number, flow in enumerate(density.flows):
        tensors |= {f"{number}.{name}": value[mask].detach().half() for name, value, mask in flow.masked()}
    checkpoint.write(path, "density", tensors, {"config": asdict(density.config), "provenance": about})


def load(path: Path) -> tuple[FlowEnsemble, dict[str, Any]]:
    """An ensemble and its provenance from a file of :func:`save`.

    Raises :class:`rgz.errors.BadInput` if the file is missing or damaged, or not a density of this library.
    """
    with as_bad_input(f"{path} is not a density of rgz", "rgz study density makes it"):
        stored, about = checkpoint.read(path, "density")
        tensors = {name: value.float() for name, value in stored.items()}
        config = Config(**checkpoint.frozen(about["config"]))
        names = "centre", "matrix", "known", "about_centroid"
        centre, matrix, *known = arrays = [tensors.pop(name).numpy().astype(float) for name in names]
        if matrix.shape != (len(centre), config.kept) or not all(np.isfinite(one).all() for one in arrays):
            raise ValueError(f"a whitening of shape {matrix.shape}")
        if config.layers * (1 + config.blocks) * config.hidden**2 > 100 * sum(map(torch.numel, tensors.values())):
            raise ValueError("its flows are smaller than its configuration")  # said before memory is taken
        members = len({name.partition(".")[0] for name in tensors})
        flows = tuple(Flow(config).eval().requires_grad_(False) for _ in range(members))
        for number, flow in enumerate(flows):
            for name, value, mask in flow.masked():
                value.zero_()[mask] = tensors[f"{number}.{name}"]
        return FlowEnsemble(config, centre, matrix, flows, *known), dict(about["provenance"])
