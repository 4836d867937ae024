"""Makes the name ``composable`` known to Numba, Joblib and Dask when, and only when, they are imported.

A finder on ``sys.meta_path`` waits for the names of a few modules. At interpreter start ``composable_threads.pth`` puts
one there that is a single line, since importing even an empty module costs more than a millisecond then; it imports
this module when a host is asked for. From Python 3.15 on ``composable_threads.start`` (PEP 829) calls `boot_from_site`
instead. What is done to each host stands in that host's folder, in ``hook.py``; a hook loads neither this project's
native module nor libtbb before ``composable`` is really selected, so that a program which does not select it sees no
difference.

A host older than `OLDEST` keeps its stock behaviour; a warning says so when ``composable`` is first asked of it.

``COMPOSABLE_AUTOLOAD=0`` turns this off; ``import composable_threads`` then does the same.
"""

import sys

TYPE_CHECKING = False  # importing typing would be a cost of every start, as would __future__
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

HOOKS = {
    "numba.np.ufunc.parallel": "numba_layer",
    "joblib.parallel": "joblib_backend",
    "dask.base": "dask_backend",
    "distributed.nanny": "dask_backend/nanny",
    "threadpoolctl": "user_limits",
}

# Releases that the hooks fit, as pyproject.toml states them.
OLDEST = {"numba": (0, 60), "joblib": (1, 4), "dask": (2025, 1)}

# Modules that bring a library whose width ``activate()`` bounds.
LOADS_LIBRARY = frozenset(["numpy.linalg", "scipy.linalg", "sklearn.utils._openmp_helpers", "sklearn"])

active = False  # inside `composable_threads.activate()`
codes: "dict[str, Any]" = {}  # host module -> its hook
hooks: "dict[str, Any]" = {}  # host module -> its hook, once run
warned: "set[str]" = set()  # hosts that stood aside
failures: "dict[str, str]" = {}  # host module -> what went wrong in its hook; `composable_threads.info()` tells


class HostFinder:
    """Finds the host modules as everyone else does and runs their hook once they are executed."""

    def find_spec(self, name: str, path: "Any" = None, target: "Any" = None) -> "ModuleSpec | None":
        if name not in HOOKS and not (active and name in LOADS_LIBRARY):
            return None
        for finder in sys.meta_path:
            if isinstance(finder, HostFinder) or _is_from_site(finder) or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                _hook_after(spec)
                return spec
        return None


def _hook_after(spec: "ModuleSpec") -> None:
    loader: Any = spec.loader
    execute = getattr(loader, "exec_module", None)
    if execute is None:
        return

    def exec_module(module: "ModuleType") -> None:
        del loader.exec_module
        if module.__name__ in HOOKS:
            run = getattr(load(module.__name__), "execute", None)
            if run is not None:
                run(execute, hook, module)
            else:
                execute(module)
                hook(module)
        else:
            execute(module)
            sys.modules["composable_threads._native"].cap_widths(True)

    try:
        loader.exec_module = exec_module
    except AttributeError:  # a loader without attributes of its own: `import composable_threads` is left
        pass


def load(host: str) -> "Any":
    """The hook of a host module, or None."""
    from importlib.util import module_from_spec, spec_from_file_location
    from os.path import abspath, dirname, join

    if host not in codes:
        codes[host] = None
        try:
            file = join(dirname(abspath(__file__)), "composable_threads", HOOKS[host], "hook.py")
            spec: Any = spec_from_file_location("_composable_threads_" + HOOKS[host], file)
            code = module_from_spec(spec)
            spec.loader.exec_module(code)
            codes[host] = code
        except Exception as error:  # a half removed installation: the host's import must go on
            failures[host] = f"{type(error).__name__}: {error}"
    return codes[host]


def hook(module: "ModuleType") -> None:
    """Run the hook of a host module that has been imported. Doing it twice changes nothing."""
    code = load(module.__name__)
    if code is None or module.__name__ in hooks:
        return
    try:
        code.install(module)
        hooks[module.__name__] = code
        if active:
            code.activate(module)
    except Exception as error:  # a host we do not fit: its import must go on
        failures[module.__name__] = f"{type(error).__name__}: {error}"


def version_of(host: str) -> str:
    """Version of an imported host as text, empty if nobody knows."""
    found = getattr(sys.modules.get(host), "__version__", None)
    if found is None:  # Dask says it at the end of its import
        from importlib.metadata import PackageNotFoundError, version

        try:
            found = version(host)
        except PackageNotFoundError:
            found = ""
    return str(found)


def is_too_old(host: str) -> bool:
    """Whether an imported host is older than we fit. A build without a number ("0+unknown") is taken for a new one."""
    numbers = []
    for part in version_of(host).split("+")[0].split(".")[:2]:
        if not part.isdigit():
            break
        numbers.append(int(part))
    return any(numbers) and tuple(numbers) < OLDEST[host]


def stands_aside(host: str) -> bool:
    """`is_too_old`, for the moment at which ``composable`` is asked of the host: the first time it warns."""
    if not is_too_old(host):
        return False
    if host not in warned:
        warned.add(host)
        from warnings import warn

        oldest = ".".join(map(str, OLDEST[host]))
        text = f"composable_threads needs {host} {oldest} or newer; {host} {version_of(host)} keeps its own threads"
        warn(text, RuntimeWarning, stacklevel=3)
    return True


def set_active(on: bool) -> None:
    """Open or close, in all hosts that are imported, what ``activate()`` opens; later ones follow when they are."""
    global active
    active = on
    for name, code in hooks.items():
        if on:
            code.activate(sys.modules[name])
        else:
            code.deactivate(sys.modules[name])


def boot() -> None:
    """Start waiting for the hosts; hook those that are imported already."""
    if not any(isinstance(finder, HostFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, HostFinder())
    for name in HOOKS:
        module = sys.modules.get(name)
        if module is not None:
            hook(module)


def _is_from_site(finder: "Any") -> bool:
    return bool(getattr(finder, "__name__", "") == "ComposableSiteFinder")


def find_from_site(name: str, path: "Any" = None, target: "Any" = None) -> "ModuleSpec | None":
    """What the ``.pth`` file's finder asks when a host is imported for the first time. Ours takes its place."""
    if not _wanted():
        return None
    # In a virtual environment site reads the folder twice. Those behind the one that asks are removed, so that the
    # import which is under way skips no finder.
    first, *others = [finder for finder in sys.meta_path if _is_from_site(finder)]
    sys.meta_path[sys.meta_path.index(first)] = HostFinder()
    for finder in others:
        sys.meta_path.remove(finder)
    boot()
    return HostFinder().find_spec(name, path, target)


def _wanted() -> bool:
    from os import environ

    return environ.get("COMPOSABLE_AUTOLOAD", "1") != "0"


def boot_from_site() -> None:
    """Entry of the ``.start`` file, and of Numba's entry point where site did not run."""
    if _wanted():
        boot()


def numba_init() -> None:
    """Numba's entry point ``numba_extensions: init``: it runs before a cached function is loaded or one is compiled."""
    boot_from_site()
    parallel = sys.modules.get("numba.np.ufunc.parallel")
    if parallel is not None and hasattr(parallel, "_composable_threads_init"):
        parallel._composable_threads_init()
