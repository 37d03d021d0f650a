"""The ``rgz`` command: each verb is one slow step, reads files and writes one file.

rgz data fetch     the public archives, found or downloaded, their hashes checked
rgz data check     any file: what is in it, or why it cannot be used
rgz data build     the training set, one HDF5 file
rgz data cutouts   images of Radio Galaxy Zoo sources, from the FIRST cut-out service
rgz train          a VDVAE, resumable
rgz probe          a run judged by what its codes tell, to choose between runs
rgz encode         codes of every sample
rgz reconstruct    what the codes keep of the images, measured
rgz retrieve       whether a search finds what it should, measured
rgz classify       FRI or FRII, by classifiers on the codes, measured
rgz map            all galaxies on one map, for the explorer
rgz report         the results, printed
rgz generate       galaxies that nobody has seen
rgz realism        how real they look, measured
rgz density        flows that say how likely a galaxy is, and which are odd
rgz similar        the galaxies most like one of the samples' own
rgz look           a galaxy of your own: its class, its neighbours, how odd it is
rgz explorer       a page to wander on
"""

import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

import rgz
from rgz import cli_data, cli_look, cli_new
from rgz.cli_data import sources
from rgz.errors import BadInput

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Radio galaxies in the latent space of a very deep variational autoencoder.",
)
app.add_typer(cli_data.app, name="data")

WEIGHTS, PLAIN, CODES, COMMITTEES, RESULTS, TRIES = (
    "vdvae.safetensors",
    "plain.safetensors",
    "codes.h5",
    "committees.safetensors",
    "results.json",
    "tries.csv",
)


class Device(StrEnum):
    """Where a model is trained."""

    cpu = "cpu"
    cuda = "cuda"


def _version(wanted: bool):
    if wanted:
        typer.echo(rgz.__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
):
    pass


