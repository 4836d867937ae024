"""Calls of NumPy and SciPy that end in level-3 BLAS and LAPACK, in forms whose results compare up to rounding.

Factors are put together again where their columns are free to change sign or order. `CALLS[module][name](n)` with
matrices of about n x n; inputs are the same in every call.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg as sl


@functools.cache
def inputs(n: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(n)
    a, b = rng.standard_normal((2, n, n))
    tall, wide = rng.standard_normal((3 * n, n // 2)), rng.standard_normal((n // 2, 2 * n))
    c = a + 1j * b
    return {
        "a": a,
        "b": b,
        "f": np.asfortranarray(b),
        "tall": tall,
        "wide": wide,
        "spd": a @ a.T / n + np.eye(n),
        "sym": (a + a.T) / 2,
        "well": a + 3 * np.sqrt(n) * np.eye(n),
        "low": np.tril(a) + 2 * np.sqrt(n) * np.eye(n),
        "c": c,
        "herm": (c + c.conj().T) / 2,
        "cwell": c + 4 * np.sqrt(n) * np.eye(n),
        "a32": a.astype(np.float32),
        "b32": b.astype(np.float32),
        "well32": (a + 3 * np.sqrt(n) * np.eye(n)).astype(np.float32),
        "c64": c.astype(np.complex64),
        "stack": rng.standard_normal((4, n // 2, n // 2)) + n * np.eye(n // 2),
    }


def ordered(values: np.ndarray) -> np.ndarray:
    """Eigenvalues by distance from a point that none of them is likely to share with another."""
    return values[np.argsort(np.abs(values - (0.37 + 0.61j) * 100))]


def svd(x: np.ndarray, module: Any) -> tuple:
    u, s, vh = module.svd(x, full_matrices=False)
    return s, (u * s) @ vh


def eig(x: np.ndarray, module: Any) -> tuple:
    values, vectors = module.eig(x)
    return ordered(values), x @ vectors - vectors * values


def eigh(x: np.ndarray, module: Any) -> tuple:
    values, vectors = module.eigh(x)
    return values, (vectors * values) @ vectors.conj().T


def qr(x: np.ndarray, module: Any, **options: Any) -> tuple:
    q, r = module.qr(x, **options)
    return np.abs(np.diag(r)), q @ r, q.conj().T @ q


def numpy_calls() -> dict[str, Callable[..., Any]]:
    la = np.linalg
    return {
        "matmul": lambda a, b, **_: a @ b,
        "matmul, mixed orders": lambda a, f, **_: (a @ f, f @ a, a.T @ f, a @ f.T, a.T @ f.T),
        "matmul, tall": lambda tall, a, **_: tall @ a[: tall.shape[1]],
        "matmul, wide": lambda a, wide, **_: a[:, : wide.shape[0]] @ wide,
        "matmul, inner": lambda tall, **_: tall.T @ (tall + 1),
        "matmul, strided": lambda a, b, **_: a[::2, 1:] @ b[1:, ::3],
        "matmul, stack": lambda stack, **_: stack @ stack[::-1],
        "matmul, float32": lambda a32, b32, **_: a32 @ b32,
        "matmul, complex": lambda c, **_: c @ c.conj(),
        "matmul, complex64": lambda c64, **_: c64 @ c64.T,
        "matrix and vector": lambda a, b, **_: (a @ b[0], b[0] @ a),
        "dot": lambda a, b, **_: np.dot(a, b),
        "gram": lambda a, tall, **_: (a @ a.T, tall.T @ tall),  # syrk
        "gram, complex": lambda c, **_: c @ c.T,
        "inner": lambda a, b, **_: np.inner(a, b),
        "tensordot": lambda stack, **_: np.tensordot(stack, stack, axes=([0, 1], [0, 1])),
        "einsum": lambda a, b, f, **_: np.einsum("ij,jk,kl->il", a, b, f, optimize=True),
        "multi_dot": lambda tall, a, wide, **_: la.multi_dot([tall, wide, wide.T, a[: wide.shape[0]]]),
        "matrix_power": lambda a, **_: la.matrix_power(a / np.sqrt(len(a)), 5),
        "solve": lambda well, b, **_: la.solve(well, b),
        "solve, vector": lambda well, b, **_: la.solve(well, b[0]),
        "solve, complex": lambda cwell, c, **_: la.solve(cwell, c),
        "solve, float32": lambda well32, b32, **_: la.solve(well32, b32),
        "solve, stack": lambda stack, **_: la.solve(stack, stack[::-1]),
        "inv": lambda well, cwell, **_: (la.inv(well), la.inv(cwell)),
        "det": lambda well, **_: la.det(well / len(well)),
        "slogdet": lambda well, cwell, **_: (*la.slogdet(well), *la.slogdet(cwell)),
        "cholesky": lambda spd, **_: la.cholesky(spd),
        "qr": lambda a, tall, c, **_: (*qr(a, la), *qr(tall, la), *qr(c, la)),
        "svd": lambda a, tall, **_: (*svd(a, la), *svd(tall, la)),
        "svdvals": lambda a, **_: la.svd(a, compute_uv=False),
        "eig": lambda a, **_: eig(a, la),
        "eigvals": lambda a, **_: ordered(la.eigvals(a)),
        "eigh": lambda sym, herm, **_: (*eigh(sym, la), *eigh(herm, la)),
        "eigvalsh": lambda sym, **_: la.eigvalsh(sym),
        "lstsq": lambda tall, b, **_: la.lstsq(tall, np.resize(b, (len(tall), 3)), rcond=None)[0],
        "pinv": lambda tall, **_: la.pinv(tall),
        "matrix_rank": lambda wide, **_: la.matrix_rank(wide.T @ wide[:, ::2]),
        "norm": lambda a, **_: (la.norm(a, 2), la.norm(a, "nuc"), la.cond(a)),
    }


def scipy_calls() -> dict[str, Callable[..., Any]]:
    def schur(x: np.ndarray) -> tuple:
        t, z = sl.schur(x)
        return z @ t @ z.T, z.T @ z

    def hessenberg(x: np.ndarray) -> np.ndarray:
        h, q = sl.hessenberg(x, calc_q=True)
        return q @ h @ q.T

    def ldl(x: np.ndarray) -> np.ndarray:
        lower, d, _ = sl.ldl(x)
        return lower @ d @ lower.T

    def polar(x: np.ndarray) -> tuple:
        u, p = sl.polar(x)
        return u @ p, p

    return {
        "dgemm": lambda a, f, **_: (sl.blas.dgemm(1.0, a, f), sl.blas.dgemm(1.0, f, f, trans_a=True)),
        "zgemm": lambda c, **_: sl.blas.zgemm(1.0, c, c, trans_b=2),
        "dsyrk": lambda f, **_: np.tril(sl.blas.dsyrk(1.0, f, lower=1)),
        "dsymm": lambda sym, f, **_: sl.blas.dsymm(1.0, sym, f),
        "dtrsm": lambda low, f, **_: sl.blas.dtrsm(1.0, low, f, lower=1),
        "dtrmm": lambda low, f, **_: sl.blas.dtrmm(1.0, low, f, lower=1),
        "lu": lambda well, **_: functools.reduce(np.matmul, sl.lu(well)),
        "lu_factor, lu_solve": lambda well, b, **_: sl.lu_solve(sl.lu_factor(well), b),
        "solve": lambda well, spd, b, **_: (sl.solve(well, b), sl.solve(spd, b, assume_a="pos")),
        "solve, symmetric": lambda sym, b, **_: sym @ sl.solve(sym, b, assume_a="sym"),
        "solve_triangular": lambda low, b, **_: sl.solve_triangular(low, b, lower=True),
        "inv": lambda well, **_: sl.inv(well),
        "det": lambda well, **_: sl.det(well / len(well)),
        "cholesky": lambda spd, **_: (sl.cholesky(spd), sl.cholesky(spd, lower=True)),
        "cho_solve": lambda spd, b, **_: sl.cho_solve(sl.cho_factor(spd), b),
        "ldl": lambda sym, **_: ldl(sym),
        "qr": lambda a, tall, **_: (*qr(a, sl), *qr(tall, sl, mode="economic")),
        "rq": lambda a, **_: functools.reduce(np.matmul, sl.rq(a)),
        "svd": lambda a, tall, **_: (*svd(a, sl), *svd(tall, sl)),
        "eig": lambda a, **_: eig(a, sl),
        "eigvals": lambda a, **_: ordered(sl.eigvals(a)),
        "eigh": lambda sym, herm, **_: (*eigh(sym, sl), *eigh(herm, sl)),
        "eigh, generalised": lambda sym, spd, **_: sl.eigh(sym, spd, eigvals_only=True),
        "schur": lambda a, **_: schur(a),
        "hessenberg": lambda a, **_: hessenberg(a),
        "polar": lambda well, **_: polar(well),
        "expm": lambda a, **_: sl.expm(a / np.sqrt(len(a))),
        "sqrtm": lambda spd, **_: sl.sqrtm(spd),
        "lstsq": lambda tall, b, **_: sl.lstsq(tall, np.resize(b, (len(tall), 3)))[0],
        "pinv": lambda tall, **_: sl.pinv(tall),
        "null_space": lambda wide, **_: np.abs(wide @ sl.null_space(wide)).max() < 1e-9,
        "solve_sylvester": lambda well, spd, b, **_: sl.solve_sylvester(well, spd, b),
    }


CALLS = {"numpy": numpy_calls(), "scipy": scipy_calls()}


def compute(module: str, name: str, n: int) -> tuple:
    found = CALLS[module][name](**inputs(n))
    return found if isinstance(found, tuple) else (found,)


def same(one: tuple, other: tuple) -> bool:
    """Equal but for rounding, which is as coarse as the type and as the largest element."""
    for x, y in zip(map(np.asarray, one), map(np.asarray, other), strict=True):
        single = x.dtype in (np.float32, np.complex64)
        scale = max(1.0, float(np.abs(x).max()))
        if (
            x.dtype != y.dtype
            or x.shape != y.shape
            or not np.abs(x.astype(complex) - y).max() <= (1e-3 if single else 1e-8) * scale
        ):
            return False
    return True
