"""Resumable training of a VDVAE.

A model is any module that returns a dict with a scalar ``loss``. Batch ``n`` and its noise depend only on the seed and
``n``, so a resumed run gives the same weights as an uninterrupted one. The final weights are an exponential moving
average (EMA).

A step whose loss or gradient norm is not finite, or whose norm exceeds a threshold, is skipped (Child 2021, § B.1). If
all gradients are too large, every step would be skipped, so training stops with an error after ``patience`` skipped
steps in a row.
"""

import copy
import csv
import io
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from rgz import artifacts
from rgz.errors import BadInput, as_bad_input
from rgz.progress import progress


@dataclass(frozen=True)
class Schedule:
    """Settings of a training. The learning rate falls to zero along a cosine after the warm-up."""

    steps: int = 6000
    batch: int = 64
    learning_rate: float = 1e-3
    warmup: int = 100  # steps over which the learning rate rises linearly
    weight_decay: float = 0.01
    ema: float = 0.998  # share of the averaged weights that a step keeps
    clip: float = 1.0  # gradient norm to which gradients are clipped
    skip: float = 1000.0  # gradient norm above which a step is skipped
    patience: int = 50  # skipped steps in a row, after which training stops with an error
    seed: int = 0


@torch.no_grad()
def describe(model: Any, pixels: Tensor) -> dict[str, Any]:
    """Loss, bits per dimension, distortion and rate at each resolution (nats per image) over images (N, 1, H, W).

    The latent noise is the same at each call.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = [model(part) for part in torch.split(pixels, 128)]
    means = _means({name: torch.cat([part[name] for part in parts]) for name in ("distortion", "rate")}, model.levels)
    bits = (means["distortion"] + means["rate"]).item() / (pixels[0].numel() * math.log(2))
    return {
        "loss": sum(part["loss"].item() * len(part["rate"]) for part in parts) / len(pixels),
        "bits_per_dimension": round(bits, 4),
        "distortion_nats": round(means["distortion"].item(), 2),
        "rate_nats": {name[5:]: round(mean.item(), 3) for name, mean in means.items() if name.startswith("rate_")},
    }


def fit(
    model: nn.Module,
    batch: Callable[[int], tuple[Tensor, ...]],
    schedule: Schedule,
    folder: Path,
    *,
    validation: Tensor | None = None,
    every: int = 100,
    device: str = "cpu",
    inputs: dict[str, Any] | None = None,
) -> Any:
    """Train a model, resuming from ``folder``; returns the averaged model.

    The model returns a dict with a scalar ``loss``. Other entries, (N,) or (N, blocks), are logged as means over the
    batch, summed over blocks, and over the blocks of each resolution where the model has ``levels``. A model with a
    method ``anneal`` is told before each step which part of the training is done; it returns whether it works in
    another way from now on.

    ``batch`` gives the arguments of the model from the number of a step. The folder gets ``checkpoint.pt`` and
    ``log.csv``, each replaced atomically every ``every`` steps. The ``inputs`` are everything else that affects the
    result, such as the hash of the training set: a run with other inputs is not resumed.

    Raises :class:`rgz.errors.BadInput` if the checkpoint is damaged or of another model or schedule, the disk is full,
    or too many steps in a row were skipped.
    """
    run = _Run(model, schedule, folder, device, inputs or {})
    logged, since = run.step, time.monotonic()
    with progress(total=schedule.steps, initial=run.step, unit="step") as bar:
        while run.step < schedule.steps:
            try:
                figures = run.advance(batch(run.step))
            except KeyboardInterrupt:
                print(f"at step {run.step}; the same command goes on from step {logged}", file=sys.stderr)
                raise
            bar.update()
            bar.set_postfix(loss=f"{figures['loss']:.3f}", refresh=False)
            if run.step % every == 0 or run.step == schedule.steps:
                with run.autocast():
                    held_out = math.nan if validation is None else describe(run.ema, validation.to(device))["loss"]
                run.record(figures, held_out, schedule.batch * (run.step - logged) / (time.monotonic() - since))
                logged, since = run.step, time.monotonic()
    return run.ema


class _Run:
    """Model, averaged model, optimizer and log of a run, resumed from its folder."""

    def __init__(self, model: nn.Module, schedule: Schedule, folder: Path, device: str, inputs: dict[str, Any]):
        self.schedule, self.folder, self.device, self.recipe = schedule, folder, device, asdict(schedule) | inputs
        self.model: nn.Module = cast(Any, model).to(device, memory_format=torch.channels_last)
        self.ema: Any = copy.deepcopy(self.model).eval().requires_grad_(False)
        options: dict[str, Any] = {"lr": schedule.learning_rate, "weight_decay": schedule.weight_decay}
        self.optimizer = torch.optim.AdamW(self.model.parameters(), **options, betas=(0.9, 0.95), fused=True)
        self.state: dict[str, Any] = {"model": self.model, "ema": self.ema, "optimizer": self.optimizer}
        self.replay: Callable[[tuple[Tensor, ...]], dict[str, Tensor]] | None = None
        path = folder / "checkpoint.pt"
        self.log = _resume(path, self.recipe, self.state) if path.exists() else []
        last = self.log[-1] if self.log else {"step": 0, "skipped": 0, "in_a_row": 0}
        self.step, self.skipped, self.in_a_row = last["step"], last["skipped"], last["in_a_row"]
        _write_log(folder / "log.csv", self.log)  # without rows newer than the checkpoint
        for leftover in folder.glob(f"{path.name}.*.partial"):  # of a run that was killed while writing
            leftover.unlink()

    def autocast(self) -> Any:
        """bfloat16 on a GPU; on processors without matrix units it is slower than float32."""
        return torch.autocast("cuda", torch.bfloat16, cache_enabled=False) if self.device == "cuda" else nullcontext()

    def advance(self, images: tuple[Tensor, ...]) -> dict[str, float]:
        """Take one step; returns batch means and the gradient norm."""
        for group in self.optimizer.param_groups:
            group["lr"] = _learning_rate(self.step, self.schedule)
        torch.manual_seed(self.schedule.seed * 1_000_003 + self.step)
        if hasattr(self.model, "anneal"):
            done = self.step / self.schedule.steps
            self.ema.anneal(done)
            if cast(Any, self.model).anneal(done):
                self.replay = None
        if self.device == "cuda":
            self.replay = self.replay or self._captured(images)
            means = self.replay(images)
        else:
            means = self._backward(images)
        figures = dict(zip(means, torch.stack([*means.values()]).tolist(), strict=True))
        self._update(figures["loss"], figures["gradient_norm"])
        return figures

    def _backward(self, images: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Gradients of a batch; returns batch means and the gradient norm."""
        self.optimizer.zero_grad()
        with self.autocast():
            out = self.model(*images)
        out["loss"].backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.schedule.clip)
        return _means(out, getattr(self.model, "levels", ())) | {"gradient_norm": norm}

    def _captured(self, images: tuple[Tensor, ...]) -> Callable[[tuple[Tensor, ...]], dict[str, Tensor]]:
        """:meth:`_backward` as a CUDA graph, which spares the launch of thousands of kernels a step."""
        given = tuple(part.clone() for part in images)
        beside: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(3):
                self._backward(given)
        torch.cuda.current_stream().wait_stream(beside)
        self.optimizer.zero_grad()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = self._backward(given)

        def replay(images: tuple[Tensor, ...]) -> dict[str, Tensor]:
            for mine, part in zip(given, images, strict=True):
                mine.copy_(part)
            graph.replay()
            return found

        return replay

    def _update(self, loss: float, norm: float) -> None:
        """Update weights and averages, unless the loss or the gradient norm is not finite or too large."""
        good = math.isfinite(loss) and norm < self.schedule.skip  # false for NaN too
        if good:
            self.optimizer.step()
            keep = min(self.schedule.ema, (1 + self.step) / (10 + self.step))
            with torch.no_grad():
                torch._foreach_lerp_(list(self.ema.parameters()), list(self.model.parameters()), 1 - keep)
        self.step, self.skipped = self.step + 1, self.skipped + (not good)
        self.in_a_row = 0 if good else self.in_a_row + 1
        if self.in_a_row > self.schedule.patience:
            raise BadInput(
                f"{self.in_a_row} steps in a row were skipped, the last of them step {self.step} with loss {loss:.3g} "
                f"and gradient norm {norm:.3g} (threshold {self.schedule.skip:g}): start again in a new folder with a "
                "lower learning rate, a longer warm-up or, if all values were finite, a higher threshold"
            )

    def record(self, figures: dict[str, float], held_out: float, speed: float) -> None:
        """Write the log, with a new row, and the checkpoint: the complete state of the run."""
        row = {"step": self.step, "loss": figures["loss"], "validation": held_out}
        row |= {"gradient_norm": figures["gradient_norm"], "skipped": self.skipped, "in_a_row": self.in_a_row}
        self.log.append(row | {"examples_per_s": speed} | {k: v for k, v in figures.items() if k not in row})
        _write_log(self.folder / "log.csv", self.log)
        parts = {name: part.state_dict() for name, part in self.state.items()}
        buffer = io.BytesIO()  # writing by torch reports a full disk as a RuntimeError
        torch.save({"schedule": self.recipe, "log": self.log} | parts, buffer)
        with artifacts.atomic(self.folder / "checkpoint.pt") as partial:
            partial.write_bytes(buffer.getbuffer())


