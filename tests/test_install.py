"""Where the package and libtbb may lie, what an import loads, and what a program sees that never asked for us."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from fresh import check_fresh, run_fresh

SITE = Path(sysconfig.get_path("purelib"))
LIBTBB = Path(sysconfig.get_path("data")) / "lib" / "libtbb.so.12"
NAMES = ["composable_threads", "_composable_threads_boot.py", "composable_threads.pth"]
# An interpreter without the packages of this environment.
BARE = os.path.realpath(sys.executable)

WHERE = "import composable_threads, json; print(json.dumps(composable_threads.info()['tbb']))"


def copy_package(site: Path) -> None:
    site.mkdir(parents=True)
    for name in NAMES:
        if (SITE / name).is_dir():
            shutil.copytree(SITE / name, site / name)
        else:
            shutil.copy(SITE / name, site)


def run_bare(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COMPOSABLE", "LD_"))}
    return subprocess.run([BARE, "-c", code], env=clean | env, capture_output=True, text=True, timeout=60)


def test_libtbb_of_this_environment_is_found_without_any_variable():
    found = json.loads(check_fresh(WHERE))
    assert Path(found["path"]).samefile(LIBTBB)


def test_libtbb_of_a_user_install_is_found(tmp_path):
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    copy_package(tmp_path / "lib" / version / "site-packages")
    shutil.copy(LIBTBB, tmp_path / "lib")
    result = run_bare(WHERE, PYTHONUSERBASE=str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["path"] == str(tmp_path / "lib" / "libtbb.so.12")


def test_libtbb_in_the_lib_folder_of_a_target_install_is_found(tmp_path):
    copy_package(tmp_path / "target")
    (tmp_path / "target" / "lib").mkdir()
    shutil.copy(LIBTBB, tmp_path / "target" / "lib")
    result = run_bare(WHERE, PYTHONPATH=str(tmp_path / "target"))
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["path"] == str(tmp_path / "target" / "lib" / "libtbb.so.12")


def test_a_target_install_finds_the_libtbb_of_its_interpreter(tmp_path):
    copy_package(tmp_path / "target")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LD_"))}
    command = [sys.executable, "-c", WHERE]
    env = clean | {"PYTHONPATH": str(tmp_path / "target")}
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert Path(json.loads(result.stdout)["path"]).samefile(LIBTBB)


def test_without_libtbb_the_import_says_what_to_install(tmp_path):
    copy_package(tmp_path / "target")
    result = run_bare("import composable_threads", PYTHONPATH=str(tmp_path / "target"))
    if result.returncode == 0:
        pytest.skip("the system has a libtbb of its own")
    assert "ImportError: composable_threads needs oneTBB" in result.stderr
    assert "pip install 'tbb>=" in result.stderr


def test_a_libtbb_that_is_too_old_is_refused_by_name(tmp_path):
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    copy_package(tmp_path / "target")
    library = tmp_path / "target" / "lib" / "libtbb.so.12"
    library.parent.mkdir()
    build = [compiler, "-shared", "-fPIC", "-Wl,-soname,libtbb.so.12", "-x", "c", "-", "-o", str(library)]
    subprocess.run(build, input="int TBB_runtime_interface_version(void) { return 12010; }", text=True, check=True)
    result = run_bare("import composable_threads", PYTHONPATH=str(tmp_path / "target"))
    assert result.returncode != 0
    assert (
        f"ImportError: composable_threads: {library} is too old; install it with: pip install 'tbb>=" in result.stderr
    )


def test_numbas_own_tbb_layer_is_found_after_our_import():
    code = "\n".join(
        [
            "import composable_threads, numba",
            "@numba.njit(parallel=True)",
            "def total(n):",
            "    s = 0",
            "    for i in numba.prange(n): s += i",
            "    return s",
            "assert total(1000) == 499500",
            "print(numba.threading_layer())",
        ]
    )
    assert check_fresh(code, env={"NUMBA_THREADING_LAYER": "tbb"}).strip() == "tbb"


def test_import_stays_light():
    code = "import sys, composable_threads; print(*sys.modules)"
    loaded = {name.split(".")[0] for name in check_fresh(code).split()}
    assert not loaded & {
        "numba",
        "dask",
        "joblib",
        "numpy",
        "scipy",
        "sklearn",
        "distributed",
        "concurrent",
        "multiprocessing",
    }


def test_start_up_hook_loads_neither_the_package_nor_libtbb():
    code = """
