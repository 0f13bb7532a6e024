"""Made-up loans of five banks: who asked for how much, and whether it was paid back.

    python examples/loan/make_data.py [FOLDER]

writes loan.csv. One loan in nine is lost. A loan is in danger when it is large for its income, above all where the
work is new; where somebody has been late before; and for the young and the old more than between: so no sum of columns,
weighted as you like, ranks the loans well. Cells are empty where a bank did not ask or a customer did not say.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

BANKS = {"coast": 700, "hills": 500, "lake": 600, "north": 400, "town": 800}
"""And how many loans each has made."""
HEADER = ("bank", "age", "income", "employed", "amount", "months", "debt", "late", "owner", "outcome")

Array = npt.NDArray[Any]


def loans(n: int, rng: np.random.Generator) -> dict[str, Array]:
    """Return n loans of one bank, by column: (n,) float64, with nan where a cell is empty; `outcome` as text."""
    wealth = rng.normal(0, 0.35)
    age = rng.uniform(20, 72, n)
    income = 2400 * np.exp(rng.normal(wealth, 0.45, n))
    employed = rng.gamma(1.5, 4.0, n).clip(0, age - 18)
    amount = 9000 * np.exp(rng.normal(wealth * rng.uniform(0.3, 1), 0.7, n))
    months = rng.choice([12, 24, 36, 48, 60, 84], n).astype(np.float64)
    debt = income * rng.beta(1.5, 4, n)
    late = rng.poisson(0.4, n).astype(np.float64)
    owner = (rng.random(n) < 0.2 + 0.5 * (age > 35)).astype(np.float64)
    burden = (amount / months + debt) / income
    danger = (
        5.0 * np.clip(burden - 0.45, 0, 0.5) * np.where(employed < 3, 1.8, 0.6)
        + 0.9 * np.minimum(late, 3) * (1 - 0.7 * owner)
        + 4.0 * ((age - 46) / 26) ** 2
        + rng.logistic(0, 0.25, n)
    )
    columns = {"age": age, "income": income, "employed": employed, "amount": amount, "months": months, "debt": debt}
    columns |= {"late": late, "owner": owner}
    for name, share in (("income", 0.06), ("employed", 0.12), ("debt", rng.uniform(0, 0.3))):
        columns[name] = np.where(rng.random(n) < share, np.nan, columns[name])
    return columns | {"outcome": np.where(danger > 4.2, "lost", "paid")}


def main(folder: Path) -> None:
    """Write the file."""
    rng = np.random.default_rng(15)
    lines = [",".join(HEADER)]
    for bank, n in BANKS.items():
        found = loans(n, rng)
        for row in range(n):
            cells = [found[name][row] for name in HEADER[1:-1]]
            lines.append(",".join([bank, *("" if np.isnan(c) else f"{c:.4g}" for c in cells), found["outcome"][row]]))
    (folder / "loan.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(folder / "loan.csv")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
