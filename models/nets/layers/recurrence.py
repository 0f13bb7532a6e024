"""Gated recurrent units through time and back, as torch.nn.GRU computes them (Cho et al. 2014, with a bias of its own
within the reset gate).

    r  = σ(W_ir x + b_ir + W_hr h + b_hr)          how much of the state is seen
    z  = σ(W_iz x + b_iz + W_hz h + b_hz)          how much of it stays
    m  = W_hn h + b_hn
    c  = tanh(W_in x + b_in + r m)                 the candidate
    h' = c + z (h - c)

With d the gradient by h', those by what stands in the brackets, and by m, are

    dc = d (1 - z) (1 - c²)        dz = d (h' - c) (1 - z)        dm = dc r        dr = dc m r (1 - r)

and d z + W_hr^T dr + W_hz^T dz + W_hn^T dm goes on to the state before. All but d is known of every moment at once: a
moment is then six calls of NumPy back, and twelve forward. A call takes a microsecond, however little it does, so that
their number is what a small net costs.

σ(a) = (1 + tanh(a/2)) / 2, since NumPy's tanh is vectorised on every processor; the half of a is in the weights, which
is exact.

Everything that a moment has lies in one array, (4, moments, n, units), in the order c, z, r, m: what is done to two
gates is done in one call, and the products of all moments are one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from models.nets.layers.layer import Place
from models.params import Float32

_WITHIN = (1, 0, 2)
"""z, r, m in the order of Torch, which is r, z, n."""


class Cell(NamedTuple):
    """The tensors of one layer of units, as torch.nn.GRU has them: gates in the order r, z, n."""

    weight_ih: Float32
    """(3 units, columns)"""
    weight_hh: Float32
    """(3 units, units)"""
    bias_ih: Float32
    bias_hh: Float32
    """(3 units,)"""


class Kept(NamedTuple):
    """What `forward` leaves for `backward`, which overwrites the gates."""

    x: Float32
    """(moments, n, columns)"""
    gates: Float32
    """(4, moments, n, units): c, z, r, m."""
    states: Float32
    """(moments + 1, n, units): the one before the first moment comes first."""


def forward(place: Place, x: Float32, cell: Cell, h: Float32 | None = None) -> Kept:
    """Go through all moments of x, (moments, n, columns), from a state h, (n, units), or from zeros."""
    units = cell.weight_hh.shape[1]
    n_moments, n, columns = x.shape
    gates = place.array("gates", (4, n_moments, n, units))
    states = place.array("states", (n_moments + 1, n, units))
    states[0] = 0.0 if h is None else h
    into, within, bias, bias_m = _halved(place, cell)
    np.matmul(x.reshape(-1, columns), into, out=gates[:3].reshape(3, -1, units))
    gates[:3] += bias
    said = place.array("said", (3, n, units))
    said_zr, said_c = said[:2], said[2]
    moments = zip(states[:-1], states[1:], gates.swapaxes(0, 1), gates[1:3].swapaxes(0, 1), strict=True)
    for before, after, (c, z, r, m), zr in moments:
        np.matmul(before, within, out=said)
        zr += said_zr
        np.tanh(zr, out=zr)
        zr *= 0.5
        zr += 0.5
        np.add(said_c, bias_m, out=m)
        np.multiply(r, m, out=said_c)
        c += said_c
        np.tanh(c, out=c)
        np.subtract(before, c, out=after)
        after *= z
        after += c
    return Kept(x, gates, states)


def backward(place: Place, kept: Kept, cell: Cell, d: Float32, each: Float32 | None) -> Float32:
    """Return the gradients by what stands in the brackets, (4, moments, n, units): c, z, r, m, where the gates were.

    d: the gradient by the last state, (n, units), which is overwritten. each: what is to be added to that by the state
    after each moment, (moments, n, units), or None for nothing.
    """
    stays = _without_d(place, kept)
    units = cell.weight_hh.shape[1]
    within = place.array("within", (3, units, units))
    np.take(cell.weight_hh.reshape(3, units, units), _WITHIN, axis=0, out=within)
    parts = place.array("parts", (4, *d.shape))
    gates = kept.gates.swapaxes(0, 1)
    for t in range(len(gates) - 1, -1, -1):
        moment = gates[t]
        if each is not None:
            d += each[t]
        cz, rm = moment[:2], moment[2:]
        np.multiply(d, cz, out=cz)
        np.multiply(moment[0], rm, out=rm)
        np.matmul(moment[1:], within, out=parts[:3])
        np.multiply(d, stays[t], out=parts[3])
        np.add.reduce(parts, axis=0, out=d)
    return kept.gates


def gradients_of(place: Place, kept: Kept, d: Float32, gradients: Sequence[Float32 | None]) -> None:
    """Write the gradients of a cell's tensors, in the order of `Cell`; None for one that does not move.

    d: what `backward` gave.
    """
    units = d.shape[3]
    flat = d.reshape(4, -1, units)
    x, states = kept.x.reshape(flat.shape[1], -1), kept.states[:-1].reshape(flat.shape[1], units)
    sums = place.array("sums", (4, units))
    ones = place.array("ones", (flat.shape[1],))
    ones[...] = 1.0
    np.matmul(ones, flat, out=sums)
    for of_weight, of_bias, seen, gates in zip(gradients[:2], gradients[2:], (x, states), (_INTO, _FROM), strict=True):
        for k, gate in enumerate(gates):
            rows = slice(k * units, (k + 1) * units)
            if of_weight is not None:
                np.matmul(flat[gate].T, seen, out=of_weight[rows])
            if of_bias is not None:
                of_bias[rows] = sums[gate]


_INTO, _FROM = (2, 1, 0), (2, 1, 3)
"""r, z, n of Torch among c, z, r, m: of what comes in, and of what comes from the state."""


def by_input(place: Place, d: Float32, cell: Cell) -> Float32:
    """Return the gradient by x, (moments, n, columns). d: what `backward` gave."""
    _, n_moments, n, units = d.shape
    columns = cell.weight_ih.shape[1]
    found, part = (place.array(name, (n_moments * n, columns)) for name in ("dx", "dx of a gate"))
    weights = cell.weight_ih.reshape(3, units, columns)
    for k, gate in enumerate(_INTO):
        np.matmul(d[gate].reshape(-1, units), weights[k], out=part if k else found)
        if k:
            found += part
    return found.reshape(n_moments, n, columns)


def _halved(place: Place, cell: Cell) -> tuple[Float32, Float32, Float32, Float32]:
    """Return the weights to c, z, r of x, (3, columns, units), and to z, r, m of h, (3, units, units), and the biases
    of both, (3, 1, 1, units) and (units,): what leads to a gate is halved.
    """
    units, columns = cell.weight_hh.shape[1], cell.weight_ih.shape[1]
    into = place.array("into", (3, columns, units))
    into[...] = cell.weight_ih.reshape(3, units, columns)[::-1].swapaxes(1, 2)
    into[1:] *= 0.5
    within = place.array("within", (3, units, units))
    within[0], within[1], within[2] = (cell.weight_hh[k * units : (k + 1) * units].T for k in _WITHIN)
    within[:2] *= 0.5
    bias = place.array("bias", (3, 1, 1, units))
    by_gate, of_state = cell.bias_ih.reshape(3, 1, 1, units), cell.bias_hh.reshape(3, 1, 1, units)
    bias[...] = by_gate[::-1]
    bias[1:] += of_state[1::-1]
    bias[1:] *= 0.5
    return into, within, bias, cell.bias_hh[2 * units :]


def _without_d(place: Place, kept: Kept) -> Float32:
    """Turn the gates of all moments into what is multiplied by the gradient there, and return z.

    c, z, r, m become (1 - z)(1 - c²), (h' - c)(1 - z), m r (1 - r), r.
    """
    c, z, r, m = kept.gates
    stays, spare = place.array("stays", z.shape), place.array("spare", z.shape)
    stays[...] = z
    np.subtract(1.0, z, out=spare)
    np.subtract(kept.states[1:], c, out=z)
    z *= spare
    np.square(c, out=c)
    np.subtract(1.0, c, out=c)
    c *= spare
    np.subtract(1.0, r, out=spare)
    spare *= r
    spare *= m
    m[...] = r
    r[...] = spare
    return stays
