"""Training: the published recipe, made safe to interrupt and to spread over processes.

The trainer knows one thing of a model: that calling it on a batch gives a dict with a scalar ``loss``. A batch is worked
through in equal parts, one after another or one in each process, and their gradients are averaged. Batch ``n`` depends on the
seed and on ``n`` alone, the noise of its part ``p`` on the seed, ``n`` and ``p``. So a run that is stopped and resumed sees
what an uninterrupted one would have seen, and two processes see what one process sees that takes two parts in turn. Weights
are averaged over steps (EMA), and it is the average that is kept.

A step whose loss or gradient norm is not finite, or whose norm is beyond a threshold, is skipped, as in Child 2021 (§ B.1).
Skipping can stick: once every gradient is too large, no step ever changes anything again. That ends in an error, not in a
wasted night.
"""

import copy
import csv
import io
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, distributed, nn

from rgz import artifacts
from rgz.errors import BadInput, first_line
from rgz.models.vdvae import VDVAE
from rgz.progress import progress

__all__ = ["Schedule", "describe", "fit", "processes", "validation_loss"]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    The learning rate rises linearly over ``warmup`` steps, then falls to zero along a cosine. ``clip`` and ``skip`` are gradient
    norms: above the first a gradient is shortened, above the second the step is left out; after ``patience`` such
    steps in a row training stops with an error. ``batch`` images make a step, however many processes share them;
    each process takes its share in ``accumulate`` parts, so as to fit into memory.
    """

    steps: int = 6000
    batch: int = 64
    accumulate: int = 1
    learning_rate: float = 1e-3
    warmup: int = 100
    weight_decay: float = 0.01
    ema: float = 0.998
    clip: float = 1.0
    skip: float = 1000.0
    patience: int = 50
    seed: int = 0


def processes() -> tuple[int, int]:
    """Rank of this process and number of processes, as ``torchrun`` set them; (0, 1) where it was not used."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


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
    means = _means({name: torch.cat([part[name] for part in parts]) for name in ("distortion", "rate")}, model.levels)
    bits = (means["distortion"] + means["rate"]).item() / (pixels[0].numel() * math.log(2))
    return {
        "bits_per_dimension": round(bits, 4),
        "distortion_nats": round(means["distortion"].item(), 2),
        "rate_nats": {str(r): round(means[f"rate_{r}"].item(), 3) for r in dict.fromkeys(model.levels)},
    }


