"""The memory that one scene takes, in a process that does nothing else.

A process' peak never falls, so that every height is a process of its own: this file is
its program, `measure` starts it.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

from uhrjax import config as config_lib
from uhrjax import engine as engine_lib
from uhrjax import methods, report
from uhrjax.benchmark import network, stage, texture


def measure(
    spec: str, overrides: list[str], *, rows: int, columns: int, folder: pathlib.Path
) -> dict[str, Any]:
    """Labels a new scene with the trivial network in a process of its own.

    To be called before this process touches the device: a GPU serves one at a time.

    Args:
        spec: of the config.
        overrides: of the config.
        rows: of the scene, px.
        columns: of the scene, px.
        folder: for the scene and its mask, both removed again.

    Returns:
        rows, columns, seconds, host_peak_mb, device_peak_mb (None where not counted).
    """
    with tempfile.TemporaryDirectory(dir=folder) as name:
        path = pathlib.Path(name) / f"rows_{rows}.tif"
        texture.write(path, rows=rows, columns=columns)
        words = ["-m", __name__, str(path), f"--config={spec}", *overrides]
        ended = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    if ended.returncode:
        told = ended.stderr.strip().splitlines() or ["nothing; out of memory, perhaps"]
        raise OSError(
            f"the pass over {columns} x {rows} px ended with code {ended.returncode} "
            f"and said: {told[-1]}"
        )
    return {"rows": rows, "columns": columns, **json.loads(ended.stdout)}


def main(argv: list[str]) -> int:
    """Labels the scene that `measure` wrote, prints the peaks as JSON."""
    path = pathlib.Path(argv[1])
    config = config_lib.from_command(*config_lib.parse_flags([argv[0], *argv[2:]]))
    method = network.PixelMethod(methods.build(config))
    run = network.as_run(config, method, method.init())
    engine = engine_lib.make_engine(method, config)
    started = time.perf_counter()
    stage.file_to_mask(run, engine, path, path.parent)
    found = {
        "seconds": time.perf_counter() - started,
        "host_peak_mb": host_peak_mb(),
        "device_peak_mb": report.device_peak_mb(),
    }
    print(json.dumps(found))
    return 0


def host_peak_mb() -> float:
    """Returns this process' peak resident memory, MB.

    Linux counts what the parent held at the start into `getrusage`; not here.
    """
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    return report.host_peak_mb()


if __name__ == "__main__":
    sys.exit(main(sys.argv))
