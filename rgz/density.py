r"""How likely is a galaxy? A masked autoregressive flow on whitened codes.

A flow turns codes into Gaussian noise by steps that can be undone, in each of which every number is shifted and scaled by what a
network makes of the numbers before it (Papamakarios, Pavlakou & Murray 2017, arXiv:1705.07057). The density of a code
:math:`x` is then

.. math:: \ln p(x) = \ln \mathcal{N}\bigl(f(x);\, 0, I\bigr) + \ln\left|\det \frac{\partial f}{\partial x}\right| .

Codes are rotated to their principal components first, and each is divided by its spread; likelihoods are of those numbers, in
nats. Five flows, each taught by other four fifths of the sources and stopped when the last fifth says so, are one density, their
mean, and their spread is its error. A likelihood says little by itself, so it is told as a *percentile*: the share of galaxies,
seen by neither network nor flow, that are less likely. Where a flow has no finite answer, a galaxy is as unlikely as can be.
"""

import copy
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from nflows.transforms import (
    CompositeTransform,
    MaskedAffineAutoregressiveTransform,
    PointwiseAffineTransform,
    ReversePermutation,
)
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from rgz import checkpoints, paths
from rgz.errors import BadInput, first_line
from rgz.likelihood import truncated_noise
from rgz.progress import progress

__all__ = [
    "Config",
    "Density",
    "Flow",
    "calibrated",
    "first_fold",
    "fit",
    "fit_flow",
    "folds",
    "load",
    "save",
    "whitening",
]

MEMBERS = 5
FARTHEST = 20.0  # spreads; a number of a code further out than this comes of a step that overflows
SPARE, TIMES = 32, 20  # codes drawn beyond those asked for, and rounds at which to give up
STRETCH = 2.0  # before each step, for the steps of nflows shrink numbers and never stretch them


@dataclass(frozen=True)
class Config:
    """Shape of a flow, and how it is taught.

    Parameters
    ----------
    kept
        Principal components of the codes that are modelled.
    layers, hidden, blocks
        Autoregressive steps, the width of their networks, and the residual blocks in each.
    dropout
        Share of hidden units left out at each training step.
    decay
        By how much weights shrink at each step, in learning rates.
    epochs, patience
        Most epochs, and those without a better held-out likelihood after which to stop.
    """

    kept: int = 67
    layers: int = 5
    hidden: int = 96
    blocks: int = 1
    dropout: float = 0.2
    decay: float = 0.1
    learning_rate: float = 1e-2
    batch: int = 128
    epochs: int = 120
    patience: int = 20


class Flow(nn.Module):
    """One flow over whitened codes.

    >>> Flow(Config(kept=3, layers=2, hidden=8))(torch.zeros(5, 3)).shape
    torch.Size([5])
    """

    def __init__(self, config: Config):
        super().__init__()
        self.kept = config.kept
        steps = []
        for _ in range(config.layers):
            steps += [
                ReversePermutation(config.kept),
                PointwiseAffineTransform(torch.tensor(0.0), torch.tensor(STRETCH)),
                MaskedAffineAutoregressiveTransform(
                    config.kept, config.hidden, num_blocks=config.blocks, dropout_probability=config.dropout
                ),
            ]
        self.steps = CompositeTransform(steps)

    def forward(self, values: Tensor) -> Tensor:
        """Log-likelihood in nats, (N,), of whitened codes (N, kept)."""
        noise, log_det = self.steps(values)
        return log_det - 0.5 * (noise**2).sum(1) - 0.5 * self.kept * math.log(2 * math.pi)

    @torch.no_grad()
    def draw(self, count: int, temperature: float = 1.0, truncation: float = math.inf) -> Tensor:
        """Whitened codes (count, kept) from the density; as many passes as there are numbers.

        What the steps are undone for is noise ``temperature`` times as wide as the Gaussian's, without what lies beyond
        ``truncation`` standard deviations. A code that overflows on the way is not finite.
        """
        return self.steps.inverse(temperature * truncated_noise(torch.empty(count, self.kept), truncation))[0]