def _learning_rate(step: int, schedule: Schedule) -> float:
    progress = max(0, step - schedule.warmup) / max(1, schedule.steps - schedule.warmup)
    rise = min(1, (step + 1) / max(1, schedule.warmup))
    return schedule.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * min(1, progress)))


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
    inputs: dict | None = None,
    tensorboard: bool = False,
    look: Callable[[nn.Module, int], None] | None = None,
) -> tuple[nn.Module, int]:
    """Train a model, resuming from ``folder`` where it left off.

    Under ``torchrun`` every process calls it with the same arguments and the same initial weights, and takes its share
    of each batch; the first alone writes and shows. Noise belongs to a part of a batch, so what decides the result is
    processes × ``accumulate``, not how it is split.

    Parameters
    ----------
    model
        Called on a batch it gives a dict with a scalar ``loss``. Other entries, (N,) or (N, blocks), are logged as
        means over the batch, summed over blocks, and over the blocks of each resolution where the model has ``levels``.
    batch
        Step number to batch.
    folder
        Gets ``checkpoint.pt`` and ``log.csv``, each replaced atomically every ``every`` steps.
    minutes
        Stop in good order after so much time; a later call goes on from there.
    inputs
        What else decides the result, the hash of the training set for one: a run with others is not gone on with.
    tensorboard
        Write the log for TensorBoard too, into ``folder/tensorboard``.
    look
        Called with the averaged model and the step whenever a row is logged, say to draw a figure.

    Returns
    -------
    model, step
        The averaged weights, and the number of steps done.

    Raises
    ------
    BadInput
        The checkpoint belongs to another model or schedule or is damaged, the disk is full, the batch cannot be shared
        out evenly, or the loss stays useless.
    """
    rank, world = processes()
    parts = world * schedule.accumulate
    if schedule.accumulate < 1 or schedule.batch % parts:
        raise BadInput(
            f"a batch of {schedule.batch} cannot be worked in {world} × {schedule.accumulate} equal parts (processes × "
            "accumulate): choose a batch that is a multiple of both"
        )
    if tensorboard and find_spec("tensorboard") is None:
        raise BadInput("TensorBoard is not installed: pip install tensorboard, or train without it")
    mine = range(rank * schedule.accumulate, (rank + 1) * schedule.accumulate)
    with _group(device, world):
        model = model.to(device, memory_format=torch.channels_last)
        ema = copy.deepcopy(model).eval().requires_grad_(False)
        optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=schedule.learning_rate,
            betas=(0.9, 0.95),
            weight_decay=schedule.weight_decay,
            fused=True,
        )
        gradient = _one_vector(model)
        checkpoint, recipe = folder / "checkpoint.pt", asdict(schedule) | {"accumulate": parts} | (inputs or {})
        state = {"model": model, "ema": ema, "optimizer": optimizer}
        log = _resume(checkpoint, recipe, state) if checkpoint.exists() else []
        step, skipped, in_a_row = (log[-1][key] for key in ("step", "skipped", "in_a_row")) if log else (0, 0, 0)
        if rank == 0:
            _write_log(folder / "log.csv", log)  # rows that the checkpoint does not know are gone
            for leftover in folder.glob(f"{checkpoint.name}.*.partial"):  # of a run that was killed while writing
                leftover.unlink()
        autocast = torch.autocast(device, torch.bfloat16)
        board = (
            _tensorboard(folder / "tensorboard", step) if tensorboard and rank == 0 else nullcontext(lambda row: None)
        )
        with board as add_row, progress(total=schedule.steps, initial=step, unit="step", disable=rank > 0) as bar:
            logged, since = step, time.monotonic()
            end, going = since + 60 * minutes, minutes > 0
            while step < schedule.steps and going:
                for group in optimizer.param_groups:
                    group["lr"] = _learning_rate(step, schedule)
                gradient.zero_()
                pieces, noise = batch(step).tensor_split(parts), schedule.seed * 1_000_003 + step * parts
                means = _work(model, {noise + part: pieces[part] for part in mine}, parts, autocast)
                late = rank == 0 and time.monotonic() >= end  # one clock, so that all stop at the same step
                figures = torch.stack([*means.values(), torch.tensor(float(late), device=device)])
                if world > 1:
                    distributed.all_reduce(gradient)
                    distributed.all_reduce(figures)
                norm = nn.utils.clip_grad_norm_(model.parameters(), schedule.clip)
                *figures, late, norm = torch.cat((figures, norm[None])).tolist()
                figures = dict(zip(means, figures, strict=True))
                good = math.isfinite(figures["loss"]) and norm < schedule.skip  # false for NaN too
                if good:
                    optimizer.step()
                    for mean, now in zip(ema.parameters(), model.parameters(), strict=True):
                        mean.lerp_(now.detach(), 1 - min(schedule.ema, (1 + step) / (10 + step)))
                step, skipped, in_a_row = step + 1, skipped + (not good), 0 if good else in_a_row + 1
                if in_a_row > schedule.patience:
                    raise BadInput(
                        f"{in_a_row} steps in a row were skipped, the last of them step {step} with loss "
                        f"{figures['loss']:.3g} and gradient norm {norm:.3g} (threshold {schedule.skip:g}): train anew in "
                        "another folder with a lower learning rate, a longer warm-up or, if all was finite, a higher threshold"
                    )
                going = not late
                bar.update()
                bar.set_postfix(loss=f"{figures['loss']:.3f}", refresh=False)
                if rank == 0 and (step % every == 0 or step == schedule.steps or not going):
                    with autocast:
                        held_out = math.nan if validation is None else validation_loss(ema, validation.to(device))
                    speed = schedule.batch * (step - logged) / (time.monotonic() - since)
                    row = {"step": step, "loss": figures.pop("loss"), "validation": held_out, "gradient_norm": norm}
                    row |= {"skipped": skipped, "in_a_row": in_a_row, "examples_per_s": speed}
                    log.append(row | figures)
                    _write_log(folder / "log.csv", log)
                    _write_checkpoint(checkpoint, recipe, state, log)
                    add_row(log[-1])
                    if look:
                        look(ema, step)
                    logged, since = step, time.monotonic()
    return ema, step


