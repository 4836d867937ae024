"""Random nested programs with known answers: ``python -m tests.programs --programs N [--seed S] [--size P]``.

A program is plain data, ``(kind, options, children)``, so that one that fails can be pasted into REGRESSIONS of
test_programs.py.
"""