@app.command()
def train(
    preset: Annotated[
        str,
        typer.Option(
            help="Shape of the model: tiny (tests), small (two CPU cores), base64 (a GPU), imagenet64 (several), or "
            "plain, an autoencoder without hierarchy to compare with."
        ),
    ] = "small",
    steps: Annotated[int, typer.Option(min=1, help="Steps of the whole schedule.")] = 6000,
    minutes: Annotated[
        float, typer.Option(min=0, help="Stop in good order after so many minutes; run again to go on.")
    ] = float("inf"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of initial weights, batches and noise.")] = 0,
    training_set: Annotated[Path, typer.Option("--data", help="Made by rgz data build; built when missing.")] = Path(
        "runs/train.h5"
    ),
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the run: checkpoint, log, weights; runs/PRESET when left out. A run there is resumed."
        ),
    ] = None,
    device: Annotated[Device, typer.Option(help="Where to train.")] = Device.cpu,
    accumulate: Annotated[
        int, typer.Option(min=1, help="Work each batch in so many parts, where memory holds no more.")
    ] = 1,
    tensorboard: Annotated[bool, typer.Option(help="Write the log for TensorBoard too.")] = False,
):
    """Train a VDVAE on unlabelled images, or go on with a run.

    The run's folder gets a log and, as it goes, a figure of held-out images and their reconstructions. Several processes:
    torchrun --nproc-per-node 2 -m rgz train

    Example, under an hour on two cores: rgz train --preset small
    """
    import torch

    from rgz import (
        augment,
        checkpoints,
        fetch,
        fields,
        images,
        plain,
        provenance,
        readers,
        reconstruct,
        sample,
        train,
        vdvae,
    )

    presets = vdvae.PRESETS | {"plain": plain.Config()}
    if preset not in presets:
        raise BadInput(f"no preset is called {preset!r}: known are {', '.join(presets)}")
    if device is Device.cuda and not torch.cuda.is_available():
        raise BadInput("there is no CUDA device on this machine: leave --device at cpu")
    rank, processes = train.processes()
    if processes > 1 and not training_set.exists():
        raise BadInput(f"{training_set} is not there: make it with rgz data build before several processes ask for it")
    config, out = presets[preset], out or Path("runs") / preset
    weights = out / (PLAIN if preset == "plain" else WEIGHTS)
    recipe, schedule = images.Recipe(config.size), train.Schedule(steps=steps, seed=seed, accumulate=accumulate)
    known = sources(training_set)
    seen, held_out = (known[known.table["split"] == split] for split in ("train", "valid"))
    if not len(seen) or not len(held_out):
        raise BadInput(
            f"{training_set} has {len(seen)} train and {len(held_out)} valid rows: both are needed, see rgz data build"
        )
    digest, versions = fetch.sha256(training_set), provenance.describe()  # of the code that does the training
    pixels = torch.from_numpy(sample.prepared(held_out, recipe)[:, None])
    torch.manual_seed(seed)
    model = checkpoints.MODELS[type(config)](config)
    model, done = train.fit(
        model,
        augment.batches(seen, recipe, schedule.batch, seed),
        schedule,
        out,
        validation=pixels,
        minutes=minutes,
        device=device.value,
        inputs={"training_set_sha256": digest, "recipe": asdict(recipe)},
        tensorboard=tensorboard,
        look=lambda mean, _: reconstruct.figure(mean, pixels[:12], out / "reconstructions.png"),
    )
    if rank:
        return
    about = versions | dict(
        preset=preset,
        steps=done,
        schedule=asdict(schedule),
        sources=len(seen),
        radio_galaxy_zoo=int((seen.table["rgz_name"] != "").sum()) if "rgz_name" in seen.table.colnames else 0,
        validation_sources=len(held_out),
        validation=train.describe(model.to("cpu"), pixels),
        training_set_sha256=digest,
        data={name: fetch.REGISTRY[readers.SAMPLES[name][0]].sha256 for name in ("mirabest", "rgd")}
        | {name: fetch.REGISTRY[name].sha256 for name in (fields.FITS_FIELDS, fields.ZOO)},
    )
    checkpoints.save(weights, model, recipe, about)
    typer.echo(
        f"{weights}: step {done} of {steps}, {about['validation']['bits_per_dimension']} bits/dim on held-out images"
    )
    if done < steps:
        typer.echo("not finished: run the same command again to go on")


@app.command()
def probe(
    weights: Annotated[Path, typer.Argument(help="Weights of a run.")],
    note: Annotated[str, typer.Option(help="What this run tries.")],
    dimensions: Annotated[int, typer.Option(min=1, help="Latents kept as the code.")] = 64,
    training_set: Annotated[Path, typer.Option("--data", help="Made by rgz data build; built when missing.")] = Path(
        "runs/train.h5"
    ),
    out: Annotated[
        Path | None, typer.Option(help="CSV file to add a line to; artifacts/tries.csv when left out.")
    ] = None,
):
    """Judge a run: held-out bits/dim, and how well its codes tell FRI from FRII on the official training images alone.

    Use it to choose between runs; the test images stay out of it. One line a run is added to the table of tries.

    Example: rgz probe runs/small/vdvae.safetensors --note "4 latents fewer"
    """
    from rgz import paths
    from rgz import report as reporting

    line = reporting.probe(weights, sources(training_set), dimensions) | {"note": note}
    reporting.add_line(line, out or paths.artifacts() / TRIES)
    typer.echo(", ".join(f"{name} {value}" for name, value in line.items()))