@dataclass(frozen=True)
class Density:
    """Flows over one kind of codes, and what calibrates them.

    Parameters
    ----------
    config
        Shape of the flows.
    centre, matrix
        (D,) and (D, kept): a code less the first times the second is whitened.
    flows
        The members.
    known
        Log-likelihoods of galaxies that took no part, rising, (M,); empty before calibration.
    """

    config: Config
    centre: np.ndarray
    matrix: np.ndarray
    flows: tuple[Flow, ...]
    known: np.ndarray

    def whitened(self, codes: np.ndarray) -> np.ndarray:
        """Codes (N, D) as numbers of spread one, (N, kept).

        Raises
        ------
        BadInput
            The codes have another length.
        """
        if codes.ndim != 2 or codes.shape[1] != len(self.centre):
            raise BadInput(f"this density is of codes of shape (N, {len(self.centre)}); these have {codes.shape}")
        return (codes - self.centre) @ self.matrix

    def each(self, codes: np.ndarray) -> np.ndarray:
        """Log-likelihoods (members, N), in nats, of codes (N, D); −∞ where a flow has no finite answer."""
        with np.errstate(over="ignore", invalid="ignore"):
            values = torch.from_numpy(self.whitened(codes).astype(np.float32))
        with torch.no_grad():
            found = torch.stack([flow(values) for flow in self.flows]).numpy().astype(float)
        return np.where(np.isfinite(found), found, -np.inf)

    def log_likelihood(self, codes: np.ndarray) -> np.ndarray:
        """Log-likelihood (N,), in nats, of codes (N, D): of the mean of the members' densities."""
        return np.logaddexp.reduce(self.each(codes)) - math.log(len(self.flows))

    def percentile(self, log_likelihood: np.ndarray) -> np.ndarray:
        """Percentage, 0 … 100, of unseen galaxies that are less likely; what is not finite has 0.

        Raises
        ------
        BadInput
            The density was not calibrated.
        """
        if not len(self.known):
            raise BadInput("this density knows no unseen galaxies to compare with: calibrate it first")
        value = np.where(np.isfinite(log_likelihood), log_likelihood, -np.inf)
        below, upto = (np.searchsorted(self.known, value, side) for side in ("left", "right"))
        return np.where(np.isfinite(value), 100 * (below + upto + 1) / (2 * (len(self.known) + 1)), 0.0)

    def draw(self, count: int, temperature: float = 1.0, truncation: float = math.inf) -> np.ndarray:
        """Codes (count, D) from the density, by torch's random numbers; arguments as of :meth:`Flow.draw`.

        What the whitening left out is at its mean. A code that overflows is drawn again.
        """
        back = np.linalg.pinv(self.matrix)
        share = np.diff(np.linspace(0, count, len(self.flows) + 1).round().astype(int))
        drawn = [_within(flow, int(n), temperature, truncation) for flow, n in zip(self.flows, share, strict=True)]
        return self.centre + torch.cat(drawn).numpy() @ back


def _within(flow: Flow, count: int, temperature: float, truncation: float) -> Tensor:
    """Whitened codes (count, kept), finite and none of their numbers beyond ``FARTHEST``."""
    kept = torch.zeros(0, flow.kept)
    for _ in range(TIMES):
        drawn = flow.draw(count - len(kept) + SPARE, temperature, truncation)
        kept = torch.cat([kept, drawn[(drawn.abs() < FARTHEST).all(1)]])[:count]  # false for NaN too
        if len(kept) == count:
            return kept
    raise BadInput(f"of the codes drawn from this flow hardly any lies within {FARTHEST:g} spreads: fit it anew")


def whitening(codes: np.ndarray, kept: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) of codes (N, D), and the matrix (D, kept) that makes their first principal components have spread one."""
    if not kept <= min(codes.shape):
        raise BadInput(f"codes of shape {codes.shape} do not have {kept} principal components")
    centre = codes.mean(axis=0)
    variance, directions = np.linalg.eigh(np.cov((codes - centre).T))
    order = np.argsort(-variance)[:kept]
    if not variance[order[-1]] > 1e-9 * variance[order[0]]:
        raise BadInput(f"codes of shape {codes.shape} vary along fewer than {kept} directions: keep fewer")
    return centre, directions[:, order] / np.sqrt(variance[order])


def fit_flow(
    values: np.ndarray, held_out: np.ndarray, config: Config, seed: int = 0, make: Callable[[Config], nn.Module] = Flow
) -> tuple[nn.Module, float]:
    """One flow for whitened codes (N, kept), and its mean log-likelihood, nats, on the ``held_out`` ones that stop it.

    ``make`` builds a flow from the configuration. Adam with decay, the learning rate along a cosine to zero; the epoch that is
    best on the held-out codes is kept.
    """
    taught, asked = (torch.from_numpy(np.asarray(part, dtype=np.float32)) for part in (values, held_out))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # products so small are not worth sharing
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            flow = make(config)
            optimizer = torch.optim.AdamW(flow.parameters(), config.learning_rate, weight_decay=config.decay)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.epochs)
            best, since, kept = -math.inf, 0, flow.state_dict()
            for _ in range(config.epochs):
                flow.train()
                for rows in torch.randperm(len(taught)).split(config.batch):
                    loss = -flow(taught[rows]).mean()
                    optimizer.zero_grad()
                    loss.backward()
                    nn.utils.clip_grad_norm_(flow.parameters(), 5.0)
                    optimizer.step()
                schedule.step()
                flow.eval()
                with torch.no_grad():
                    reached = flow(asked).mean().item()
                best, since, kept = (
                    (reached, 0, copy.deepcopy(flow.state_dict())) if reached > best else (best, since + 1, kept)
                )
                if since >= config.patience:
                    break
            if not math.isfinite(best):
                raise BadInput("no flow could be fitted: the held-out codes never had a finite likelihood")
            flow.load_state_dict(kept)
            return flow.eval().requires_grad_(False), best
    finally:
        torch.set_num_threads(threads)


def folds(values: np.ndarray, groups: np.ndarray, members: int = MEMBERS):
    """For each flow the rows to teach it with and those to stop it by; rows of one group stay together."""
    from sklearn.model_selection import GroupKFold  # half a second that whoever only asks a density need not wait

    return GroupKFold(members).split(values, groups=groups)


def first_fold(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of four fifths of N sources and of the last fifth; those of one group (N,) stay together."""
    return next(iter(folds(groups[:, None], groups)))


