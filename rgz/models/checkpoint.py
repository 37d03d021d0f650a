"""A trained model as one file: weights, configuration, recipe and provenance, in safetensors, never a pickle."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from rgz import artifacts
from rgz.errors import BadInput, first_line
from rgz.models import vae
from rgz.models.vdvae import VDVAE, Config
from rgz.transforms import prepare

__all__ = ["MODELS", "digest", "load", "save"]


MODELS = {Config: VDVAE, vae.Config: vae.PlainVAE}
"""Configuration to the model that is built from it."""


def save(path: Path, model: nn.Module, recipe: prepare.Recipe, provenance: dict):
    """Write weights (half precision), configuration, recipe and provenance to one safetensors file, atomically."""
    tensors = {name: value.detach().half().contiguous() for name, value in model.state_dict().items()}
    about = {
        "model": type(model).__name__,
        "config": asdict(model.config),
        "recipe": asdict(recipe),
        "provenance": provenance,
        "sha256": digest(tensors),
    }
    with artifacts.atomic(path) as partial:
        partial.write_bytes(to_bytes(tensors, metadata={"rgz": json.dumps(about)}))


def digest(tensors: dict[str, Tensor]) -> str:
    """sha256 of all values in order of name, so that a flipped bit among the weights is noticed."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()


def _frozen(value):
    """JSON's lists as the tuples that they were."""
    if isinstance(value, dict):
        return {key: _frozen(entry) for key, entry in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def load(path: Path) -> tuple[nn.Module, prepare.Recipe, dict]:
    """A model, its recipe and its provenance, rebuilt from a file of :func:`save` and nothing else.

    Raises
    ------
    BadInput
        The file is missing, damaged, or no model of this library.
    """
    try:
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["rgz"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
        if digest(tensors) != about["sha256"]:
            raise BadInput(f"{path} is damaged, its weights do not have their own sha256: fetch it again")
        (kind,) = (kind for kind, model in MODELS.items() if model.__name__ == about["model"])
        model = (
            MODELS[kind](kind(**_frozen(about["config"])))
            .eval()
            .requires_grad_(False)
            .to(memory_format=torch.channels_last)
        )
        model.load_state_dict({name: value.float() for name, value in tensors.items()})
        return model, prepare.Recipe(**about["recipe"]), about["provenance"]
    except BadInput:
        raise
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise BadInput(f"{path} is not a model of rgz ({first_line(error)}): fetch or train it again") from error