@app.command()
def encode(
    weights: Annotated[Path | None, typer.Option(help="Weights; the committed ones when left out.")] = None,
    out: Annotated[Path | None, typer.Option(help="HDF5 file to write; artifacts/codes.h5 when left out.")] = None,
    dimensions: Annotated[
        int, typer.Option(min=1, help="Latents kept as the code, the most variable over the training images.")
    ] = 64,
    training_set: Annotated[Path, typer.Option("--data", help="Made by rgz data build; built when missing.")] = Path(
        "runs/train.h5"
    ),
):
    """Write the codes of all samples, one group each, row for row, and beside them the committees that name a class.

    Where the codes are compared, in a search, is learned from training images that are altered on purpose; half an hour
    on two cores.
    """
    import numpy as np
    from safetensors.numpy import save as to_bytes

    from rgz import checkpoints, compared, fetch, latents, paths, provenance, readers, sample, similar
    from rgz import report as reporting

    weights = weights or paths.artifact(WEIGHTS)
    out = out or paths.artifacts() / CODES
    model, recipe, _ = checkpoints.load(weights)
    if dimensions > model.dimensions:
        raise BadInput(f"this model has {model.dimensions} latent dimensions: --dimensions {dimensions} is more")
    known = sources(training_set)
    seen = known[known.table["split"] == "train"]
    shown = sample.prepared(seen, recipe)
    means, _ = latents.full_codes(model, shown)
    chosen, basis = latents.rank(means)[:dimensions], compared.principal(shown)

    def describe(galaxies):
        return compared.describe(model, recipe, galaxies, chosen, basis)

    groups = {}
    for name in readers.SAMPLES:
        typer.echo(f"encoding {name}", err=True)
        galaxies = readers.load(name)
        if name == "frdeep-first":  # its archive tells no places, but some of its images are MiraBest's
            galaxies = readers.placed(galaxies, readers.load("mirabest"))
        kept, codes, left_out = latents.encode(model, recipe, galaxies, chosen)
        codes["code_compared"] = describe(kept)
        groups[name] = kept.table, codes, {"left_out": left_out}
    typer.echo("altering images", err=True)
    changes = compared.changes(describe, recipe, seen)
    whole = np.vstack([codes["code_compared"] for _, codes, _ in groups.values()])
    alone = compared.alone(chosen)
    spaces = {
        compared.BASIS: basis,
        compared.SPACE: compared.space(whole, changes, alone),
        compared.ALONE: similar.tolerant(whole[:, :alone], changes[:, :alone]),
    }
    attributes = provenance.describe(
        weights_sha256=fetch.sha256(weights),
        rule="posterior means of the most variable latents over the training images; code_views: mean and mean absolute value "
        "over twelve views; code_asymmetry: logarithm of the rms difference between codes of mirrored views; code_compared: mean "
        "and mean absolute value over twelve views, four of them of the image as it is, four of it turned by 30° and four by 60°, "
        "in five frames, side by side: as posed, about the centroid of the emission, 115″ wide about the middle and about the "
        "centroid, and 58″ wide about the centroid; then of principal components of the same views; basis: what to subtract from "
        "a flat prepared image and multiply it with for the components; space: what to subtract from and multiply with "
        "code_compared before it is compared; space_alone: the same for its part that comes from the latents",
        latents=chosen,
        blocks=latents.blocks_of(model, chosen),
        variance=means.var(axis=0),
    )
    latents.write_codes(out, groups, attributes, spaces)
    typer.echo("fitting committees", err=True)
    committees = reporting.committees(out)
    with paths.atomic(out.with_name(COMMITTEES)) as partial:
        partial.write_bytes(to_bytes(committees, metadata={"codes_sha256": fetch.sha256(out)}))
    typer.echo(
        f"{out}: "
        + ", ".join(f"{name} {len(table)}" for name, (table, *_) in groups.items())
        + f"; {dimensions} latents"
    )


