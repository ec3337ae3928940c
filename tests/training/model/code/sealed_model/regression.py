"""The model, in numpy alone: 30 measurements of a biopsy → benign or malignant."""

import csv
from pathlib import Path

import numpy as np

FEATURES = 30
MAX_ROWS = 100_000


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A site's rows, `FEATURES` numbers and the class each: (rows × features + 1, rows), the last
    feature a constant 1.
    """
    with open(path, newline="", encoding="ascii") as file:
        rows = [
            [float(value) for value in row]
            for row, _ in zip(csv.reader(file), range(MAX_ROWS), strict=False)
        ]
    table = np.array(rows)
    if table.ndim != 2 or table.shape[1] != FEATURES + 1 or not np.isfinite(table).all():
        raise ValueError(
            f"{path}: expected rows of {FEATURES + 1} finite numbers, "
            f"found an array of shape {table.shape}"
        )
    # The measurements differ by powers of ten; logarithms bring them together without anybody's
    # mean.
    features = np.log1p(np.abs(table[:, :FEATURES]))
    return np.hstack([features, np.ones((len(table), 1))]), table[:, FEATURES]


def train(
    weights: np.ndarray, features: np.ndarray, classes: np.ndarray, steps: int, rate: float
) -> np.ndarray:
    """Gradient descent with Nesterov's momentum on the mean log loss."""
    weights, speed = weights.copy(), np.zeros_like(weights)
    for _ in range(steps):
        ahead = weights + 0.9 * speed
        gradient = features.T @ (probability(ahead, features) - classes) / len(classes)
        speed = 0.9 * speed - rate * gradient
        weights += speed
    return weights


def accuracy(weights: np.ndarray, features: np.ndarray, classes: np.ndarray) -> float:
    """The share of rows that the model puts into their class."""
    return float(np.mean((probability(weights, features) > 0.5) == (classes > 0.5)))


def probability(weights: np.ndarray, features: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(features @ weights, -50, 50)))
