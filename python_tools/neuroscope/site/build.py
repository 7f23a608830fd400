"""Builds the static site: page, styles, scripts, kernels, image and bundles in one folder that any host can serve.

The service worker comes last: it knows every file of the build by its SHA-256, and their common hash is its version.
The folder refers to itself by relative URLs only, so it works under any path. The default sentence's lens is drawn
into the page here, by the page's own views running in Node, from parts that the image has computed.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from neuroscope import project
from neuroscope.errors import NeuroScopeError
from neuroscope.kernels import copy_kernels
from neuroscope.site.scripts import bundle_script

TEMPLATES = project.ROOT / "web" / "templates"
SERVICE_WORKER = "service_worker.js"
LABS = "labs.json"  # addresses; empty here, for the owner to fill, and answered by a lab that serves the site


@dataclass(frozen=True)
class Lens:
    """The default sentence's lens: its pane's title and its tree of parts, as class View in the image makes them."""

    model: str
    sentence: str
    title: str
    part: Mapping[str, Any]


def build_site(output: Path, *, image: Path, bundles: Mapping[str, Path], lens: Lens) -> None:
    """Writes the site to `output`; what stood there before stays until the new one is whole.

    Raises: NeuroScopeError when a script or the picture cannot be built.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as temporary:
        folder = Path(temporary) / "site"
        folder.mkdir()
        _write(folder, image=image, bundles=bundles, lens=lens)
        if output.exists():
            shutil.rmtree(output)
        folder.rename(output)


def _write(folder: Path, *, image: Path, bundles: Mapping[str, Path], lens: Lens) -> None:
    bundle_script(project.ROOT / "web" / "page.ts", folder / "page.js")
    bundle_script(project.ROOT / "js_bridge" / "engine" / "worker.ts", folder / "engine.js")
    bundle_script(project.ROOT / "web" / "styles" / "page.css", folder / "page.css")
    copy_kernels(folder)
    # The image's own compression is for hosts that send files as they are; a fixed time keeps the bytes the same.
    (folder / "neuroscope.image").write_bytes(image.read_bytes())
    (folder / "neuroscope.image.gz").write_bytes(gzip.compress(image.read_bytes(), compresslevel=9, mtime=0))
    for identifier, source in bundles.items():
        shutil.copytree(source, folder / "bundles" / identifier)
    (folder / LABS).write_text("[]\n", encoding="utf-8")
    config = {
        "image": "neuroscope.image.gz",
        "engine": "engine.js",
        "kernels": "kernels.wasm",
        "labs": LABS,
        "bundles": {identifier: f"bundles/{identifier}/" for identifier in bundles},
        "serviceWorker": SERVICE_WORKER,
        "model": lens.model,
        "sentence": lens.sentence,
        "workspace": _template("workspace.st").render(model=lens.model, sentence=lens.sentence),
    }
    page = _template("index.html.j2").render(
        styles="page.css",
        page="page.js",
        config=config,
        # A script element ends at the first "</", whatever its type.
        config_json=json.dumps(config).replace("</", "<\\/"),
        lens_title=lens.title,
        lens=_render(lens.part),
    )
    (folder / "index.html").write_text(page, encoding="utf-8")
    write_service_worker(folder)


def write_service_worker(folder: Path) -> None:
    """The worker with the list of what it keeps: all but the bundles, the labs, and the image for the command line."""
    script = bundle_script(project.ROOT / "web" / "service_worker.ts", folder / SERVICE_WORKER, format="iife")
    files = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != script and path.name not in ("neuroscope.image", LABS)
    }
    kept = {name: digest for name, digest in files.items() if not name.startswith("bundles/")}
    version = hashlib.sha256(json.dumps(kept).encode() + script.read_bytes()).hexdigest()[:16]
    site = json.dumps({"version": version, "files": kept})
    script.write_text(f"self.SITE={site};\n{script.read_text(encoding='utf-8')}", encoding="utf-8")


def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined)
    return environment.get_template(name)


def _render(part: Mapping[str, Any]) -> str:
    """HTML of a tree of parts, drawn by the page's views."""
    command = [str(project.node_program()), str(project.ROOT / "web" / "render.ts")]
    finished = subprocess.run(command, input=json.dumps(part), check=False, capture_output=True, text=True)
    if finished.returncode != 0:
        raise NeuroScopeError(f"The lens could not be drawn: {finished.stderr.strip()}")
    return finished.stdout
