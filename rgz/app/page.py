"""The page for a galaxy of one's own: the answers of :func:`rgz.inspect` as one ONNX graph, which a browser can run.

The graph takes a clipped field, as :func:`rgz.open_cutout` makes it, and the width of its pixels. It holds the modules
of this library, from the preparation to the decoder, so that the page gives the answers of ``rgz look``. Weights are
stored in half precision where that represents them exactly.
"""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from rgz import artifacts
from rgz.data.detect import FIELD
from rgz.features import codes as codefile
from rgz.features.embed import Embed, Encoder
from rgz.features.metric import Metric
from rgz.models.flow import FlowEnsemble
from rgz.tasks.classify import Classifier
from rgz.tasks.search import SearchIndex, for_search

__all__ = ["Answers", "export"]

OUTPUTS = ("code", "centroid", "coarse", "likelihood", "cosines", "prepared", "reconstruction")


class Answers(nn.Module):
    """All that :mod:`rgz.tasks.inspect` computes of a field without a host's position, as tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = Encoder.from_pretrained().embed.eval()
        self.centroid, self.coarse = (_Classes(Classifier.from_pretrained(kind)) for kind in ("centroid", "coarse"))
        self.density, self.similarity = _Density(FlowEnsemble.from_pretrained()), _Similarity()

    def forward(self, field: Tensor, pixel: Tensor) -> tuple[Tensor, ...]:
        """A field (1, H, W) and the width of its pixels, arcsec, to the tensors that :data:`OUTPUTS` names."""
        code = self.embed(field, pixel, hosts=False)  # (1, 4 D)
        square = self.embed.prepare(field, pixel)[0][0]  # (1, 1, size, size)
        rebuilt = self.embed.model.decode(self.embed.model.encode(square)[0])
        return (
            code[0],
            self.centroid(code),
            self.coarse(code),
            self.density(code),
            self.similarity(code),
            square[0, 0],
            rebuilt[0, 0],
        )


class _Classes(nn.Module):
    """:meth:`rgz.tasks.classify.Classifier.predict_proba`."""

    def __init__(self, known: Classifier):
        super().__init__()
        self.first = known.first
        for name in ("centre", "scale", "landmarks", "weights", "offset"):
            self.register_buffer(name, torch.from_numpy(getattr(known, name)).float())

    def forward(self, code: Tensor) -> Tensor:
        """Probabilities (C,) of a code (1, D)."""
        x = (code[:, self.first :] - self.centre) / self.scale
        squares = ((x - self.landmarks) ** 2).mean(1)  # (M,)
        return torch.softmax(torch.exp(-squares) @ self.weights + self.offset, 0)


class _Density(nn.Module):
    """:meth:`rgz.models.flow.FlowEnsemble.score_samples`, its standard deviation, and its percentile."""

    def __init__(self, known: FlowEnsemble):
        super().__init__()
        self.flows = nn.ModuleList(known.flows)
        for name in ("centre", "matrix", "calibration"):
            self.register_buffer(name, torch.from_numpy(getattr(known, name)).float())

    def forward(self, code: Tensor) -> Tensor:
        """Log-likelihood, its error (nats), and its percentile, (3,), of a code (1, D)."""
        members = torch.cat([flow((code - self.centre) @ self.matrix) for flow in self.flows])
        value = torch.logsumexp(members, 0) - math.log(len(self.flows))
        below, upto = (self.calibration < value).sum(), (self.calibration <= value).sum()
        percentile = 100 * (below + upto + 1) / (2 * (len(self.calibration) + 1))
        return torch.stack((value, members.std(), percentile))


class _Similarity(nn.Module):
    """The cosines of :meth:`rgz.tasks.search.SearchIndex.query` with all galaxies, of codes about the centroid."""

    def __init__(self) -> None:
        super().__init__()
        table, codes, space = for_search()
        space = SearchIndex(codes[:1], table[:1], space).about_centroid.space
        self.parts = space.parts
        known = {"centre": space.centre, "matrix": space.matrix, "codes": codes[:, -len(space.centre) :]}
        for name, value in known.items():
            self.register_buffer(name, torch.from_numpy(value).float())

    def forward(self, code: Tensor) -> Tensor:
        """Cosines (N,) of a code (1, D)."""
        both = torch.cat((code[:, -len(self.centre) :], self.codes))
        vectors = ((both - self.centre) @ self.matrix).unflatten(1, (self.parts, -1))
        vectors = nn.functional.normalize(vectors, dim=2)
        return (vectors[1:] * vectors[0]).sum((1, 2)) / self.parts


def export() -> bytes:
    """The graph of :class:`Answers` for fields of ``FIELD`` pixels, as the content of an ONNX file."""
    field = torch.zeros(1, FIELD, FIELD)
    field[0, 70:80, 60:90] = torch.rand(10, 30, generator=torch.Generator().manual_seed(0)) + 1
    with torch.no_grad():
        program = torch.onnx.export(
            Answers().eval(),
            (field, torch.tensor(1.8)),
            input_names=["field", "pixel"],
            output_names=OUTPUTS,
            opset_version=18,
            dynamo=True,
            verbose=False,
        )
    return program.model_proto.SerializeToString()