def fit(codes: np.ndarray, groups: np.ndarray, config: Config = Config(), members: int = MEMBERS) -> Density:
    """A density of codes (N, D); rows of one group (N,) stay together when a part is held out to stop a flow.

    Raises
    ------
    BadInput
        A code is not finite, or there are fewer codes or groups than that takes.
    """
    from joblib import Parallel, delayed

    if not np.isfinite(codes).all():
        raise BadInput("codes to fit a density to must be finite; some are not")
    if len(set(groups)) < members:
        raise BadInput(f"{members} flows need codes of as many groups; there are {len(set(groups))}")
    centre, matrix = whitening(codes, config.kept)
    values = (codes - centre) @ matrix
    jobs = (
        delayed(fit_flow)(values[taught], values[asked], config, seed)
        for seed, (taught, asked) in enumerate(folds(values, groups, members))
    )
    done = Parallel(n_jobs=-1, return_as="generator")(jobs)
    flows, _ = zip(*progress(done, desc="fitting flows", total=members, unit="flow"), strict=True)
    return Density(config, centre, matrix, flows, np.zeros(0))


def calibrated(density: Density, codes: np.ndarray) -> Density:
    """The density with percentiles that say how it ranks among codes (M, D) which took no part in anything."""
    known = np.sort(density.log_likelihood(codes))
    return Density(density.config, density.centre, density.matrix, density.flows, known[np.isfinite(known)])


def _masks(flow: Flow) -> dict[str, Tensor]:
    """Name of each masked weight to its mask: an autoregressive network has zeros where it must not look."""
    return {f"{name}.weight": part.mask.bool() for name, part in flow.named_modules() if hasattr(part, "mask")}


def save(path: Path, density: Density, about: dict):
    """Write a density to one safetensors file, atomically: weights in half precision, those behind a mask left out."""
    tensors = {
        "centre": torch.from_numpy(density.centre).float(),
        "matrix": torch.from_numpy(density.matrix).float(),
        "known": torch.from_numpy(density.known).float(),
    }
    for number, flow in enumerate(density.flows):
        masks = _masks(flow)
        for name, value in flow.named_parameters():
            tensors[f"{number}.{name}"] = (value[masks[name]] if name in masks else value).detach().half()
    tensors = {name: value.contiguous() for name, value in tensors.items()}
    described = {"config": asdict(density.config), "provenance": about, "sha256": checkpoints.digest(tensors)}
    with paths.atomic(path) as partial:
        partial.write_bytes(to_bytes(tensors, metadata={"density": json.dumps(described)}))


def load(path: Path) -> tuple[Density, dict]:
    """A density and its provenance from a file of :func:`save`.

    Raises
    ------
    BadInput
        The file is missing, damaged, or no density of this library.
    """
    try:
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["density"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
        if checkpoints.digest(tensors) != about["sha256"]:
            raise ValueError("its numbers do not have their own sha256")
        tensors = {name: value.float() for name, value in tensors.items()}
        config = Config(**about["config"])
        centre, matrix, known = (tensors.pop(name).numpy().astype(float) for name in ("centre", "matrix", "known"))
        members = 1 + max(int(name.split(".")[0]) for name in tensors)
        flows = tuple(_rebuilt(config, number, tensors) for number in range(members))
        if matrix.shape != (len(centre), config.kept) or not all(np.isfinite(v).all() for v in (centre, matrix, known)):
            raise ValueError(f"a whitening of shape {matrix.shape}")
        return Density(config, centre, matrix, flows, known), about["provenance"]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError, IndexError) as error:
        raise BadInput(
            f"{path} is not a density of rgz ({first_line(error)}): rgz density or rgz prior makes it"
        ) from error


def _rebuilt(config: Config, number: int, tensors: dict[str, Tensor]) -> Flow:
    flow = Flow(config)
    masks = _masks(flow)
    with torch.no_grad():
        for name, value in flow.named_parameters():
            stored = tensors[f"{number}.{name}"]
            if name in masks:
                value.zero_()
                value[masks[name]] = stored
            else:
                value.copy_(stored)
    return flow.eval().requires_grad_(False)
