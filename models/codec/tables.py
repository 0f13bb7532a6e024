"""The symbol statistics, as literals: a decoder must never compute a probability.

One row per class (see symbols.py), in parts of 2**14: magnitude 0, then each of the two signs of magnitudes 1
... LARGEST, then the escape. They were counted over coded updates of dense nets of 199,210 and 3,461
parameters, at steps from 0.25 to 12, and smoothed by a mixture of geometric distributions of the class's
mean. They are part of the format: a test holds their SHA-256.
"""

from __future__ import annotations

import numpy as np

from models.codec.rans import tables_of

LARGEST = 14
"""Largest magnitude with a symbol of its own."""
ESCAPE = 2 * LARGEST + 1
TOP = 20
"""The last class."""

# fmt: off
COUNTS = (
    (16353, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1),
    (16341, 8, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1),
    (16339, 9, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1),
    (16323, 17, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1),
    (16267, 45, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1),
    (16213, 72, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1),
    (16143, 107, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1),
    (15709, 318, 7, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1),
    (15459, 441, 9, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1),
    (14753, 773, 27, 4, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1),
    (14129, 1056, 52, 7, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1),
    (12981, 1555, 111, 18, 6, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1),
    (11479, 2205, 186, 30, 11, 5, 3, 3, 2, 1, 1, 1, 1, 1, 1, 3),
    (9759, 2893, 336, 52, 14, 5, 3, 2, 1, 1, 1, 1, 1, 1, 1, 1),
    (8320, 3320, 564, 99, 25, 9, 4, 3, 1, 1, 1, 1, 1, 1, 1, 2),
    (6805, 3597, 904, 187, 53, 21, 9, 6, 3, 2, 1, 1, 1, 1, 1, 5),
    (5892, 3265, 1282, 414, 142, 53, 25, 16, 9, 7, 7, 6, 5, 4, 3, 16),
    (4029, 2968, 1727, 800, 357, 154, 71, 35, 22, 14, 8, 5, 4, 2, 2, 17),
    (3903, 2283, 1624, 1016, 576, 319, 175, 93, 52, 32, 19, 13, 8, 6, 4, 41),
    (2203, 1863, 1540, 1203, 847, 564, 363, 229, 153, 98, 67, 45, 31, 19, 15, 107),
    (2872, 1358, 1158, 957, 811, 638, 482, 360, 260, 188, 141, 101, 76, 58, 40, 256),
)
# fmt: on

_rows = np.array(COUNTS, np.int64)
TABLES = tables_of(np.concatenate([_rows[:, :1], np.repeat(_rows[:, 1:-1], 2, axis=1), _rows[:, -1:]], axis=1))
"""Symbols 0, +1, -1, +2, ... -LARGEST, ESCAPE."""
