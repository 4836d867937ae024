"""What a loaded BLAS or OpenMP library says of itself, and who brought it."""

from __future__ import annotations

import ctypes
import functools
import os
from typing import Any

# Names under which builds of OpenBLAS export their configuration.
_CONFIGS = tuple(
    f"{prefix}openblas_get_config{suffix}" for prefix in ("", "scipy_") for suffix in ("", "64_", "_64", "_64_")
)


def version_of(library: dict[str, Any]) -> str | None:
    """What an OpenBLAS says its version and core are. Others say nothing that could be asked without starting them."""
    if library["path"] is None or library["kind"] != "openblas":
        return None
    return _openblas_config(library["path"])


@functools.cache
def _openblas_config(path: str) -> str | None:
    try:
        loaded = ctypes.CDLL(path, mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
    except OSError:
        return None
    for name in _CONFIGS:
        config = getattr(loaded, name, None)
        if config is not None:
            config.restype = ctypes.c_char_p
            text = (config() or b"").decode(errors="replace").split()
            return " ".join(word for word in text if word != "OpenBLAS" and not word.startswith("MAX_THREADS")) or None
    return None


def origin_of(path: str | None) -> str | None:
    """The package, or folder, that a library came with: "numpy" for ``.../site-packages/numpy.libs/libfoo.so``."""
    if path is None:
        return None
    parts = path.split(os.sep)
    for packages in ("site-packages", "dist-packages"):
        if packages in parts[:-2]:
            return parts[parts.index(packages) + 1].removesuffix(".libs")
    return os.path.dirname(path)
