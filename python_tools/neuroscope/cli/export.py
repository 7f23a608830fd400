"""`neuroscope export`, `verify` and `train-demo`: checkpoints, bundles and the model that the project trains itself."""

from __future__ import annotations

import argparse
from pathlib import Path

from neuroscope import project
from neuroscope.errors import MissingProgramError
from neuroscope.export.bundle import export_bundle
from neuroscope.export.checkpoint import open_checkpoint
from neuroscope.export.hosts import HOSTS
from neuroscope.export.processing import Processing, compatible
from neuroscope.export.reference import write_checkpoint_reference
from neuroscope.export.verify import verify_bundle
from neuroscope.export.weight_files import DTYPES


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    export = commands.add_parser(
        "export",
        help="a checkpoint folder ► a bundle",
        description="A Hugging Face folder becomes a bundle: the same weights in chunks, a graph with every hook "
        "point, reference activations. A float bundle opens in transformers, TransformerLens and ONNX Runtime; one of "
        "int8 codes only here and in ONNX Runtime (transformers would take the codes for weights, without a word).",
    )
    export.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    export.add_argument("-o", "--output", type=Path, required=True, metavar="BUNDLE")
    export.add_argument("--id", default=None, metavar="NAME", help="what fromHuggingFace: finds it by")
    export.add_argument("--dtype", choices=sorted(DTYPES), default="float32")
    changes = export.add_argument_group(
        "weights", "changed without changing the model, as TransformerLens does; bundle.json says which"
    )
    changes.add_argument("--fold-norms", action="store_true", help="each norm's weight and bias into what reads it")
    changes.add_argument("--centre-writing", action="store_true", help="no mean in what is written to the stream")
    changes.add_argument("--centre-unembedding", action="store_true", help="no mean in the logits")
    changes.add_argument("--fold-value-biases", action="store_true", help="biases of v into that of the output")
    changes.add_argument("--compatibility", action="store_true", help="all of these that the family allows")
    export.add_argument("--without-reference", action="store_true", help="no reference activations from PyTorch")
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
    bundle = export_bundle(
        options.checkpoint,
        options.output,
        id=options.id,
        dtype=options.dtype,
        processing=_processing(options),
        with_reference=not options.without_reference,
    )
    print(
        f"{bundle.folder}: {bundle.id}, {bundle.architecture}, {bundle.parameters:,} parameters as {bundle.dtype}, "
        f"weights {bundle.weights}, {bundle.bytes:,} bytes; reference: {bundle.reference}"
    )
    return 0


def _processing(options: argparse.Namespace) -> Processing:
    if options.compatibility:
        return compatible(open_checkpoint(options.checkpoint).architecture)
    return Processing(
        fold_norms=options.fold_norms,
        centre_writing=options.centre_writing,
        centre_unembedding=options.centre_unembedding,
        fold_value_biases=options.fold_value_biases,
    )


def _verify(options: argparse.Namespace) -> int:
    report = verify_bundle(options.bundle, against=options.against, host=options.host, backend=options.backend)
    largest = report.largest
    if report.rounding:
        print(f"{options.bundle}: {report.rounding.describe()}")
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
