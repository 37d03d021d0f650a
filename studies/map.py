"""A map of all galaxies for the explorer: t-SNE of the vectors of the similarity search."""

import numpy as np
from sklearn.manifold import TSNE

from rgz import artifacts
from rgz.tasks.search import SearchIndex
from studies import results


def main() -> None:
    """Compute and write ``results/map.csv``, positions from 0 to 9999; half a minute."""
    index = SearchIndex.from_pretrained()
    flat = TSNE(init="pca", perplexity=40, random_state=0, n_jobs=-1).fit_transform(index.vectors)
    x, y = np.rint(9999 * (flat - flat.min(axis=0)) / np.ptp(flat, axis=0).max()).astype(int).T
    rows = zip(index.table["name"], x, y, strict=True)
    results.write("map", ({"name": n, "x": i, "y": j} for n, i, j in rows), [artifacts.artifact("codes.h5")])


if __name__ == "__main__":
    results.run(main)
