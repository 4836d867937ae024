"""Loads the libtbb of the ``tbb`` wheel, once, before anything that needs it.

pip puts it into the ``lib`` folder of the environment, which is not on the loader's path. Loaded here by its full path
it serves every later user in the process by its SONAME: our own module, MKL's TBB layer, Numba's tbb layer.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

SONAME = "libtbb.so.12"
loaded = ""  # by load(): its path, "" where one was in the process already
OLDEST = (2022, 2)
ADVICE = (
    f"install it with: pip install 'tbb>={OLDEST[0]}.{OLDEST[1]}' (into the environment of this interpreter; "
    "pip's --target leaves libraries of wheels out)"
)


def candidates() -> list[str]:
    """Folders that may hold libtbb, best first: beside this package, then the interpreter's, then the user's."""
    site_packages = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    above = os.path.dirname(os.path.dirname(site_packages))
    folders = [above, os.path.join(site_packages, "lib"), os.path.join(sys.prefix, "lib")]
    for entry in sys.path:
        if entry.endswith(("site-packages", "dist-packages")):
            folders.append(os.path.dirname(os.path.dirname(entry)))
        elif entry:
            folders.append(os.path.join(entry, "lib"))
    folders += [os.path.join(os.path.expanduser("~/.local"), "lib"), os.path.join(sys.base_prefix, "lib")]
    return list(dict.fromkeys(folders))


def load() -> str:
    """Load libtbb and return its path, or "" where one was in the process already.

    Raises
    ------
    ImportError
        If there is none, or one that is too old; the text says what to install.
    """
    # ctypes is too heavy for an import that a start-up hook may trigger; its C half is all that is needed.
    from _ctypes import dlopen, dlsym

    path = ""
    try:
        handle = dlopen(SONAME, os.RTLD_NOW | os.RTLD_NOLOAD)
    except OSError:
        handle, path = _open_first(dlopen)
    try:
        dlsym(handle, "_ZN3tbb6detail2r110initializeERNS0_2d115task_arena_baseE")
        dlsym(handle, "_ZN3tbb6detail2r120enter_parallel_phaseEPNS0_2d115task_arena_baseEm")
    except OSError:
        raise ImportError(f"composable_threads: {path or SONAME} is too old; {ADVICE}") from None
    global loaded
    loaded = os.path.realpath(path) if path else ""
    return path


def _open_first(dlopen: Callable[[str, int], int]) -> tuple[int, str]:
    tried = []
    for folder in candidates():
        path = os.path.join(folder, SONAME)
        if not os.path.exists(path):
            continue
        try:
            return dlopen(path, os.RTLD_NOW | os.RTLD_GLOBAL), path
        except OSError as error:
            tried.append(str(error))
    try:
        return dlopen(SONAME, os.RTLD_NOW | os.RTLD_GLOBAL), SONAME
    except OSError as error:
        tried.append(str(error))
    raise ImportError(f"composable_threads needs oneTBB ({'; '.join(tried)}); {ADVICE}")
