"""The WebAssembly kernels, compiled from js_bridge/kernels/: several builds of one source, and the helpers' script.

They are made once, in build/, and anew only when a source is newer; whoever serves them copies them beside one another.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from neuroscope import project
from neuroscope.errors import NeuroScopeError

SOURCE = project.ROOT / "js_bridge" / "kernels"
KERNELS = "kernels.wasm"  # the others are found beside it, by their names
FILES = (
    "kernels.relaxed.wasm",
    "kernels.shared.wasm",
    "kernels.shared.relaxed.wasm",
    "kernels.thread.js",
    KERNELS,
)


def build_kernels() -> Path:
    """build/kernels.wasm, with the other files beside it.

    Raises: NeuroScopeError when a source does not compile.
    """
    output = project.BUILD / KERNELS
    compiled = [SOURCE / "build.ts", SOURCE / "thread.ts", SOURCE / "threads.ts", *(SOURCE / "assembly").glob("*.ts")]
    newest = max(source.stat().st_mtime for source in compiled)
    if all((project.BUILD / file).exists() for file in FILES) and output.stat().st_mtime > newest:
        return output
    project.BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=project.BUILD, prefix=".kernels-") as folder:
        command = [str(project.node_program()), str(SOURCE / "build.ts"), folder]
        finished = subprocess.run(command, cwd=project.ROOT, check=False, capture_output=True, text=True)
        if finished.returncode != 0:
            told = finished.stderr.strip() or finished.stdout.strip()
            raise NeuroScopeError(f"The kernels could not be compiled: {told}")
        for file in FILES:
            (Path(folder) / file).replace(project.BUILD / file)
    return output


def copy_kernels(folder: Path) -> None:
    """All files of the kernels, into a folder that will be served."""
    built = build_kernels().parent
    for file in FILES:
        shutil.copyfile(built / file, folder / file)
