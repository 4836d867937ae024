"""The command line, `python -m composable_threads`: reads the words and calls the module that acts on them."""

from __future__ import annotations

import argparse
import math
import os
import sys
from typing import Any, NoReturn

COMMAND = "python -m composable_threads"
FORMS = (
    "[-p P] [--trace FILE] program.py [args ...]",
    "[-p P] [--trace FILE] -m module [args ...]",
    "compare [options] program.py [args ...]",
    "compare [options] -m module [args ...]",
    "info [--json]",
)
WITH_VALUE = ("-p", "--trace", "--rounds", "--timeout", "--json", "--html")
ABOUT = """\
Runs a Python program unchanged, with ThreadPool, ThreadPoolExecutor, Dask, Joblib and Numba on the one arena.

--trace records what ran where and when, for https://ui.perfetto.dev or chrome://tracing.
compare runs it both ways, stock and composable, and prints wall time, CPU time, context switches and threads;
with --html it writes a page with the timelines of both.
info prints what the arena found on this machine.
"""


class Parser(argparse.ArgumentParser):
    """Answers a mistake with one line, not with the usage and a line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def positive_integer(text: str) -> int:
    # int() alone would let "+4", " 4 " and "4_0" through, and refuses thousands of digits in words of its own.
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0):
        raise argparse.ArgumentTypeError(f"must be a positive integer, not {text!r}")
    return int(text)


def positive_seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not (seconds > 0 and math.isfinite(seconds)):
        raise argparse.ArgumentTypeError(f"must be a positive number of seconds, not {text!r}")
    return seconds


def writable_file(text: str) -> str:
    # Asked now, because it is written after all the runs.
    place = text if os.path.exists(text) else os.path.dirname(os.path.abspath(text))
    if os.path.isdir(text) or not os.access(place, os.W_OK):
        raise argparse.ArgumentTypeError(f"must be a file that can be written, not {text!r}")
    return text


def split_at_program(words: list[str]) -> tuple[list[str], list[str]]:
    """Cut the words at the first that is the program's; argparse would read on and take the program's options for ours.

    A value is glued to its option, so that one that starts with a dash is judged as a value. A module comes out as
    ["-m", name, ...], glued by the user or not.
    """
    ours: list[str] = []
    rest = list(words)
    while rest and rest[0].startswith("-") and not rest[0].startswith("-m"):
        word = rest.pop(0)
        ours.append(f"{word}={rest.pop(0)}" if word in WITH_VALUE and rest else word)
    if rest and rest[0].startswith("-m") and rest[0] != "-m":
        rest[:1] = ["-m", rest[0][2:]]
    return ours, rest


def parse_program_words(parser: Parser, words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    ours, program = split_at_program(words)
    options = parser.parse_args(ours)
    if program == ["-m"]:
        parser.error("argument -m: expected one argument")
    return options, program


def new_parser(command: str, forms: list[str], **options: Any) -> Parser:
    usage = "\n       ".join(f"{COMMAND} {form}" for form in forms)
    return Parser(
        prog=command,
        usage=usage,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **options,
    )


def add_slots(parser: Parser) -> None:
    parser.add_argument(
        "-p",
        dest="slots",
        metavar="P",
        type=positive_integer,
        help="slots of the arena (default: the CPUs that this process may really use)",
    )


def info(words: list[str]) -> None:
    parser = new_parser(f"{COMMAND} info", [form for form in FORMS if form.startswith("info")])
    parser.add_argument("--json", action="store_true", help="print JSON")
    as_json = parser.parse_args(words).json

    import composable_threads

    import_libraries()
    try:
        facts = composable_threads.info()
    except (ValueError, RuntimeError) as error:  # what the environment says makes no sense
        parser.error(str(error))
    if as_json:
        import json

        print(json.dumps(facts, indent=2, default=str))
    else:
        print(facts)


def import_libraries() -> None:
    """Import what brings BLAS and OpenMP libraries, if installed: a process without them has nothing to tell."""
    import contextlib
    import importlib
    import warnings

    import _composable_threads_boot as boot

    for module in sorted(boot.LOADS_LIBRARY):
        with (
            warnings.catch_warnings(),
            contextlib.suppress(Exception),
        ):  # a broken installation is not what was asked for
            warnings.simplefilter("ignore")
            importlib.import_module(module)


def compare(words: list[str]) -> NoReturn:
    parser = new_parser(
        f"{COMMAND} compare",
        [form for form in FORMS if form.startswith("compare")],
        description="Runs the program stock and composable in turn, each time in a fresh process, its input empty\n"
        "and its output kept back, and prints the medians and the ratio composable / stock: below 1 is better.",
    )
    add_slots(parser)
    parser.add_argument("--rounds", metavar="N", type=positive_integer, default=3, help="runs of each (default: 3)")
    parser.add_argument("--timeout", metavar="SECONDS", type=positive_seconds, help="give a run up after so long")
    parser.add_argument("--json", metavar="FILE", type=writable_file, help="save every run's numbers")
    parser.add_argument(
        "--html",
        metavar="FILE",
        type=writable_file,
        help="run each once more, watched, and write a page with the table and both timelines",
    )
    options, program = parse_program_words(parser, words)
    if not program:
        parser.error("a program is needed: program.py or -m module")

    from composable_threads import _compare

    sys.exit(
        _compare.compare(
            program,
            rounds=options.rounds,
            slots=options.slots,
            timeout=options.timeout,
            json_path=options.json,
            html_path=options.html,
        )
    )


def main(words: list[str]) -> None:
    """Returns when the user's program has ended normally; every other ending is a SystemExit."""
    from composable_threads import __version__

    parser = new_parser(COMMAND, list(FORMS), description=ABOUT)
    add_slots(parser)
    parser.add_argument(
        "--trace", metavar="FILE", type=writable_file, help="record what ran where and when, in Chrome's trace format"
    )
    parser.add_argument("--version", action="version", version=f"composable-threads {__version__}")
    ours, program = split_at_program(words)
    if program[:1] == ["info"]:
        info([*ours, *program[1:]])
        return
    if program[:1] == ["compare"]:
        compare([*ours, *program[1:]])
    options, program = parse_program_words(parser, words)
    if not program:
        parser.print_usage(sys.stderr)
        sys.exit(2)

    from composable_threads import _run

    _run.run(program, slots=options.slots, trace_path=options.trace)


if __name__ == "__main__":
    main(sys.argv[1:])
