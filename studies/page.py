"""The book's pages that compute in the browser: the explorer of all samples, and a page for a galaxy of one's own.

The answers of :func:`rgz.inspect` are exported as one ONNX graph. It takes a clipped field, as :mod:`rgz.data.cutout`
makes it, and the width of its pixels. It holds the modules of the library, from the preparation to the decoder, so that
the page gives the answers of ``rgz look``. Weights are stored in half precision where that represents them exactly. The
page lies beside the explorer (:mod:`rgz.app.explorer`) and runs the graph with ONNX Runtime Web, which is downloaded
when the page is built. Without npm or ONNX, the explorer is built alone. ``python -m studies.page --out FOLDER`` builds
both in two minutes.
"""

import argparse
import gzip
import io
import json
import logging
import math
import shutil
import subprocess
import sys
import tarfile
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from astropy.io import fits
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from rgz import artifacts
from rgz.app import explorer
from rgz.data import cutout, datasets, detect
from rgz.data.detect import FIELD
from rgz.errors import BadInput, as_bad_input
from rgz.features.embed import Encoder
from rgz.models.flow import FlowEnsemble
from rgz.tasks import inspect, search
from rgz.tasks.classify import Classifier
from rgz.tasks.generate import generate
from rgz.tasks.search import SearchIndex
from rgz.transforms import fields
from rgz.transforms.prepare import FRAMES
from studies import figures, results, simulate

SOURCE = Path(__file__).resolve().parents[1] / "book" / "look"  # hand-written files of the page
LARGEST, LARGEST_MAP = 25_000_000, 3_000_000  # bytes, for all that the page and the explorer load
SEED = 0
RUNTIME = "onnxruntime-web", "1.30.0"
RUNTIME_SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
RUNTIME_FILES = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
OUTPUTS = ("code", "centroid", "coarse", "likelihood", "cosines", "prepared", "reconstruction")


