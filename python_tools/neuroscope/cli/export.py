"""`neuroscope export`, `verify` and `train-demo`: checkpoints, bundles and the model that the project trains itself."""

from __future__ import annotations

import argparse
from pathlib import Path

from neuroscope import project
from neuroscope.errors import MissingProgramError
from neuroscope.export.bundle import export_bundle
from neuroscope.export.hosts import HOSTS
from neuroscope.export.reference import write_checkpoint_reference
from neuroscope.export.verify import verify_bundle
from neuroscope.export.weight_files import DTYPES


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    export = commands.add_parser("export", help="a checkpoint folder ► a bundle")
    export.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    export.add_argument("-o", "--output", type=Path, required=True, metavar="BUNDLE")
    export.add_argument("--id", default=None, metavar="NAME", help="what fromHuggingFace: finds it by")
    export.add_argument("--dtype", choices=sorted(DTYPES), default="float32")
    export.set_defaults(run=_export)

    verify = commands.add_parser("verify", help="every hook of a bundle against its reference")
    verify.add_argument("bundle", type=Path, metavar="BUNDLE")
    verify.add_argument("--against", type=Path, default=None, metavar="CHECKPOINT")
    verify.add_argument("--in", dest="host", choices=HOSTS, default="node")
    verify.add_argument("--backend", choices=("wasm", "webgl", "reference"), default=None)
    verify.set_defaults(run=_verify)

    train = commands.add_parser("train-demo", help="retrain the demo model; takes about an hour on one core")
    train.add_argument("-o", "--output", type=Path, default=project.DEMO_MODEL, metavar="CHECKPOINT")
    train.add_argument("--work", type=Path, default=None, metavar="DIR", help="a stopped run goes on from here")
    train.set_defaults(run=_train)


def _export(options: argparse.Namespace) -> int:
    bundle = export_bundle(options.checkpoint, options.output, id=options.id, dtype=options.dtype)
    print(
        f"{bundle.folder}: {bundle.id}, {bundle.architecture}, {bundle.parameters:,} parameters as {bundle.dtype}, "
        f"{bundle.bytes:,} bytes; reference: {bundle.reference}"
    )
    return 0


def _verify(options: argparse.Namespace) -> int:
    report = verify_bundle(options.bundle, against=options.against, host=options.host, backend=options.backend)
    largest = report.largest
    report.raise_if_off()
    print(
        f"{options.bundle}: all {len(report.hooks)} hooks in {report.host} ({report.backend}) agree with "
        f"{report.oracle}; "
        f"closest to its limit is {largest.hook}, {largest.difference:.3g} of {largest.allowed:.3g}"
    )
    return 0


def _train(options: argparse.Namespace) -> int:
    try:
        from neuroscope.demo.train import train_demo
    except ImportError as error:
        raise MissingProgramError(
            "PyTorch is missing, and training needs it: pip install 'neuroscope[torch]'."
        ) from error
    train_demo(options.output, work=options.work)
    print(f"{options.output}: trained; reference: {write_checkpoint_reference(options.output)}")
    return 0
