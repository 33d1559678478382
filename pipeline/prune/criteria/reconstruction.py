# SPDX-License-Identifier: Apache-2.0
"""What the readers lose after the best refit.

Least squares on the readers' own outputs (He et al. 2017, "Channel Pruning for Accelerating Very Deep Neural
Networks", arXiv:1707.06168; Luo et al. 2017, "ThiNet", arXiv:1707.06342), solved in closed form as optimal
brain surgery does (Frantar & Alistarh 2022, "Optimal Brain Compression", arXiv:2208.11580). With C the
covariance of what a layer reads (a new bias takes up the means), H = (C + ridge)^-1, W its weights, and S the
channels of atom a, removing a and refitting all that is left costs

    loss_a = trace(W_S' (H_SS)^-1 W_S),   then   W <- W - H_:S (H_SS)^-1 W_S,   H <- H - H_:S (H_SS)^-1 H_S:

The cheapest atom goes first and the update is made, so that of two equal channels one is free and the other
is not. The score is that loss as a share of the layer's output variance, summed over the readers; it never
falls from one removal to the next. A kernel's taps are taken to see the same C and to add up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ....passes.linear.patches import Moments, Patches
from .base import Request, Scores
from .l2 import L2
from .readers import Reader, measured
from .surgery import Surgery

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Wide = NDArray[np.float64]

_RIDGE = 1e-3  # of the mean variance
_NEXT = 1.0 + 1e-9  # what goes later scores higher, if only by this


@dataclass(frozen=True)
class Reconstruction:
    """Output energy lost when the atom goes and its readers are refitted by least squares."""

    name: ClassVar[str] = "reconstruction"
    needs_data: ClassVar[bool] = True

    def score(self, request: Request) -> Scores:
        """See `Criterion.score`; the seed draws the places that count. Unread groups are judged by `l2`."""
        scores = L2().score(request)
        for group, found, moments in measured(request, self.name, between=True):
            scores[group.name] = eliminate(_problems(found, moments), group.atoms)
        return scores


@dataclass
class Problem:
    """One activation and everything that reads it.

    Attributes:
        inverse: H, ``[channels, channels]``; ``[channels]`` when there are too many channels to refit.
        gram: ``W W'`` of the same shape, each reader's as a share of its output variance.
        members: ``[atoms, channels per atom]``.
    """

    inverse: Wide
    gram: Wide
    members: NDArray[np.int64]

    def __post_init__(self) -> None:
        singles = self.inverse.ndim == 2 and self.members.shape[1] == 1
        self._surgery = Surgery(self.inverse, self.gram) if singles else None

    def losses(self, alive: NDArray[np.int64]) -> Wide:
        """What each living atom costs now."""
        chosen = self.members[alive]
        if self.inverse.ndim == 1:
            return (self.gram[chosen] / self.inverse[chosen]).sum(axis=1)
        if self._surgery is not None:
            return self._surgery.losses(chosen[:, 0])
        rows, columns = chosen[:, :, None], chosen[:, None, :]
        solved = np.linalg.solve(self.inverse[rows, columns], self.gram[rows, columns])
        return np.trace(solved, axis1=1, axis2=2)

    def remove(self, atom: int) -> None:
        """Take an atom out and refit the rest."""
        gone = self.members[atom]
        if self._surgery is not None:
            self._surgery.remove(int(gone[0]))
            return
        if self.inverse.ndim == 1:
            return
        across = self.inverse[:, gone]
        step = np.transpose(np.linalg.solve(across[gone], np.transpose(across)))  # H_:S (H_SS)^-1
        mixed = np.matmul(step, self.gram[gone])
        inner = np.matmul(step, self.gram[np.ix_(gone, gone)])
        self.gram += np.matmul(inner, np.transpose(step)) - mixed - np.transpose(mixed)
        self.inverse -= np.matmul(step, np.transpose(across))
        # What is left of the removed rows is rounding; it must not leak into later steps.
        self.inverse[gone] = self.inverse[:, gone] = self.gram[gone] = self.gram[:, gone] = 0.0


def _problems(found: list[Reader], moments: Mapping[Patches, Moments]) -> list[Problem]:
    by_patches: dict[Patches, list[Reader]] = {}
    for reader in found:
        by_patches.setdefault(reader.patches, []).append(reader)
    problems = [problem_of(each, moments[patches]) for patches, each in by_patches.items()]
    return [problem for problem in problems if problem is not None]


def problem_of(found: list[Reader], moments: Moments) -> Problem | None:
    """The problem of one activation's readers; None when its atoms differ in size."""
    atom_of = found[0].atom_of
    members = np.argsort(atom_of, kind="stable")[np.count_nonzero(atom_of < 0) :]
    atoms = int(atom_of.max(initial=-1)) + 1
    if not atoms or np.unique(np.bincount(atom_of[members])).size != 1:
        return None
    members = members.reshape(atoms, -1)
    variance = moments.variance()[0]
    floor = _RIDGE * float(variance.mean()) or 1.0
    if moments.outer is None:
        gram = np.zeros_like(variance)
        for reader in found:
            columns = reader.columns.astype(np.float64)
            squares = np.einsum("cn,cn->c", columns, columns)
            energy = float(squares @ variance)
            gram += squares / energy if energy > 0.0 else 0.0
        return Problem(1.0 / (variance + floor), gram, members)
    covariance: Wide = moments.covariance()[0]
    gram = np.zeros_like(covariance)
    for reader in found:
        columns = reader.columns.astype(np.float64)
        products = np.matmul(columns, np.transpose(columns))
        energy = float(np.asarray(np.vdot(products, covariance), np.float64))
        if energy > 0.0:
            products /= energy
            gram += products
    index = np.arange(len(covariance))
    covariance[index, index] += floor
    return Problem(np.asarray(np.linalg.inv(covariance), np.float64), gram, members)


def eliminate(problems: list[Problem], atoms: int) -> Wide:
    """Scores ``[atoms]``: atoms are removed, cheapest first, until none is left; the problems are used up."""
    scores = np.zeros(atoms)
    alive = np.arange(atoms)
    highest = 0.0
    while alive.size:
        losses = sum((problem.losses(alive) for problem in problems), np.zeros(alive.size))
        cheapest = int(np.argmin(losses))
        highest = max(highest * _NEXT, float(losses[cheapest]))
        scores[alive[cheapest]] = highest
        for problem in problems:
            problem.remove(int(alive[cheapest]))
        alive = np.delete(alive, cheapest)
    return scores
