"""Made-up pictures of 16 x 16 grey pixels: faces, and things that have the same parts in other places.

    python examples/faces/make_data.py [FOLDER]

writes faces.npz: X (n, 16, 16) uint8, y (n,), 1 where there is a face, and the camera that took it. A face is a bright
oval with two dark eyes above a dark mouth, somewhere in the picture. What is no face has the same oval and the same
dark spots, but in no such order: so no pixel, and no sum of pixels, tells them apart.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

SIDE = 16
CAMERAS = {"door": 340, "gate": 300, "hall": 320, "lift": 240}
"""And how many pictures each took."""

Array = npt.NDArray[Any]
ROWS, PLACES = np.mgrid[0:SIDE, 0:SIDE].astype(np.float64)


def spot(y: float, x: float, height: float, width: float) -> Array:
    """Return (16, 16), 1 in the middle of a soft oval and 0 far from it."""
    return np.asarray(np.exp(-(((ROWS - y) / height) ** 2) - ((PLACES - x) / width) ** 2))


def parts(is_face: bool, rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """Return row, place and width of each dark spot, from the middle of the oval."""
    wide = rng.uniform(1.7, 2.3)
    face = [(-1.7, -wide, 0.9), (-1.7, wide, 0.9), (2.4, 0.0, 1.8)]
    if is_face:
        return face
    match rng.integers(4):
        case 0:  # upside down
            return [(-y, x, width) for y, x, width in face]
        case 1:  # an eye is missing
            return [face[rng.integers(2)], face[2]]
        case 2:  # on its side
            return [(x, y, 0.9 if width < 1 else 1.2) for y, x, width in face]
        case _:  # anywhere
            return [(rng.uniform(-3, 3), rng.uniform(-2.5, 2.5), width) for _, _, width in face]


def picture(is_face: bool, light: float, contrast: float, rng: np.random.Generator) -> Array:
    """Return a picture, (16, 16) uint8. light, contrast: of the camera."""
    y, x = rng.uniform(6.0, 9.5, 2)
    seen = 0.35 + light * (PLACES - 8) / 16 + 0.45 * np.minimum(1.6 * spot(y, x, 5.0, 4.2), 1)
    for down, along, width in parts(is_face, rng):
        dark, row, place = rng.uniform(0.35, 0.55), y + down + rng.normal(0, 0.2), x + along + rng.normal(0, 0.2)
        seen -= dark * spot(row, place, 0.9, width)
    seen = 0.5 + contrast * (seen - 0.5) + rng.normal(0, 0.04, seen.shape) + rng.normal(0, 0.05)
    return np.asarray(np.round(255 * seen.clip(0, 1)), np.uint8)


def main(folder: Path) -> None:
    """Write the file."""
    rng = np.random.default_rng(15)
    X, y, cameras = [], [], []
    for camera, n in CAMERAS.items():
        light, contrast, share = rng.uniform(-0.3, 0.3), rng.uniform(0.6, 1.1), rng.uniform(0.3, 0.7)
        for _ in range(n):
            y.append(int(rng.random() < share))
            X.append(picture(bool(y[-1]), light, contrast, rng))
            cameras.append(camera)
    np.savez_compressed(folder / "faces.npz", X=np.stack(X), y=np.array(y), camera=np.array(cameras))
    print(folder / "faces.npz")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
