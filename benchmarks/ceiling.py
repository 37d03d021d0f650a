"""What plain convolutions reach: those of a model's pass, noted when they are called, then done again by themselves."""

import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

__all__ = ["Convolution", "alone", "now", "record", "seconds"]


class Convolution(NamedTuple):
    """What the time of a convolution depends on: everything but the values."""

    images: torch.Size
    kernel: torch.Size
    stride: tuple[int, int]
    padding: tuple[int, int]
    dtype: torch.dtype
    gradients: tuple[bool, bool]  # of images and of kernel
    operations: int  # multiplications and additions, forward and backward


def record(model: nn.Module) -> tuple[list[Convolution], Callable[[], None]]:
    """A list that each convolution of the model joins when called, and a function that ends this.

    It begins anew when the whole model is called, for a step may call it several times before it takes one.
    """

    calls = []

    def given(images, kernel, _bias=None, stride=(1, 1), padding=(0, 0), *_):
        return images, kernel, stride, padding

    class Notes(TorchFunctionMode):
        """Notes every convolution, of a layer or of a part of its weights."""

        def __torch_function__(self, function, _types, arguments=(), options=None):
            output = function(*arguments, **(options or {}))
            if function is torch.conv2d:
                images, kernel, stride, padding = given(*arguments)
                gradients = (images.requires_grad, output.requires_grad)
                operations = 2 * output.numel() * kernel[0].numel() * (1 + sum(gradients))
                call = (images.shape, kernel.shape, stride, padding, output.dtype, gradients, operations)
                calls.append(Convolution(*call))
            return output

    notes = Notes()
    notes.__enter__()
    begin = model.register_forward_pre_hook(lambda *_: calls.clear())

    def stop():
        begin.remove()
        notes.__exit__(None, None, None)

    return calls, stop


def alone(call: Convolution, device: str) -> Callable[[], object]:
    """A function that does one convolution and its gradients, in the faster of the ways there are."""

    def way(product, *operands):
        operands = [x.detach().requires_grad_(wanted) for x, wanted in zip(operands, call.gradients, strict=True)]
        wanted = [x for x in operands if x.requires_grad]
        arriving = torch.randn_like(product(*operands).detach())
        forward = partial(product, *operands)
        return (lambda: torch.autograd.grad(forward(), wanted, arriving)) if wanted else forward

    images, kernel = (
        torch.randn(shape, device=device).to(call.dtype, memory_format=torch.channels_last)
        for shape in (call.images, call.kernel)
    )
    ways = [way(partial(F.conv2d, stride=call.stride, padding=call.padding), images, kernel)]
    if call.kernel[2:] == (1, 1):
        ways.append(way(F.linear, images.permute(0, 2, 3, 1).flatten(0, 2), kernel.flatten(1)))
    return min(ways, key=lambda way: min(seconds(way, device) for _ in range(4)))


def seconds(work: Callable[[], object], device: str) -> float:
    """Time of one call."""
    began = now(device)
    work()
    return now(device) - began


def now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
