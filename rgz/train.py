"""Training: the published recipe, made safe to interrupt.

The trainer knows one thing of a model: that calling it on a batch gives a dict with a scalar ``loss``. Batch ``n`` and the
noise of step ``n`` depend on the seed and on ``n`` alone, so a run that is stopped and resumed sees what an
uninterrupted one would have seen. Weights are averaged over steps (EMA), and it is the average that is kept.

A step whose gradient norm is not finite or is beyond a threshold is skipped, as in Child 2021 (§ B.1). Skipping can
stick: once every gradient is too large, no step ever changes anything again. That ends in an error, not in a wasted night.
"""

import copy
import csv
import io
import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from rgz import paths
from rgz.errors import BadInput, first_line
from rgz.vdvae import VDVAE

__all__ = ["Schedule", "describe", "fit", "validation_loss"]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    The learning rate rises linearly over ``warmup`` steps, then falls to zero along a cosine. ``clip`` and ``skip`` are gradient
    norms: above the first a gradient is shortened, above the second the step is left out; after ``patience`` such
    steps in a row training stops with an error.
    """

    steps: int = 4000
    batch: int = 64
    learning_rate: float = 1e-3
    warmup: int = 100
    weight_decay: float = 0.01
    ema: float = 0.998
    clip: float = 1.0
    skip: float = 100.0
    patience: int = 50
    seed: int = 0


@torch.no_grad()
def validation_loss(model: nn.Module, pixels: Tensor) -> float:
    """Mean loss over held-out images, the latents' noise the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        losses = [model(part)["loss"].item() * len(part) for part in pixels.split(128)]
    return sum(losses) / len(pixels)


@torch.no_grad()
def describe(model: VDVAE, pixels: Tensor) -> dict:
    """Bits per dimension, distortion and rate at each resolution (nats for one image) over held-out images (N, 1, H, W)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = [model(part) for part in pixels.split(128)]
    distortion, rate = (torch.cat([part[name] for part in parts]).mean(0) for name in ("distortion", "rate"))
    by_resolution = {
        str(r): round(float(rate[[level == r for level in model.levels]].sum()), 3) for r in dict.fromkeys(model.levels)
    }
    bits = float(distortion + rate.sum()) / (pixels[0].numel() * math.log(2))
    return {
        "bits_per_dimension": round(bits, 4),
        "distortion_nats": round(float(distortion), 2),
        "rate_nats": by_resolution,
    }


def _learning_rate(step: int, schedule: Schedule) -> float:
    progress = max(0, step - schedule.warmup) / max(1, schedule.steps - schedule.warmup)
    return (
        schedule.learning_rate * min(1, (step + 1) / schedule.warmup) * 0.5 * (1 + math.cos(math.pi * min(1, progress)))
    )


def fit(
    model: nn.Module,
    batch: Callable[[int], Tensor],
    schedule: Schedule,
    folder: Path,
    *,
    validation: Tensor | None = None,
    minutes: float = math.inf,
    every: int = 100,
    device: str = "cpu",
) -> tuple[nn.Module, int]:
    """Train a model, resuming from ``folder`` where it left off.

    Parameters
    ----------
    model
        Called on a batch it gives a dict with a scalar ``loss``.
    batch
        Step number to batch.
    folder
        Gets ``checkpoint.pt`` (replaced atomically every ``every`` steps) and ``log.csv``.
    minutes
        Stop in good order after so much time; a later call goes on from there.

    Returns
    -------
    model, step
        The averaged weights, and the number of steps done.

    Raises
    ------
    BadInput
        The checkpoint belongs to another model or schedule or is damaged, or the loss stays useless.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = model.to(device, memory_format=torch.channels_last)
    ema = copy.deepcopy(model).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=schedule.learning_rate, betas=(0.9, 0.95), weight_decay=schedule.weight_decay
    )
    checkpoint = folder / "checkpoint.pt"
    step = _resume(checkpoint, model, ema, optimizer, schedule) if checkpoint.exists() else 0
    end, skipped = time.monotonic() + 60 * minutes, 0
    autocast = torch.autocast(device, torch.bfloat16)
    with tqdm(total=schedule.steps, initial=step, unit="step", disable=not sys.stderr.isatty()) as bar:
        while step < schedule.steps and time.monotonic() < end:
            started = time.monotonic()
            torch.manual_seed(schedule.seed * 1_000_003 + step)
            for group in optimizer.param_groups:
                group["lr"] = _learning_rate(step, schedule)
            with autocast:
                out = model(batch(step).to(device))
            optimizer.zero_grad()
            out["loss"].backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), schedule.clip).item()
            skipped = 0 if norm < schedule.skip else skipped + 1  # false for NaN too
            if skipped > schedule.patience:
                raise BadInput(
                    f"{skipped} steps in a row had a gradient norm over {schedule.skip:g} (last: {norm:.3g}) and were "
                    f"skipped: start again from {checkpoint} with a lower learning rate or a higher threshold"
                )
            if not skipped:
                optimizer.step()
                for mean, now in zip(ema.parameters(), model.parameters(), strict=True):
                    mean.lerp_(now.detach(), 1 - min(schedule.ema, (1 + step) / (10 + step)))
            step += 1
            bar.update()
            bar.set_postfix(loss=f"{out['loss'].item():.3f}", refresh=False)
            if step % every == 0 or step == schedule.steps:
                with autocast:
                    held_out = math.nan if validation is None else validation_loss(ema, validation.to(device))
                _log(
                    folder / "log.csv",
                    step,
                    out,
                    norm,
                    skipped,
                    held_out,
                    schedule.batch / (time.monotonic() - started),
                )
                _checkpoint(checkpoint, model, ema, optimizer, schedule, step)
    _checkpoint(checkpoint, model, ema, optimizer, schedule, step)
    return ema, step


def _log(path, step, out, norm, skipped, held_out, speed):
    row = {
        "step": step,
        "loss": out["loss"].item(),
        "validation": held_out,
        "gradient_norm": norm,
        "skipped": skipped,
        "examples_per_s": speed,
    }
    row |= {name: value.detach().float().mean(0).sum().item() for name, value in out.items() if name != "loss"}
    new = not path.exists()
    with open(path, "a", newline="") as stream:
        writer = csv.DictWriter(stream, row)
        if new:
            writer.writeheader()
        writer.writerow({key: f"{value:.6g}" for key, value in row.items()})


def _checkpoint(path, model, ema, optimizer, schedule, step):
    state = {
        "step": step,
        "schedule": asdict(schedule),
        "model": model.state_dict(),
        "ema": ema.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    buffer = io.BytesIO()  # torch's own writing to disk hides a full disk behind a RuntimeError
    torch.save(state, buffer)
    with paths.atomic(path) as partial:
        partial.write_bytes(buffer.getbuffer())


def _resume(path, model, ema, optimizer, schedule) -> int:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["schedule"] != asdict(schedule):
            raise BadInput(f"{path} was made with another schedule: use the same options, or another --out folder")
        model.load_state_dict(state["model"])
        ema.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["optimizer"])
        return state["step"]
    except BadInput:
        raise
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, KeyError, EOFError and more
        raise BadInput(
            f"{path} is not a checkpoint of this model ({first_line(error)}): remove it to start anew"
        ) from error
