"""The slow steps from the archives to the results, and what each is made from.

A step whose inputs have the hashes, and whose entry here has the version, of the committed result is not run again: ``doit`` says
so. ``doit list --all --status`` shows the steps, ``doit info STEP`` why one would run, ``doit STEP`` runs it and what it needs.
Raise a step's version when a change of the code changes its result.
"""

import json
import sys
from dataclasses import dataclass

from doit.dependency import FileChangedChecker, JSONCodec
from doit.reporter import ConsoleReporter
from doit.tools import config_changed

from rgz import artifacts
from rgz.data import datasets, fetch, training_set

SAMPLES = tuple(archive for archive, _ in datasets.SAMPLES.values())
SOURCES = (SAMPLES[0], SAMPLES[3], training_set.FITS_FIELDS, training_set.ZOO)
NETWORK, PLAIN = "artifacts/vdvae.safetensors", "artifacts/plain.safetensors"
CODES, PRIOR, DENSITY = "artifacts/codes.h5", "artifacts/prior.safetensors", "artifacts/density.safetensors"


@dataclass(frozen=True)
class Step:
    """What to run, the public archives and the files that it reads, the files that it makes; results go to results.json."""

    command: str
    archives: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()
    version: int = 1

    @property
    def trains(self) -> bool:
        """Whether it reads the training set, which is then built first."""
        return set(SOURCES) <= set(self.archives) and "build" not in self.command


STEPS = {
    "training-set": Step("rgz data build", SOURCES, makes=("runs/train.h5",)),
    "network": Step("rgz train", SOURCES, makes=(NETWORK,)),
    "plain": Step("rgz train --preset plain --steps 1500", SOURCES, makes=(PLAIN,)),
    "codes": Step("rgz encode", (*SAMPLES, *SOURCES), (NETWORK,), (CODES, "artifacts/committees.safetensors")),
    "prior": Step("rgz prior", SOURCES, (NETWORK,), (PRIOR,)),
    "classification": Step("rgz classify", SAMPLES[:3], (CODES, "artifacts/cnn.csv")),
    "reconstruction": Step("rgz reconstruct", (*SAMPLES[:3], *SOURCES), (NETWORK, PLAIN)),
    "retrieval": Step("rgz retrieve", (*SAMPLES, *SOURCES), (NETWORK, CODES)),
    "generation": Step("rgz realism", SOURCES, (NETWORK, PLAIN, PRIOR)),
    "anomalies": Step("rgz density", (*SAMPLES, *SOURCES), (NETWORK, CODES), (DENSITY,)),
    "map": Step("rgz map", (), (CODES,), ("artifacts/map.csv",)),
}
STUDIES = ("classification", "reconstruction", "retrieval", "generation", "anomalies", "map")


class Reporter(ConsoleReporter):
    """Says of each step whether it runs, or why it does not."""

    def execute_task(self, task):
        """Before a step runs."""
        self.write(f"{task.name}: running {STEPS[task.name].command}\n")

    def skip_uptodate(self, task):
        """In place of a step whose inputs have not changed."""
        self.write(f"{task.name}: the committed result stands, its inputs have not changed\n")


class Hashes(FileChangedChecker):
    """Knows a file by its sha256 alone, which is the same on every machine."""

    def check_modified(self, path, _stat, recorded):
        """Whether a file has changed."""
        return artifacts.sha256(path) != recorded

    def get_state(self, path, _recorded):
        """What is recorded of a file."""
        return artifacts.sha256(path)


class Lines(JSONCodec):
    """Writes the record line by line, so that git can compare it."""

    def encode(self, data):
        """The record as text."""
        ordered = {name: entry | {"deps:": sorted(entry["deps:"])} for name, entry in data.items()}
        return json.dumps(ordered, indent=1, sort_keys=True) + "\n"


DOIT_CONFIG = {
    "backend": "json",
    "codec_cls": Lines,
    "check_file_uptodate": Hashes,
    "dep_file": "artifacts/steps.json",  # the inputs of the committed results
    "default_tasks": list(STUDIES),
    "reporter": Reporter,
    "verbosity": 2,
}


def task_steps():
    """One doit task a step."""
    for name, step in STEPS.items():
        hashes = {archive: fetch.REGISTRY[archive].sha256 for archive in sorted(set(step.archives))}
        yield {
            "basename": name,
            "actions": [f"{sys.executable} -m {step.command}"],
            "file_dep": list(step.files),
            "targets": list(step.makes),
            "uptodate": [config_changed(json.dumps({"version": step.version} | hashes))],
            "setup": ["training-set"] if step.trains else [],
            "doc": step.command,
        }