@app.command("reconstruct")
def reconstruct_samples(
    weights: Annotated[Path | None, typer.Option(help="Weights; the committed ones when left out.")] = None,
    plain: Annotated[Path | None, typer.Option(help="Those of the plain autoencoder to compare with.")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file to add to; artifacts/results.json when left out.")] = None,
    training_set: Annotated[Path, typer.Option("--data", help="Made by rgz data build; built when missing.")] = Path(
        "runs/train.h5"
    ),
):
    """Measure how well images are rebuilt from their codes."""
    from rgz import checkpoints, fetch, paths, reconstruct
    from rgz import report as reporting

    weights, plain = weights or paths.artifact(WEIGHTS), plain or paths.artifact(PLAIN)
    known = sources(training_set)
    seen = known[known.table["split"] == "train"]
    (model, recipe, _), (other, its_recipe, _) = checkpoints.load(weights), checkpoints.load(plain)
    if its_recipe != recipe:
        raise BadInput(
            f"{weights} and {plain} were made for images prepared in different ways: they cannot be compared"
        )
    found = reconstruct.study(model, other, recipe, seen, reconstruct.tests(recipe))
    found["sha256"] = {"weights": fetch.sha256(weights), "plain": fetch.sha256(plain)}
    reporting.write({"reconstruction": found}, out or paths.artifacts() / RESULTS)
    typer.echo(reconstruct.table(found))


@app.command()
def retrieve(
    codes: Annotated[Path | None, typer.Option(help="Codes; the committed ones when left out.")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file to add to; artifacts/results.json when left out.")] = None,
    training_set: Annotated[Path, typer.Option("--data", help="Made by rgz data build; built when missing.")] = Path(
        "runs/train.h5"
    ),
):
    """Measure whether the search finds what it should."""
    from rgz import checkpoints, fetch, paths, retrieval
    from rgz import report as reporting

    codes, known = codes or paths.artifact(CODES), sources(training_set)
    model, recipe, _ = checkpoints.load(paths.artifact(WEIGHTS))
    found = retrieval.study(model, recipe, codes, known[known.table["split"] == "train"])
    found["codes_sha256"] = fetch.sha256(codes)
    reporting.write({"retrieval": found}, out or paths.artifacts() / RESULTS)
    typer.echo(retrieval.table(found))


@app.command()
def classify(
    codes: Annotated[Path | None, typer.Option(help="Codes; the committed ones when left out.")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file to add to; artifacts/results.json when left out.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Repeats of the 5-fold cross-validation.")] = 10,
):
    """Classify FRI and FRII on the codes, and on features of the images that need no network."""
    from rgz import paths
    from rgz import report as reporting

    results, out = reporting.classes(codes or paths.artifact(CODES), repeats), out or paths.artifacts() / RESULTS
    reporting.write(results, out)
    typer.echo(reporting.table(results))


@app.command("map")
def lay_out(
    codes: Annotated[Path | None, typer.Option(help="Codes; the committed ones when left out.")] = None,
    out: Annotated[Path | None, typer.Option(help="CSV file to write; artifacts/map.csv when left out.")] = None,
):
    """Lay all galaxies out on the explorer's map, by t-SNE; half a minute."""
    from rgz import compared, explorer, paths

    out, index = out or paths.artifacts() / "map.csv", compared.index(codes)
    explorer.lay_out(index, out)
    typer.echo(f"{out}: {len(index)} galaxies")


@app.command()
def report(
    results: Annotated[Path | None, typer.Option(help="JSON file; artifacts/results.json when left out.")] = None,
):
    """Print the results that rgz classify, reconstruct, retrieve, realism and density have measured."""
    from rgz import anomalies, emulation, reconstruct, retrieval
    from rgz import report as reporting

    kept = reporting.read(results)
    typer.echo(reporting.table(kept))
    studies = {"reconstruction": reconstruct, "retrieval": retrieval, "generation": emulation, "anomalies": anomalies}
    for name in filter(kept.__contains__, studies):
        typer.echo(f"\n{name}\n\n{studies[name].table(kept[name])}")


for verb in (
    cli_new.generate,
    cli_new.prior,
    cli_new.realism,
    cli_new.density,
    cli_look.similar,
    cli_look.look,
    cli_look.explorer,
):
    app.command()(verb)


def main():
    """Run the command line; a fault of an input is one line on stderr and exit status 1."""
    try:
        app()
    except BadInput as error:
        typer.echo("rgz: " + " ".join(str(error).split()), err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        typer.echo("rgz: stopped", err=True)
        sys.exit(130)
