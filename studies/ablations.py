"""Ablations: what each choice in the training does to the code.

Networks trained with other settings are compared by their bits per dimension on held-out sources, by where the
rate goes, by an SVM probe and by their samples. The probe is the accuracy of a support vector machine on their codes,
for FRI against FRII. It is cross-validated on the official training images of MiraBest alone, so that it can be used to
choose a network. Samples are compared with validation sources by a classifier two-sample test
(:func:`studies.realism.two_sample_test`).

    python -m studies.ablations runs/deep/vdvae.safetensors "the network of this book"
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from rgz.app.training import TRAINING_SET, splits
from rgz.data import datasets, loader
from rgz.data.sample import Sample, usable
from rgz.features import embed
from rgz.models import checkpoint, train
from rgz.models.vdvae import VDVAE
from rgz.tasks import generate
from rgz.transforms.prepare import Recipe, prepare
from studies import latent, realism, results
from studies.generation import COUNT, TRAINING
from studies.labelled import confident, folds, groups
from studies.metrics import is_frii
from studies.results import Row

RANKED, REPEATS = 500, 3  # training sources by whose rates latents are ranked; repeats of the cross-validation


def probe(weights: Path, note: str, path: Path = TRAINING_SET, dimensions: int = 64, coarse_alone: bool = False) -> Row:
    """One row: bits per dimension, coarse and fine rate (nats), accuracy and ROC-AUC of an SVM with their spread.

    With ``coarse_alone`` the network was trained without fine latents, which then do not count.
    """
    model, recipe, about = checkpoint.load(weights)
    steps, before = about["steps"], about
    while before := before.get("start", {}):
        steps += before["steps"]
    if coarse_alone:
        model.fine, model.coded = False, model.coarse
    seen, held_out = splits(path)
    pixels = torch.from_numpy(prepare(held_out.images, held_out.pixel, recipe)[0][:, None])
    validation = train.describe(model, pixels)
    _, rates = latent.full_codes(model, prepare(seen.images[:RANKED], seen.pixel, recipe)[0], blocks=model.coded)
    latents = latent.rank(rates)[: min(dimensions, rates.shape[1])]
    galaxies = datasets.load_dataset("mirabest")
    galaxies = galaxies[usable(galaxies) & confident(galaxies.table) & (galaxies.table["split"] == "train")]
    codes = embed.Encoder(model, recipe, latents).transform(galaxies)
    labels, found = is_frii(galaxies.table), []
    for fitted, tested in folds(labels, groups(galaxies.table), REPEATS):
        machine = make_pipeline(StandardScaler(), SVC(C=3.0)).fit(codes[fitted], labels[fitted])
        score = machine.decision_function(codes[tested])
        found.append((accuracy_score(labels[tested], score > 0), roc_auc_score(labels[tested], score)))
    samples = None if coarse_alone else _samples_auc(model, recipe, seen, held_out)
    by_level = {int(level): nats for level, nats in validation["rate_nats"].items()}
    coarse = sum(nats for level, nats in by_level.items() if level <= model.config.coarse)
    (accuracy, auc), spread = np.mean(found, axis=0), np.std(found, axis=0)
    return {
        "note": note,
        "steps": steps,
        "bits_per_dimension": validation["bits_per_dimension"],
        "rate_coarse": round(coarse, 2),
        "rate_fine": round(sum(by_level.values()) - coarse, 2),
        "accuracy": round(float(accuracy), 4),
        "accuracy_spread": round(float(spread[0]), 4),
        "roc_auc": round(float(auc), 4),
        "roc_auc_spread": round(float(spread[1]), 4),
        "samples_auc": samples,
    }


def _samples_auc(model: VDVAE, recipe: Recipe, seen: Sample, held_out: Sample) -> float:
    """ROC-AUC of a small CNN that tells samples of the network from validation sources; 0.5 if it cannot."""
    real, source = realism.augmented(held_out, recipe, 0)
    batch = loader.batches(seen, recipe, TRAINING, 1)
    made = generate.generate(COUNT + TRAINING, model=model)
    training = batch(0)[0][:, 0].numpy().astype(np.uint8), made[COUNT:]
    return round(realism.two_sample_test(training, real, source, made[:COUNT])["network_auc"][0], 4)


def main() -> None:
    """Probe one network, and add its row to the table."""
    parser = argparse.ArgumentParser(description="Probe a network, and add a row to results/ablations.csv.")
    parser.add_argument("weights", type=Path)
    parser.add_argument("note", help="what this network has or lacks")
    parser.add_argument("--coarse-alone", action="store_true", help="the network was trained without fine latents")
    given = parser.parse_args()
    row = probe(given.weights, given.note, coarse_alone=given.coarse_alone)
    results.append("ablations", row)
    print(row)


if __name__ == "__main__":
    results.run(main)
