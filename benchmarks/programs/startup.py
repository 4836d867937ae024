"""Wall time of an interpreter that does nothing: ``startup.py with|without`` the start-up hook of this project."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from measure import measure

STARTS = 20


def main(hook: str) -> None:
    site = Path(sysconfig.get_path("purelib"))
    names = ["_composable_threads_boot.py", "composable_threads.pth"]
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            shutil.copy(site / name, folder)
        # -S leaves out this environment's site-packages; a site folder of our own then holds the hook or nothing.
        code = f"import site; site.addsitedir({folder!r})" if hook == "with" else f"import site; site.addsitedir({folder + '/none'!r})"
        command = [sys.executable, "-S", "-c", code]
        env = dict(os.environ)
        measure(lambda: [subprocess.run(command, check=True, env=env) for _ in range(STARTS)], scale=STARTS)


if __name__ == "__main__":
    main(sys.argv[1])
