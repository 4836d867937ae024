"""Clean noisy photographs: a Dask graph whose tasks call a parallel Numba kernel and NumPy's linear algebra.

    python examples/photographs.py                              # as it is: three libraries, three pools
    python -m composable_threads examples/photographs.py        # the same program on one pool
    python -m composable_threads compare examples/photographs.py

The photographs are the two that scikit-learn ships. Every noisy copy of each goes through a bilateral filter (Numba)
and a low-rank approximation (NumPy's SVD); a task then scores it. The answer is checked against a serial run.
"""

from __future__ import annotations

import argparse
import sys

import dask
import numba
import numpy as np
from numba import njit, prange
from sklearn.datasets import load_sample_images

RADIUS = 3
RANK = 60


@njit(parallel=True, cache=True)
def bilateral(image, radius, closeness, likeness):
    """Mean of each pixel's neighbourhood, weighted by distance and by likeness."""
    rows, columns = image.shape
    out = np.empty_like(image)
    for row in prange(rows):
        for column in range(columns):
            centre, total, weights = image[row, column], 0.0, 0.0
            for i in range(max(0, row - radius), min(rows, row + radius + 1)):
                for j in range(max(0, column - radius), min(columns, column + radius + 1)):
                    far = (i - row) ** 2 + (j - column) ** 2
                    unlike = (image[i, j] - centre) ** 2
                    weight = np.exp(-far / closeness - unlike / likeness)
                    total += weight * image[i, j]
                    weights += weight
            out[row, column] = total / weights
    return out


def noisy(photograph, seed):
    """A grey copy with noise from a generator of its own."""
    grey = photograph.mean(axis=2) / 255.0
    return grey + np.random.default_rng(seed).normal(0.0, 0.08, grey.shape)


def low_rank(image):
    """What the largest singular values keep of an image."""
    u, s, v = np.linalg.svd(image, full_matrices=False)
    return (u[:, :RANK] * s[:RANK]) @ v[:RANK]


def score(photograph, image):
    """Peak signal-to-noise ratio in decibels."""
    return -10.0 * np.log10(np.mean((photograph.mean(axis=2) / 255.0 - image) ** 2))


def graph(photographs, copies):
    """Delayed scores, one per photograph and copy."""
    clean = dask.delayed(lambda image: low_rank(bilateral(image, RADIUS, 8.0, 0.05)))
    return [
        dask.delayed(score)(photograph, clean(dask.delayed(noisy)(photograph, seed)))
        for photograph in photographs
        for seed in range(copies)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--copies", type=int, default=24, help="noisy copies of each photograph (default 24)")
    parser.add_argument("--scheduler", help="a Dask scheduler by name, for instance composable; default: Dask's own")
    copies = parser.parse_args().copies
    scheduler = parser.parse_args().scheduler

    photographs = load_sample_images().images
    scores = dask.compute(*graph(photographs, copies), **({"scheduler": scheduler} if scheduler else {}))

    numba.set_num_threads(1)
    few = min(copies, 2)
    serial = dask.compute(*graph(photographs, few), scheduler="sync")
    parallel = [scores[photograph * copies + seed] for photograph in range(len(photographs)) for seed in range(few)]
    if not np.allclose(serial, parallel, rtol=1e-9):
        print(f"wrong answer: {parallel} in parallel, {serial} in a serial run", file=sys.stderr)
        return 1
    print(f"{len(scores)} images cleaned, mean {np.mean(scores):.3f} dB, as in a serial run")
    return 0


if __name__ == "__main__":
    sys.exit(main())
