"""A snapshot goes on where it was made: with the objects it had, and without initializing anything again."""

from __future__ import annotations

import subprocess
from pathlib import Path

from neuroscope import project
from system_images import build

# A class made at run time, an instance of it, a delay afterwards; a second `prepare` must do nothing.
ENTRY = """
| class isResumed log |
ImageStart prepare.
class := Object subclass: #Kept instanceVariableNames: 'value' classVariableNames: '' package: 'Tests'.
class compile: 'value ^ value ifNil: [ value := 41 ]' classified: 'accessing'.
log := OrderedCollection with: class new.
isResumed := Smalltalk snapshot.
ImageStart prepare.
(Delay forMilliseconds: 5) wait.
isResumed printString , ' ' , ((log first perform: #value) + 1) printString , ' '
    , (Recompilation of: (Array with: class with: Delay)) run asArray printString
"""


def test_a_snapshot_goes_on_with_what_it_had(tmp_path: Path) -> None:
    image = build(tmp_path / "snapshot.image", ENTRY)
    finished = subprocess.run(
        [str(project.node_program()), "tests/smalltalk/run_snapshot.ts", str(image)],
        cwd=project.ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.splitlines() == ["first: false 42 #()", "second: true 42 #()"]
