"""`neuroscope serve`: the lab, with the site on the same origin."""

from __future__ import annotations

import argparse
import os
import socket
from pathlib import Path

from neuroscope.errors import LabError
from neuroscope.lab.settings import DTYPES, ENGINES, KEEP_ALIVE, Limits, ModelSource, Settings

_SECONDS_TO_END = 5  # for requests that still run when the lab is told to end


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("serve", help="the lab: big models behind the same hook names, experiments, the site")
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="[NAME=]FOLDER_OR_ID",
        help="a model that may be loaded: a Hugging Face folder, or an id of the Hub; may come several times",
    )
    parser.add_argument("--engine", choices=ENGINES, default="torch", help="torch where not given")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="float32 where not given")
    parser.add_argument("--devices", help="device_map of transformers, e.g. auto; the processor where not given")
    parser.add_argument("--host", default="127.0.0.1", help="beyond loopback the lab demands --token")
    parser.add_argument("--port", type=int, default=8080, help="8080 where not given; 0 takes a free one")
    parser.add_argument("--token", default=os.environ.get("NEUROSCOPE_TOKEN"), help="or NEUROSCOPE_TOKEN")
    parser.add_argument("--origin", action="append", default=[], help="a page's origin that may call from elsewhere")
    parser.add_argument("--site", type=Path, help="a built site to serve at /")
    parser.add_argument(
        "--database", type=Path, default=Path("neuroscope-lab.sqlite"), help="experiments are kept here"
    )
    for name, default in vars(Limits()).items():
        parser.add_argument(
            f"--max-{name.replace('_', '-')}", type=type(default), default=default, dest=name, help=f"{default:,}"
        )
    parser.set_defaults(run=_run, extra="lab")


def _run(options: argparse.Namespace) -> int:
    settings = Settings(
        models={source.id: source for source in (_source(text, options) for text in options.model)},
        limits=Limits(**{name: getattr(options, name) for name in vars(Limits())}),
        host=options.host,
        port=options.port,
        token=options.token,
        origins=tuple(options.origin),
        database=options.database,
        site=options.site,
    )
    import uvicorn

    from neuroscope.lab.app import create_app

    app = create_app(settings)
    with _listening(settings) as place:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        url = f"http://{host}:{place.getsockname()[1]}/"
        print(f"the lab listens on {url}  (/docs describes it, Ctrl-C ends it)", flush=True)
        config = uvicorn.Config(
            app, log_level="warning", timeout_keep_alive=KEEP_ALIVE, timeout_graceful_shutdown=_SECONDS_TO_END
        )
        uvicorn.Server(config).run(sockets=[place])
    return 0


def _listening(settings: Settings) -> socket.socket:
    """Taken before anything is said, so that what is printed is true; port 0 is a free one. Raises: LabError."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        raise LabError(
            f"The lab can't listen on {settings.host}, port {settings.port} ({error}); end what listens there, or name "
            "another with --port."
        ) from error


def _source(text: str, options: argparse.Namespace) -> ModelSource:
    """NAME=PLACE or PLACE: a folder is known by its name, an id by itself. Raises: LabError."""
    name, _, place = text.rpartition("=")
    folder = Path(place).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise LabError(f"{folder} has no config.json, so it is no model; name a folder that save_pretrained made.")
        return ModelSource(name or folder.resolve().name, folder, options.engine, options.dtype, options.devices)
    if place.startswith((".", "/", "~")) or place.count("/") > 1:
        raise LabError(f"{place} is no folder; name a Hugging Face folder, or an id such as openai-community/gpt2.")
    return ModelSource(place, None, options.engine, options.dtype, options.devices)
