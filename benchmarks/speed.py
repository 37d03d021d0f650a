"""Speed of the network, compared with that of its convolutions alone, which is an upper limit.

In addition to convolutions, a VDVAE has GELUs, casts, noise, two densities, the optimizer and the average of the
weights. For each preset this script records every convolution of one step of ``train.fit`` or one batch of
``latent.full_codes``, and times these alone: the same shapes, precision and memory layout, with gradients where they
were computed. A 1×1 convolution may also be a matrix product; the faster of the two counts. This gives the upper limit.
Network and convolutions are timed alternately, so that a slowdown of the machine affects both. Their ratio is the
median over the repetitions, ± half the interquartile range. Each measurement runs in its own process, whose largest
resident size is the peak memory (on CUDA, the largest allocation).

    python benchmarks/speed.py --presets tiny deep --seconds 30
"""

import argparse
import io
import json
import os
import platform
import re
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stderr, suppress
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from ceiling import alone, now, record, seconds
from torch import nn

from rgz import artifacts
from rgz.models import train
from rgz.models.vdvae import PRESETS, VDVAE
from studies import latent, simulate

BATCH = {"tiny": 64, "deep": 64}  # images of a step, for a machine of 16 GB
TURNS = 5  # at least
ROW = "{:<11}{:>13}{:>7}{:>13}{:>14}{:>14}{:>14}{:>16}"


class Enough(Exception):
    """No more passes, no more steps."""


def turns(model: nn.Module, device: str, budget: float, result: dict) -> Iterator[None]:
    """Each time it is asked, its user lets the network do one pass; before most of them the ceiling is timed."""
    calls, stop = record(model)
    yield
    stop()
    began = now(device)
    yield
    expected = 2 * TURNS * (now(device) - began)
    result["peak_memory_mb"] = round(_peak_bytes(device) / 1e6)
    if expected > 3 * budget:
        result["skipped"] = f"{TURNS} turns would take {expected:.0f} s, more than three times --seconds {budget:g}"
        return
    ways = {call: alone(call, device) for call in dict.fromkeys(calls)}
    pairs, end = [], time.monotonic() + budget
    while len(pairs) < TURNS or time.monotonic() < end:
        ceiling = seconds(lambda: [ways[call]() for call in calls], device)
        began = now(device)
        yield
        pairs.append((now(device) - began, ceiling))
    network, ceiling = np.array(pairs).T
    low, ratio, high = np.percentile(ceiling / network, (25, 50, 75))
    images, usual, best = calls[0].images[0], float(np.median(network)), float(np.median(ceiling))
    result |= {
        "precision": str(calls[0].dtype).removeprefix("torch."),
        "images_per_s": images / usual,
        "ceiling_images_per_s": images / best,
        "ceiling_gflop_per_s": sum(call.operations for call in calls) / best / 1e9,
        "of_ceiling": float(ratio),
        "half_interquartile_range": float(high - low) / 2,
        "turns": len(pairs),
    }


def measure(name: str, kind: str, batch: int, device: str, budget: float) -> dict:
    """One preset's ``"train"`` or ``"encode"``."""
    config, result = PRESETS[name], {"batch": batch}
    torch.manual_seed(0)
    fields = simulate.sources(batch).images
    middle = slice((fields.shape[-1] - config.size) // 2, (fields.shape[-1] + config.size) // 2)
    pixels = np.ascontiguousarray(fields[:, middle, middle])
    images = torch.from_numpy(pixels[:, None])
    model = VDVAE(config).to(device, memory_format=torch.channels_last)
    model.anneal = lambda done: False  # all latents from the first step, as at the end of a training
    result["parameters"] = sum(p.numel() for p in model.parameters())
    passes = turns(model, device, budget, result)
    bars = redirect_stderr(io.StringIO())  # of progress, which belong to no table
    if kind == "train":
        schedule = train.Schedule(steps=sys.maxsize, batch=batch, patience=0)  # a step left out would be too cheap
        each = {"every": sys.maxsize, "device": device}
        given = (images.to(device),)

        def batch(_step):
            if next(passes, Enough) is Enough:
                raise Enough
            return given

        with tempfile.TemporaryDirectory() as folder, bars, suppress(Enough):
            train.fit(model, batch, schedule, Path(folder), **each)
    else:
        model.eval().requires_grad_(False)
        with bars:
            for _ in passes:
                latent.full_codes(model, pixels) if device == "cpu" else model.encode(images.to(device))
    return result


def _peak_bytes(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def machine(device: str) -> dict:
    """The processor, its threads, and what a large square matrix product reaches on it, for orientation."""
    side, speeds = 2048 if device == "cpu" else 8192, {}
    for dtype in (torch.bfloat16, torch.float32):
        a = torch.randn(side, side, device=device, dtype=dtype)
        best = min(seconds(lambda a=a: a @ a, device) for _ in range(6))
        speeds[str(dtype).removeprefix("torch.")] = round(2 * side**3 / best / 1e9)
    processor = platform.processor() or platform.machine()
    with suppress(OSError, TypeError):
        processor = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())[1]
    if device == "cuda":
        processor = torch.cuda.get_device_name()
    return {"processor": processor, "threads": torch.get_num_threads(), "matmul_gflop_per_s": speeds}


def apart(function: Callable[..., dict], *arguments) -> dict:
    """The function's answer from a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except (BrokenProcessPool, torch.cuda.OutOfMemoryError):
            return {"skipped": "it ended for want of memory"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=list(PRESETS), help="all when left out")
    parser.add_argument("--seconds", type=float, default=20, help="of turns in each measurement, five turns at least")
    parser.add_argument("--batch", type=int, help=f"images of a step; when left out, {BATCH}")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, help="as many as torch likes when left out")
    parser.add_argument("--out", type=Path, default=Path("runs/bench.json"), help="JSON file to write")
    options = parser.parse_args()
    if options.threads:
        os.environ["OMP_NUM_THREADS"] = str(options.threads)  # of the processes to come
    about = artifacts.describe(device=options.device, **apart(machine, options.device), presets={})
    print(about["processor"], f"{about['threads']} threads", f"torch {about['torch']}", sep=", ")
    print("a square matmul, GFLOP/s:", about["matmul_gflop_per_s"])
    heads = ("preset", "parameters", "batch", "train img/s", "% of ceiling", "encode img/s", "% of ceiling")
    print(ROW.format(*heads, "peak memory MB"), flush=True)
    for name in options.presets:
        done, cells = about["presets"].setdefault(name, {}), []
        for kind in ("train", "encode"):
            arguments = (name, kind, options.batch or BATCH[name], options.device, options.seconds)
            done[kind] = it = apart(measure, *arguments)
            if "skipped" in it:
                break
            spread = f"{100 * it['of_ceiling']:.0f} ± {100 * it['half_interquartile_range']:.0f}"
            cells += [f"{it['images_per_s']:.4g}", spread]
        if "skipped" in it:
            print(f"{name:<11} left out: {it['skipped']}", flush=True)
        else:
            size, peak = f"{it['parameters']:,}", done["train"]["peak_memory_mb"]
            print(ROW.format(name, size, it["batch"], *cells, peak), flush=True)
    with artifacts.atomic(options.out) as partial_file:
        partial_file.write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