def _learning_rate(step: int, schedule: Schedule) -> float:
    done = max(0, step - schedule.warmup) / max(1, schedule.steps - schedule.warmup)
    rise = min(1, (step + 1) / max(1, schedule.warmup))
    return schedule.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * min(1, done)))


def _means(out: dict[str, Tensor], levels: Sequence[int]) -> dict[str, Tensor]:
    """Means over the batch of each output, summed over blocks, and over the blocks of each level."""
    means = {}
    for name, value in out.items():
        mean = value.detach().float().mean(0) if value.ndim else value.detach().float()
        means[name] = mean.sum()
        if mean.ndim and len(mean) == len(levels):
            blocks = Counter(levels)  # in order of level, as the columns are
            of_level = torch.split(mean, [*blocks.values()])
            means |= {f"{name}_{r}": m.sum() for r, m in zip(blocks, of_level, strict=True)}
    return means


def _write_log(path: Path, log: list[dict[str, Any]]) -> None:
    with artifacts.atomic(path) as partial, open(partial, "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerows(log[:1])
        writer.writerows([f"{v:.6g}" if isinstance(v, float) else v for v in row.values()] for row in log)


def _resume(path: Path, recipe: dict[str, Any], state: dict[str, Any]) -> list[dict[str, Any]]:
    """Load a checkpoint into model, averaged model and optimizer; returns the log so far."""
    with as_bad_input(f"{path} is not a checkpoint of this model", "remove it to start again"):
        found = torch.load(path, map_location="cpu", weights_only=True)
        was = found["schedule"]
        changed = [f"{key} was {was.get(key)}, now {value}" for key, value in recipe.items() if was.get(key) != value]
        if changed:
            raise BadInput(
                f"{path} was made with another schedule ({', '.join(changed)}): use the same options, or another folder"
            )
        for name, part in state.items():
            part.load_state_dict(found[name])
        log: list[dict[str, Any]] = found["log"]
        return log
