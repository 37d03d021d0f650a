"""The slow steps from the public archives to the results, and the inputs and outputs of each.

A step is not run again if its version and the hashes of its inputs are those of the committed result. ``doit list --all
--status`` shows the steps, ``doit info STEP`` shows why a step would run, and ``doit STEP`` runs a step and those it
depends on. Raise the version of a step if a change of the code changes its result.
"""

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doit.dependency import FileChangedChecker, JSONCodec
from doit.reporter import ConsoleReporter
from doit.tools import config_changed

from rgz import artifacts
from rgz.data import datasets, fetch

SAMPLES = tuple(archive for archive, _ in datasets.SAMPLES.values())
STRANGERS = "first_unseen.h5"
SOURCES = (*SAMPLES, datasets.POSITIONS, datasets.FITS_FIELDS, datasets.ZOO)
NETWORK, PLAIN = "artifacts/vdvae.safetensors", "artifacts/plain.safetensors"
CODES, DENSITY = "artifacts/codes.h5", "artifacts/density.safetensors"
CLASSIFIER = "artifacts/classifier.safetensors"
CNN, OTHERS = "results/cnn.csv", "results/cnn_catalogues.csv"


def tables(*names: str) -> tuple[str, ...]:
    """Files of results."""
    return tuple(f"results/{name}.csv" for name in names)


@dataclass(frozen=True)
class Step:
    """What to run, the public archives and the files that it reads, and the files that it makes."""

    command: str
    archives: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()
    version: int = 1
    run: str = ""  # folder in which training leaves its file, which is then copied to where it belongs
    first: tuple[str, ...] = ()  # further steps whose files in runs/ it reads, made before it runs

    @property
    def trains(self) -> bool:
        """Whether it reads the training set, which is then built first."""
        return set(SOURCES) <= set(self.archives) and self.command != "studies.training_set"


STEPS = {
    "training-set": Step("studies.training_set", SOURCES, makes=("runs/train.h5",)),
    "codes-network": Step(
        "rgz train --device cuda --batch 256 --steps 5823", SOURCES, makes=("runs/deep/vdvae.safetensors",)
    ),
    "network": Step(
        "rgz train --device cuda --batch 256 --steps 9098 --start runs/deep/vdvae.safetensors",
        SOURCES,
        makes=(NETWORK,),
        run="runs/finer",
        first=("codes-network",),
    ),
    "plain": Step("studies.vae", SOURCES, makes=(PLAIN,), run="runs/plain"),
    "codes": Step("studies.encode", SOURCES, (NETWORK,), (CODES, CLASSIFIER)),
    "density": Step("studies.density", SOURCES, (NETWORK, CODES), (DENSITY,), version=2),
    "cnn": Step("studies.cnn", (*SAMPLES[:3], datasets.POSITIONS), (), (CNN,)),
    "cnn-catalogues": Step("studies.cnn catalogues", (*SAMPLES, datasets.POSITIONS, STRANGERS), (CODES,), (OTHERS,)),
    "classification": Step(
        "studies.classification",
        SAMPLES[:3],
        (CODES, CNN),
        tables("samples", "classification", "label_efficiency", "blocks", "uncertain", "transfer"),
        version=2,
    ),
    "reconstruction": Step("studies.reconstruction", SOURCES, (NETWORK, PLAIN, CODES), tables("reconstruction")),
    "similarity": Step("studies.similarity", SOURCES, (NETWORK, CODES), tables("similarity", "seen_twice")),
    "generation": Step(
        "studies.generation",
        SOURCES,
        (NETWORK, PLAIN),
        tables("generation", "generation_quantiles"),
    ),
    "training-codes": Step("studies.training_codes", SOURCES, (NETWORK, CODES), ("runs/training_codes.npy",)),
    "anomalies": Step(
        "studies.anomalies",
        SOURCES,
        (NETWORK, CODES, DENSITY),
        tables("anomalies", "density", "density_checks"),
        first=("training-codes",),
    ),
    "validity": Step(
        "studies.validity",
        (*SAMPLES, datasets.POSITIONS, STRANGERS),
        (NETWORK, CODES, CLASSIFIER, OTHERS),
        tables("validity", "strangers"),
        version=3,
    ),
    "interest": Step(
        "studies.interest", ("galaxy_data_h5.zip", "meerkat_interest.h5"), (NETWORK, CODES, DENSITY), tables("interest")
    ),
    "map": Step("studies.map", (*SAMPLES, datasets.FITS_FIELDS), (CODES, DENSITY), tables("map"), version=3),
}


class Reporter(ConsoleReporter):
    """Prints of each step whether it runs, and that it is not needed otherwise."""

    def execute_task(self, task: Any) -> None:
        """Before a step runs."""
        self.write(f"{task.name}: running {STEPS[task.name].command}\n")

    def skip_uptodate(self, task: Any) -> None:
        """In place of a step whose inputs have not changed."""
        self.write(f"{task.name}: keeping the committed results, their inputs have not changed\n")


class Hashes(FileChangedChecker):
    """Identifies a file by its sha256 alone, which is the same on every machine."""

    def check_modified(self, path: str, _stat: Any, recorded: str) -> bool:
        """Whether a file has changed."""
        return artifacts.sha256(Path(path)) != recorded

    def get_state(self, path: str, _recorded: Any) -> str:
        """What is recorded of a file."""
        return artifacts.sha256(Path(path))


class Lines(JSONCodec):
    """Writes the record line by line, so that git can compare it."""

    def encode(self, data: dict[str, Any]) -> str:
        """The record as text."""
        ordered = {name: entry | {"deps:": sorted(entry.get("deps:", []))} for name, entry in data.items()}
        for entry in ordered.values():
            entry.pop("result:", None)  # of what a command printed
        return json.dumps(ordered, indent=1, sort_keys=True) + "\n"

    def decode(self, text: str) -> dict[str, Any]:
        """The record from its text; a damaged one ends the program."""
        try:
            data = json.loads(text)
            return {str(name): entry | {} for name, entry in data.items()}
        except (ValueError, AttributeError, TypeError, RecursionError):
            sys.exit("results/steps.json is damaged: restore it with git checkout results/steps.json")


DOIT_CONFIG = {
    "backend": "json",
    "codec_cls": Lines,
    "check_file_uptodate": Hashes,
    "dep_file": "results/steps.json",  # the inputs of the committed results
    "default_tasks": [  # the longest first; the last one uses all cores by itself, so that none is idle at the end
        "generation",
        "anomalies",
        "similarity",
        "map",
        "reconstruction",
        "interest",
        "validity",
        "classification",
    ],
    "reporter": Reporter,
    "verbosity": 2,
}


def task_steps() -> Iterator[dict[str, Any]]:
    """One doit task a step."""
    for name, step in STEPS.items():
        hashes = {archive: fetch.REGISTRY[archive].sha256 for archive in sorted(set(step.archives))}
        yield {
            "basename": name,
            "actions": [
                f"{sys.executable} -m {step.command}",
                *((shutil.copy, (Path(step.run, Path(made).name), made)) for made in step.makes if step.run),
            ],
            "file_dep": list(step.files),
            "targets": list(step.makes),
            "uptodate": [config_changed(json.dumps({"version": step.version} | hashes))],
            "setup": ["training-set"] * step.trains + [*step.first],
            "doc": step.command,
        }
