"""A trained model in one safetensors file: weights, configuration, preparation recipe, provenance; never a pickle."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from rgz import artifacts
from rgz.errors import as_bad_input
from rgz.models.vdvae import VDVAE
from rgz.transforms.prepare import Recipe

LARGEST = 1000  # number in a configuration or recipe


def save(path: Path, model: Any, recipe: Recipe, provenance: dict[str, Any]) -> None:
    """Write weights (half precision), configuration, recipe and provenance to one safetensors file, atomically."""
    tensors = {name: value.detach().cpu().half().contiguous() for name, value in model.state_dict().items()}
    about = {"model": type(model).__name__, "config": asdict(model.config), "recipe": asdict(recipe)}
    write(path, "rgz", tensors, about | {"provenance": provenance})


def load(path: Path, kind: type[Any] = VDVAE) -> tuple[Any, Recipe, dict[str, Any]]:
    """A model of this kind, its recipe and its provenance, rebuilt from a file of :func:`save` and nothing else.

    Raises :class:`rgz.errors.BadInput` if the file is missing or damaged, or holds no such model.
    """
    with as_bad_input(f"{path} is not a model of rgz", "fetch or train it again"):
        tensors, about = read(path, "rgz")
        if about["model"] != kind.__name__:
            raise ValueError(f"it holds a {about['model']}")
        config, recipe = kind.config_class(**frozen(about["config"])), Recipe(**frozen(about["recipe"]))
        with torch.device("meta"):  # which takes no memory
            shapes = {name: value.shape for name, value in kind(config).state_dict().items()}
        if shapes != {name: value.shape for name, value in tensors.items()} or recipe.size != config.size:
            raise ValueError("its weights or its recipe are not those of its configuration")
        model = kind(config).eval().requires_grad_(False).to(memory_format=torch.channels_last)
        model.load_state_dict({name: value.float() for name, value in tensors.items()})
        return model, recipe, dict(about["provenance"])


def write(path: Path, key: str, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Write tensors, and what is ``about`` them, to one safetensors file, atomically."""
    with artifacts.atomic(path) as partial:
        partial.write_bytes(to_bytes(tensors, metadata={key: json.dumps(about | {"sha256": _digest(tensors)})}))


def read(path: Path, key: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What :func:`write` wrote; an exception of any kind if the file is missing or damaged."""
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()[key])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
    if _digest(tensors) != about["sha256"]:
        raise ValueError("its values do not have the sha256 recorded with them")
    return tensors, about


def _digest(tensors: dict[str, Tensor]) -> str:
    return hashlib.sha256(b"".join(tensors[name].numpy().tobytes() for name in sorted(tensors))).hexdigest()


def frozen(value: Any) -> Any:
    """Numbers read from JSON, with tuples in place of lists; an exception for anything else, and for large numbers."""
    if isinstance(value, dict):
        return {key: frozen(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return tuple(map(frozen, value))
    if not 0 <= value <= LARGEST:
        raise ValueError(f"its configuration has the number {value}")
    return value
