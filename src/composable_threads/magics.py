"""``%load_ext composable_threads``: magics for IPython and notebooks. Nothing imports this module before that."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from argparse import Namespace
from dataclasses import dataclass
from typing import Any

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class
from IPython.core.magic_arguments import argument, magic_arguments, parse_argstring

from .__main__ import positive_integer, positive_seconds
from ._compare import Sample
from .activation import Activation, activate
from .information import info

_LINE, _CELL = "composable", "composable_compare"


@dataclass(frozen=True, repr=False)
class Comparison:
    """What ``%%composable_compare`` returns: every run, and a table of medians, as which it shows itself."""

    stock: list[Sample]
    composable: list[Sample]
    table: str

    def __repr__(self) -> str:
        return self.table


@magics_class
class ComposableMagics(Magics):
    """The magics, and the activation that ``%composable activate`` began in this shell."""

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self.activation: Activation | None = None

    @magic_arguments()
    @argument("what", nargs="?", choices=("activate", "deactivate", "info"), default="info", help="default: info")
    @argument("-p", dest="slots", metavar="P", type=positive_integer, help="activate with so many slots")
    @line_magic(_LINE)
    def composable(self, line: str) -> dict[str, Any] | None:
        """Route this session's pools to the arena, stop doing so, or tell what the arena is.

        ``%composable activate`` does what ``composable_threads.activate()`` does, from here on. It is best in the first
        cell: Numba chooses its layer once, and libraries that are loaded already spin as they did. ``%composable info``
        returns ``composable_threads.info()``.
        """
        options = _parse(self.composable, line)
        if options.slots is not None and options.what != "activate":
            raise UsageError("-p goes with activate only")
        if options.what == "info":
            return info()
        if options.what == "deactivate":
            self.deactivate()
            return None
        try:
            begun = activate(slots=options.slots)
        except (ValueError, RuntimeError) as error:
            raise UsageError(str(error)) from None
        self.deactivate()  # activations nest, so the doors stay open between the two
        self.activation = begun
        facts = info()
        print("\n".join([f"active, {facts['slots']} slots", *facts["advice"]]))
        return None

    @magic_arguments()
    @argument("-p", dest="slots", metavar="P", type=positive_integer, help="slots of the arena in the composable runs")
    @argument("--rounds", metavar="N", type=positive_integer, default=3, help="runs of each (default: 3)")
    @argument("--timeout", metavar="SECONDS", type=positive_seconds, help="give a run up after so long")
    @argument("-o", dest="name", metavar="NAME", help="keep the runs in a variable: NAME.stock, NAME.composable")
    @cell_magic(_CELL)
    def composable_compare(self, line: str, cell: str) -> Comparison:
        """Run the cell as a program of its own, stock and composable in turn, and show what that took.

        The program is plain Python. It knows nothing of this session but the current directory, from which it can also
        import; its output is kept back. The table shows medians, and the ratio composable / stock: below 1 is better. A
        run has ``wall_seconds``, ``cpu_seconds``, ``context_switches``, ``peak_threads`` and ``finished``.
        """
        options = _parse(self.composable_compare, line)
        if options.name is not None and not options.name.isidentifier():
            raise UsageError(f"argument -o: must be the name of a variable, not {options.name!r}")
        compile(cell, "<cell>", "exec", dont_inherit=True)  # a slip is told here and not by a run
        found = _compare_cell(cell, options)
        if options.name is not None:
            assert self.shell is not None
            self.shell.user_ns[options.name] = found
        return found

    def deactivate(self) -> None:
        """End what ``%composable activate`` began."""
        if self.activation is not None:
            self.activation.deactivate()
            self.activation = None


def _parse(magic: Any, line: str) -> Namespace:
    options: Namespace = parse_argstring(magic, line)
    return options


def _compare_cell(cell: str, options: Namespace) -> Comparison:
    # By the command, in a process of its own: signals, and what a run leaves behind, are its business.
    command = [sys.executable, "-m", "composable_threads", "compare", "--rounds", str(options.rounds)]
    if options.slots is not None:
        command += ["-p", str(options.slots)]
    if options.timeout is not None:
        command += ["--timeout", str(options.timeout)]
    # python puts the program's folder on the path, which is not the one that the session is in.
    paths = [os.getcwd(), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    with tempfile.TemporaryDirectory() as folder:
        program, runs = os.path.join(folder, "cell.py"), os.path.join(folder, "runs.json")
        with open(program, "w", encoding="utf-8") as file:
            file.write(cell)
        process = subprocess.Popen(
            [*command, "--json", runs, program],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=env,
        )
        try:
            table, complaint = process.communicate()
        except BaseException:
            process.send_signal(signal.SIGTERM)  # it ends the run that is under way, then itself
            process.wait()
            raise
        if not os.path.exists(runs):
            raise UsageError(complaint.strip() or f"compare ended with exit code {process.returncode}")
        with open(runs, encoding="utf-8") as file:
            found = json.load(file)
    # A composable run that was given up is an error of the command, and a result here.
    lines = "\n".join(filter(None, [table.rstrip(), complaint.rstrip()]))
    runs_of = {kind: [Sample(**run) for run in found[kind]] for kind in ("stock", "composable")}
    return Comparison(runs_of["stock"], runs_of["composable"], table=lines)


def load_ipython_extension(shell: InteractiveShell) -> None:
    """What ``%load_ext composable_threads`` calls."""
    shell.register_magics(ComposableMagics)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """What ``%unload_ext`` and ``%reload_ext`` call. Ends the activation that ``%composable activate`` began."""
    registered = shell.magics_manager.registry.pop(ComposableMagics.__name__, None)
    if registered is not None:
        registered.deactivate()
    shell.magics_manager.magics["line"].pop(_LINE, None)
    shell.magics_manager.magics["cell"].pop(_CELL, None)