import sys
assert "_composable_threads_boot" not in sys.modules
import joblib, dask.base, numba.np.ufunc.parallel
assert "composable" in joblib.parallel.BACKENDS and "composable" in dask.base.named_schedulers
assert not [name for name in sys.modules if name.startswith("composable_threads")]
print("libtbb" in open("/proc/self/maps").read())
"""
    assert check_fresh(code).strip() == "False"


def test_start_up_hook_imports_no_module_of_the_standard_library():
    # What site itself has loaded by then is not loaded by us.
    code = "import sys; print(*sys.modules)"
    with_hook = set(check_fresh(code).split())
    without = set(check_fresh(code, env={"COMPOSABLE_AUTOLOAD": "0"}).split())
    assert with_hook == without
    assert not [name for name in with_hook if "composable" in name]


def test_the_line_in_the_site_folder_waits_for_every_host():
    # It cannot ask the module which names it waits for: not importing that is its purpose.
    code = """
import sys
finder = next(finder for finder in sys.meta_path if getattr(finder, "__name__", "") == "ComposableSiteFinder")
import _composable_threads_boot as boot
asked = []
boot.find_from_site = lambda name, *_: asked.append(name)
for name in [*boot.HOOKS, "numpy", "numba"]:
    assert finder.find_spec(name) is None
assert asked == list(boot.HOOKS), asked
assert not any(isinstance(finder, boot.HostFinder) for finder in sys.meta_path)
"""
    check_fresh(code)


def test_one_finder_is_left_when_a_host_was_imported():
    code = """
import sys, joblib, dask.base, composable_threads
import _composable_threads_boot as boot
print([type(finder).__name__ for finder in sys.meta_path].count("HostFinder"), sorted(boot.hooks), boot.failures)
print(any(getattr(finder, "__name__", "") == "ComposableSiteFinder" for finder in sys.meta_path))
"""
    assert check_fresh(code).splitlines() == ["1 ['dask.base', 'joblib.parallel'] {}", "False"]


def test_autoload_can_be_turned_off():
    code = "import sys, joblib; print('composable' in joblib.parallel.BACKENDS)"
    assert check_fresh(code, env={"COMPOSABLE_AUTOLOAD": "0"}).strip() == "False"
    later = code.replace("joblib;", "joblib, composable_threads;")
    assert check_fresh(later, env={"COMPOSABLE_AUTOLOAD": "0"}).strip() == "True"


@pytest.mark.parametrize("host", ["numba", "joblib", "dask", "distributed", "numpy"])
def test_everything_else_works_without_a_host(host):
    code = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == {host!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
import composable_threads
with composable_threads.activate():
    with composable_threads.Executor(2) as executor:
        print(sum(executor.map(abs, range(-5, 5))))
    composable_threads.info()
"""
    assert check_fresh(code).strip() == "25"


@pytest.mark.parametrize(
    ("module", "host"),
    [("numba_layer.layer", "numba"), ("joblib_backend", "joblib"), ("dask_backend", "dask")],
)
def test_asking_for_a_missing_host_says_what_to_install(module, host):
    code = f"""
import sys
for name in ({host!r}, "llvmlite"):
    sys.modules[name] = None
import composable_threads.{module}
"""
    result = run_fresh(code)
    assert result.returncode == 1
    assert f"pip install 'composable-threads[{host}]'" in result.stderr.splitlines()[-1]


def test_versions_agree():
    import importlib.metadata

    import composable_threads

    assert composable_threads.__version__ == importlib.metadata.version("composable-threads")


def test_stub_names_what_the_native_module_has():
    import ast

    from composable_threads import _native

    tree = ast.parse((SITE / "composable_threads" / "_native.pyi").read_text())
    stub = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assert stub == {name for name in vars(_native) if not name.startswith("__")}


def test_the_installed_package_is_whole():
    # What cibuildwheel asks of every wheel.
    script = Path(__file__).with_name("check_wheel.py")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
