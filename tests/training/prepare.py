#!/usr/bin/env python3
"""Makes what the two owners bring to the federation: start weights, and each site's share of a real
data set.

The data set is the Wisconsin breast cancer data (569 biopsies, CC BY 4.0), as scikit-learn's wheel
carries it; pip fetches the wheel by its hash (see requirements.lock) and only the data file is read
from it.

    prepare.py WHEEL OUTPUT SITE…     →  OUTPUT/start.npy, OUTPUT/SITE/{train,test}.csv
"""

import csv
import io
import sys
import zipfile
from pathlib import Path

import numpy as np

MEMBER = "sklearn/datasets/data/breast_cancer.csv"


def main() -> None:
    wheel, output, *sites = sys.argv[1:]
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(MEMBER).decode("ascii")
    rows = list(csv.reader(io.StringIO(text)))[1:]  # the first row counts the others
    output = Path(output)
    for number, site in enumerate(sites):
        share = rows[number :: len(sites)]
        folder = output / site
        folder.mkdir(parents=True, exist_ok=True)
        for name, part in [
            ("test.csv", share[::4]),
            ("train.csv", [row for at, row in enumerate(share) if at % 4]),
        ]:
            with open(folder / name, "w", newline="", encoding="ascii") as file:
                csv.writer(file, lineterminator="\n").writerows(part)
    np.save(output / "start.npy", np.zeros(31))


if __name__ == "__main__":
    main()
