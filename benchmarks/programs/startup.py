"""Wall time of an interpreter that does nothing: ``startup.py with|without`` the start-up hook of this project.

The interpreter is that of a bare virtual environment, so that nothing but the hook tells the two apart.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

from measure import measure

STARTS = 20
HOOK = ("_composable_threads_boot.py", "composable_threads.pth", "composable_threads.start")


def main(hook: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=False, symlinks=True)
        scheme = {"base": folder, "platbase": folder}
        if hook == "with":
            for name in HOOK:
                shutil.copy(
                    Path(sysconfig.get_path("purelib")) / name, sysconfig.get_path("purelib", "posix_prefix", scheme)
                )
        command = [os.path.join(folder, "bin", "python"), "-c", "pass"]
        measure(lambda: [subprocess.run(command, check=True) for _ in range(STARTS)], scale=STARTS)


if __name__ == "__main__":
    main(sys.argv[1])