@contextmanager
def _group(device: str, world: int):
    """Join the processes that torchrun started, unless the caller has; leave when all have come to the end."""
    joins = world > 1 and not distributed.is_initialized()
    if joins and device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if joins:
        distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield
        if world > 1:
            distributed.barrier()  # the first has written its last checkpoint
    finally:
        if joins:
            distributed.destroy_process_group()


def _one_vector(model: nn.Module) -> Tensor:
    """The gradients of all parameters as one vector, each gradient a view into it."""
    parameters = list(model.parameters())
    vector = torch.zeros(sum(p.numel() for p in parameters), device=parameters[0].device)
    for parameter, piece in zip(parameters, vector.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = piece.as_strided(parameter.shape, parameter.stride())
    return vector


def _work(model: nn.Module, pieces: dict[int, Tensor], parts: int, autocast) -> dict[str, Tensor]:
    """Add the gradients of some of a batch's ``parts``, given by the seeds of their noise; returns their share of the means."""
    total = {}
    for seed, images in pieces.items():
        torch.manual_seed(seed)
        with autocast:
            out = model(images.to(next(model.parameters()).device))
        (out["loss"] / parts).backward()
        means = _means(out, getattr(model, "levels", ()))
        total = {name: total.get(name, 0) + mean / parts for name, mean in means.items()}
    return total


def _means(out: dict[str, Tensor], levels: Sequence[int]) -> dict[str, Tensor]:
    """A model's answer in single numbers: means over the batch, summed over blocks and over the blocks of each level."""
    means = {}
    for name, value in out.items():
        mean = value.detach().float().mean(0) if value.ndim else value.detach().float()
        means[name] = mean.sum()
        if mean.ndim and len(mean) == len(levels):
            blocks = Counter(levels)  # in order of level, as the columns are
            means |= {f"{name}_{r}": m.sum() for r, m in zip(blocks, mean.split([*blocks.values()]), strict=True)}
    return means


@contextmanager
def _tensorboard(folder: Path, step: int):
    """Give a function that adds a row of the log; rows after ``step``, left by a run that was killed, are hidden."""
    from torch.utils.tensorboard import SummaryWriter

    def add_row(row: dict):
        try:
            for name, value in row.items():
                if name != "step":
                    writer.add_scalar(name, value, row["step"])
            writer.flush()
        except OSError as error:
            raise BadInput(f"cannot write {folder} ({error.strerror or error}): free some space") from error

    writer = SummaryWriter(folder, purge_step=step + 1)
    try:
        yield add_row
    finally:
        with suppress(OSError):
            writer.close()


def _write_log(path: Path, log: list[dict]):
    with artifacts.atomic(path) as partial, open(partial, "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerows(log[:1])
        writer.writerows([f"{v:.6g}" if isinstance(v, float) else v for v in row.values()] for row in log)


def _write_checkpoint(path: Path, recipe: dict, state: dict, log: list[dict]):
    """All that the steps to come depend on; the last row of the log says where the run stands."""
    buffer = io.BytesIO()  # torch's own writing to disk hides a full disk behind a RuntimeError
    torch.save({"schedule": recipe, "log": log} | {name: part.state_dict() for name, part in state.items()}, buffer)
    with artifacts.atomic(path) as partial:
        partial.write_bytes(buffer.getbuffer())


def _resume(path: Path, recipe: dict, state: dict) -> list[dict]:
    """Load a checkpoint into model, average and optimizer; returns the log so far."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        was = found["schedule"]
        changed = [f"{key} was {was.get(key)}, now {value}" for key, value in recipe.items() if was.get(key) != value]
        if changed:
            raise BadInput(
                f"{path} was made with another schedule ({', '.join(changed)}; accumulate is counted over all processes): "
                "use the same options, or another folder"
            )
        for name, part in state.items():
            part.load_state_dict(found[name])
        return found["log"]
    except BadInput:
        raise
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, KeyError, EOFError and more
        raise BadInput(
            f"{path} is not a checkpoint of this model ({first_line(error)}): remove it to start anew"
        ) from error