class Answers(nn.Module):
    """All that :mod:`rgz.tasks.inspect` computes of a field without a host's position, as tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = Encoder.from_pretrained()
        self.centroid, self.coarse = (_Classes(Classifier.from_pretrained(kind)) for kind in ("centroid", "coarse"))
        self.density = _Density(FlowEnsemble.from_pretrained())
        self.similarity = _Similarity(SearchIndex.from_pretrained().about_centroid)

    def forward(self, field: Tensor, pixel: Any) -> tuple[Tensor, ...]:
        """A field (1, H, W) and the width of its pixels, arcsec, to a tensor for each name of ``OUTPUTS``."""
        squares, poses = self.embed.prepare(field, pixel, FRAMES)  # (frames, 1, 1, size, size)
        code, square = self.embed.encode(squares[1:], poses[1:]), squares[0]  # (1, 4 D)
        rebuilt = self.embed.model.reconstruct(square)
        answers = (part(code) for part in (self.centroid, self.coarse, self.density, self.similarity))
        return code[0], *answers, square[0, 0], rebuilt[0, 0]


class _Part(nn.Module):
    """Computes an answer from a code (1, D), with arrays of the library as buffers in single precision."""

    centre: Tensor
    scale: Tensor
    landmarks: Tensor
    weights: Tensor
    offset: Tensor
    matrix: Tensor
    calibration: Tensor
    vectors: Tensor

    def __init__(self, **arrays: NDArray[Any]):
        super().__init__()
        for name, value in arrays.items():
            self.register_buffer(name, torch.from_numpy(value).float())


class _Classes(_Part):
    """:meth:`rgz.tasks.classify.Classifier.predict_proba`, (C,)."""

    def __init__(self, known: Classifier):
        arrays = {name: value for name, value in vars(known).items() if isinstance(value, np.ndarray)}
        super().__init__(**arrays)
        self.first = known.first

    def forward(self, code: Tensor) -> Tensor:
        x = (code[:, self.first :] - self.centre) / self.scale
        kernels = torch.exp(-((x - self.landmarks) ** 2).mean(1))  # (M,)
        return torch.softmax(kernels @ self.weights + self.offset, 0)


class _Density(_Part):
    """:meth:`rgz.models.flow.FlowEnsemble.score_samples`, its standard deviation (nats) and its percentile, (3,)."""

    def __init__(self, known: FlowEnsemble):
        super().__init__(centre=known.centre, matrix=known.matrix, calibration=known.about_centroid)
        self.flows = nn.ModuleList(known.flows)

    def forward(self, code: Tensor) -> Tensor:
        members = torch.cat([flow((code - self.centre) @ self.matrix) for flow in self.flows])
        value = torch.logsumexp(members, 0) - math.log(len(members))
        below, upto = (self.calibration < value).sum(), (self.calibration <= value).sum()
        return torch.stack((value, members.std(), 100 * (below + upto + 1) / (2 * (len(self.calibration) + 1))))


class _Similarity(_Part):
    """The cosines of :meth:`rgz.tasks.search.SearchIndex.neighbours` with all N galaxies of an index, (N,)."""

    def __init__(self, index: SearchIndex):
        space = index.space
        super().__init__(centre=space.centre, matrix=space.matrix, vectors=index.vectors.astype(np.float16))
        self.parts = space.parts

    def forward(self, code: Tensor) -> Tensor:
        parts = ((code[0, -len(self.centre) :] - self.centre) @ self.matrix).reshape(self.parts, -1)
        return torch.mv(self.vectors, nn.functional.normalize(parts, dim=1).flatten()) / math.sqrt(self.parts)


def export() -> bytes:
    """The graph of :class:`Answers` for fields of ``FIELD`` pixels, as the content of an ONNX file."""
    import onnx
    import onnxruntime

    field = torch.zeros(1, FIELD, FIELD)
    field[0, 70:80, 60:90] = torch.rand(10, 30, generator=torch.Generator().manual_seed(SEED)) + 1
    settings: dict[str, Any] = {"dynamo": True, "opset_version": 18, "optimize": False, "verbose": False}
    names: dict[str, Any] = {"input_names": ["field", "pixel"], "output_names": OUTPUTS}
    print("exporting the network, which takes a minute", file=sys.stderr)
    logging.disable(logging.WARNING)  # of the exporter, about itself
    try:
        with torch.no_grad(), warnings.catch_warnings(action="ignore"):
            program: Any = torch.onnx.export(Answers().eval(), (field, torch.tensor(1.8)), **names, **settings)
    finally:
        logging.disable(logging.NOTSET)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC  # for any processor
    options.log_severity_level = 3
    with TemporaryDirectory() as folder:  # simplified here, the graph loads a third faster in a browser
        options.optimized_model_filepath = f"{folder}/graph.onnx"
        onnxruntime.InferenceSession(program.model_proto.SerializeToString(), options)
        return halved(onnx.load(options.optimized_model_filepath))


def halved(model: Any) -> bytes:
    """The content of an ONNX model, with weights in half precision where that represents them exactly."""
    import onnx

    casts = []
    for tensor in model.graph.initializer:
        value, name = onnx.numpy_helper.to_array(tensor), tensor.name
        with np.errstate(over="ignore"):
            half = value.astype(np.float16)
        if value.dtype == np.float32 and value.size > 64 and np.array_equal(half, value):
            tensor.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}.half"))
            casts.append(onnx.helper.make_node("Cast", [tensor.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return bytes(model.SerializeToString())


def library() -> dict[str, Any]:
    """Numbers and sentences of the library that the page needs, by their names."""
    names = {
        cutout: "ARTEFACTS LARGEST COARSEST NARROWEST SENTINEL CENTRED NOISY NOISY_MARGIN CLIPPED BLANK FAINT WIDEST "
        "FIRST_PIXEL",
        inspect: "COARSE BARELY ANOMALOUS UNLIKE BEAM NARROWER POINT SCATTER FAINTEST REASONS BASIS PEAK RADIUS",
        detect: "FIELD",
        fields: "SMALLEST_ISLAND",
        search: "SAME",
    }
    found = {name: getattr(module, name) for module, all_ in names.items() for name in all_.split()}
    kinds = {kind: Classifier.from_pretrained(kind) for kind in ("centroid", "coarse")}
    classes = {kind: {"names": one.classes, "threshold": one.threshold} for kind, one in kinds.items()}
    return found | {"classes": classes}


def examples() -> list[bytes]:
    """FITS files of five simulated galaxies, and of five that the network generated, with noise of rms 20."""
    rng = np.random.default_rng(SEED)
    images = [simulate.source(("FRI", "FRII")[i % 2], rng, FIELD, snr=60) for i in range(5)]
    for made in generate(5, seed=SEED):
        sky = np.pad((made / 255.0) ** 2, (FIELD - len(made)) // 2)
        noise = ndimage.gaussian_filter(rng.normal(size=sky.shape), 1.3)
        images.append(60 * sky + noise / noise.std())
    files = []
    for image in images:
        stream = io.BytesIO()
        header = detect.north_up(image.shape, simulate.PIXEL, 0.0, 0.0).to_header()
        fits.PrimaryHDU(np.rint(20 * image).astype(np.int16), header).writeto(stream)
        files.append(stream.getvalue())
    return files


def runtime() -> dict[str, bytes]:
    """The files of ONNX Runtime Web, from the package in the cache, where npm puts it; its sha256 is checked.

    Raises
    ------
    BadInput
        npm is not installed or cannot download the package, or the package has another hash.
    """
    name, version = RUNTIME
    path = artifacts.cache() / f"{name}-{version}.tgz"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        command = [shutil.which("npm") or "npm", "pack", f"{name}@{version}", "--pack-destination", str(path.parent)]
        with as_bad_input(f"{path} is missing, and npm cannot download it", "install npm, or put the file there"):
            subprocess.run(command, check=True, capture_output=True, timeout=600)
    if artifacts.sha256(path) != RUNTIME_SHA256:
        raise BadInput(f"{path} does not have the sha256 {RUNTIME_SHA256[:12]}…: remove it, and it is downloaded again")
    with tarfile.open(path) as package:
        files = {one: package.extractfile(f"package/dist/{one}") for one in RUNTIME_FILES}
        return {one: stream.read() for one, stream in files.items() if stream}


def galaxies() -> tuple[dict[str, Any], NDArray[Any]]:
    """The data of the explorer for all samples, and the pictures (N, H, W) of their galaxies.

    Raises :class:`BadInput` if the map and the codes contain different galaxies.
    """
    index, places = SearchIndex.from_pretrained(), results.read("map")
    if list(places["name"]) != list(index.table["name"]):
        raise BadInput("the map and the codes contain different galaxies: make the map again with rgz study map")
    counts = {name: int((index.table["sample"] == name).sum()) for name in datasets.SAMPLES}
    parts = [figures.pictures(name, np.arange(count)) for name, count in counts.items()]
    shown = " and ".join(dict.fromkeys(what for _, what in parts))
    table = index.table["name", "sample", "label", "ra", "dec"]
    for name in places.columns.drop("name"):
        table[name] = places[name].to_numpy(float)
    data = explorer.payload(table, index.vectors, shown) | {"book": True}
    return data, np.concatenate([pictures for pictures, _ in parts])


def build(folder: Path) -> None:
    """Write the explorer and, if it can be had, the page into a folder, and print their sizes.

    Raises :class:`BadInput` if one of them is larger than a reader should have to load.
    """
    data, pictures = galaxies()
    try:
        content = look(data)
    except (BadInput, ImportError) as error:
        print(f"the explorer is built without the page for a galaxy of your own: {error}", file=sys.stderr)
        content = {}
    sizes = {"explorer": explorer.write(folder, data | {"own": bool(content)}, pictures)}
    if content:
        explorer.save(folder, content)
        sizes["look"] = sum(map(len, content.values())) + (folder / "sprites.webp").stat().st_size
    for (name, size), most in zip(sizes.items(), (LARGEST_MAP, LARGEST), strict=False):
        print(f"{name}: {size / 1e6:.2f} MB")
        if size > most:
            raise BadInput(f"{name} has {size / 1e6:.2f} MB: more than {most / 1e6:g} MB take too long to load")


def look(data: dict[str, Any]) -> dict[str, bytes]:
    """The files of the page, by name, for the data of the explorer.

    Raises :class:`BadInput` if ONNX Runtime Web cannot be had, and ImportError without the packages for the export.
    """
    code, binary = runtime().values()
    content = {path.name: path.read_bytes() for path in sorted(SOURCE.iterdir())}
    content |= {f"example-{number}.fits": file for number, file in enumerate(examples(), 1)}
    known = {"galaxies": {name: value for name, value in data.items() if name != "codes"}, "library": library()}
    content["look.json"] = json.dumps(known, ensure_ascii=False, allow_nan=False).encode()
    content |= {RUNTIME_FILES[0]: code, "ort.wasm.gz": gzip.compress(binary, mtime=0)}
    content["galaxy.onnx.gz"] = gzip.compress(export(), mtime=0)
    return content


def main() -> None:
    """Build both into the folder that the command line names."""
    parser = argparse.ArgumentParser(description="Build the explorer and the page for a galaxy of your own.")
    parser.add_argument("--out", type=Path, default=Path("_build/explorer"), help="folder to write them into")
    build(parser.parse_args().out)


if __name__ == "__main__":
    results.run(main)
