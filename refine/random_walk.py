"""Random walk of class activation maps over a boundary map (IRN's `propagate_to_edge`).

IRN squares a dense transition matrix T `exp_times` times: O((h w)^3) time, O((h w)^2) memory. Here T stays sparse
(a pixel has 69 neighbours at radius 5), and T^n x is the Chebyshev expansion

    T^n = sum_k P(|S_n| = k) C_k(T),   C_k the Chebyshev polynomials, S_n a walk of n fair steps of +-1,

which holds because z^n = E[C_|S_n|(z)] for every eigenvalue z of T, all real and in [-1, 1]. |S_n| seldom exceeds a
few sqrt(n), so 84 products replace the 256 of n = 2^8. Double precision, which costs little, keeps rounding
from growing with n.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from net.irn import PathIndex

if TYPE_CHECKING:
    import scipy.sparse

TRUNCATION = 1e-7    # probability mass of the Chebyshev terms left out: about the error relative to the input


def propagate(cam: np.ndarray, edge: np.ndarray, beta: float = 10, exp_times: int = 8, radius: int = 5) -> np.ndarray:
    """Spread activations to the pixels that no boundary separates from them.

    cam: (K, h, w) float, activations on the grid of `edge`; multiplied by 1 - edge before the walk.
    edge: (1, h, w) float, boundary probability in [0, 1].
    beta: exponent of the affinities; exp_times: the walk has 2^exp_times steps; radius: pixels of a step, exclusive.
        The defaults are IRN's, which SFC's release keeps.
    Returns (K, h, w) float32. Raises ValueError where the shapes disagree.
    """
    if cam.ndim != 3 or edge.shape != (1, *cam.shape[1:]):
        raise ValueError(f"expected cam (K, h, w) and edge (1, h, w), got {cam.shape} and {edge.shape}")
    transition = transition_matrix(edge[0], beta, radius)
    start = (cam * (1 - edge)).reshape(len(cam), -1).T                   # (h w, K)
    walked = apply_power(transition, np.ascontiguousarray(start, np.float64), 2 ** exp_times)
    return walked.T.reshape(cam.shape).astype(np.float32)


def transition_matrix(edge: np.ndarray, beta: float, radius: int) -> scipy.sparse.csr_array:
    """Matrix (h w, h w) whose row i holds pixel i's affinities, divided by their sum.

    edge: (h, w). The affinity of two pixels closer than `radius` is (1 - largest edge on the path)^beta, that of a
    pixel to itself is 1. The matrix is the transpose of IRN's, which multiplies from the right.
    """
    height, width = edge.shape
    path_index = PathIndex(radius)
    margin = path_index.margin
    padded = torch.from_numpy(np.array(edge, np.float32))[None]
    padded = F.pad(padded, (margin, margin, 0, margin))              # every pixel becomes a source
    affinity = (1 - path_index.path_maximum(padded)[0].double().numpy()) ** beta                # (D, h, w)

    row, column = np.mgrid[:height, :width]
    offset = np.array(path_index.destinations)[:, :, None, None]                                # (D, 2, 1, 1)
    inside = (row + offset[:, 0] < height) & (column + offset[:, 1] >= 0) & (column + offset[:, 1] < width)
    pixel = np.arange(height * width, dtype=np.int32).reshape(height, width)
    source = np.broadcast_to(pixel, inside.shape)[inside]
    destination = (pixel + offset[:, 0] * width + offset[:, 1])[inside].astype(np.int32)

    # Late, because every command reads the settings of the walk and few of them walk.
    import scipy.sparse
    pairs = scipy.sparse.csr_array((affinity[inside], (source, destination)), shape=(pixel.size, pixel.size))
    affinities = pairs + pairs.T + scipy.sparse.eye_array(pixel.size)
    return scipy.sparse.diags_array(1 / affinities.sum(axis=1)).dot(affinities).tocsr()


def apply_power(matrix: scipy.sparse.csr_array, x: np.ndarray, n: int) -> np.ndarray:
    """matrix^n @ x (size, K) for n >= 1; the eigenvalues of `matrix` must be real and in [-1, 1]."""
    weights = walk_distribution(n)
    previous, current = x, matrix @ x
    total = weights[0] * previous + weights[1] * current
    for weight in weights[2:]:
        previous, current = current, 2 * (matrix @ current) - previous
        if weight > 0:                                                   # every second one is 0
            total += weight * current
    return total


def walk_distribution(n: int, truncation: float = TRUNCATION) -> np.ndarray:
    """P(|S_n| = k), k = 0 .. K, of a walk of n >= 1 steps of +-1; the tail beyond K has less mass than `truncation`."""
    bound = int(np.ceil(np.sqrt(2 * n * np.log(2 / truncation))))        # Hoeffding: P(|S_n| >= d) <= 2 exp(-d^2 / 2n)
    k = np.arange(n % 2, min(n, bound) + 1, 2)
    ratio = (n - k[:-1]) / (n + k[:-1] + 2.0)                            # P(S_n = k + 2) / P(S_n = k)
    mass = np.cumprod(np.concatenate([[1.0], ratio]))
    mass[k > 0] *= 2                                                     # S_n = k or -k
    mass /= mass.sum()
    tail = np.cumsum(mass[::-1])[::-1]
    kept = tail >= truncation
    weights = np.zeros(max(int(k[kept][-1]), 1) + 1)
    weights[k[kept]] = mass[kept] / mass[kept].sum()                     # constants stay fixed points
    return weights
