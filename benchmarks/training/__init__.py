"""What local training costs, kind by kind: `python -m benchmarks.training`.

`rows` lists the nets and the goals, `eager` has each of them as Torch's own tutorial writes it, `products` the bare
matrix products of a perceptron, `turns` takes the times, `epochs` what weights of rows cost, `agents` the memory of
agents that train.
"""

import os

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # before NumPy is loaded: it reads them once
