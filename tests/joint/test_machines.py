"""One image file, three machines: our VM in Node, our VM in Chromium, upstream SqueakJS in Node.

Upstream's folder is named by the environment variable SQUEAKJS_HOME; without it those tests are skipped and say so.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from neuroscope.cli.machine import MachineRun, capture_on_upstream

from tests.machines import upstream

# A new class, a non-local return through ensure:, resume:, and arithmetic with 200 digits.
UNSEEN = """
| log |
Object subclass: #Unseen instanceVariableNames: 'log' classVariableNames: '' package: 'Tests'.
(Smalltalk at: #Unseen) compile: 'leaveThrough: aLog
	[ #(1 2 3) do: [ :each | each = 2 ifTrue: [ ^ each * 21 ] ] ] ensure: [ aLog add: #unwound ].
	^ 0' classified: 'evaluating'.
log := OrderedCollection new.
{(Smalltalk at: #Unseen) new leaveThrough: log.
 log asArray.
 [ (Warning signal: 'how many?') + 1 ] on: Warning do: [ :warning | warning resume: 6 ].
 ((10 raisedTo: 199) + 7) * ((10 raisedTo: 199) - 7) + 49 = (10 raisedTo: 398).
 (123456789 raisedTo: 25) printString size.
 [ 1 / 0 ] on: ZeroDivide do: [ :error | error return: error class name ]}
"""
UNSEEN_PRINTED = "#(42 #(#unwound) 7 true 203 #ZeroDivide)"


def lines_on_upstream(image: Path, source: str) -> list[str]:
    start = {"kind": "start", "mode": "eval", "sources": [{"name": "test", "text": source}], "load": []}
    return capture_on_upstream(MachineRun(image=image, start=start, timeout=120), upstream()).splitlines()


@pytest.mark.parametrize("host", ["node", "chromium"])
def test_three_plus_four_is_seven(neuroscope: Callable[..., Any], image: Path, host: str) -> None:
    finished = neuroscope("eval", "--in", host, "-e", "3 + 4")
    assert (finished.returncode, finished.stdout) == (0, "7\n"), finished.stderr


def test_three_plus_four_is_seven_on_upstream(image: Path) -> None:
    assert "7" in lines_on_upstream(image, "3 + 4")


@pytest.mark.parametrize("host", ["node", "chromium"])
def test_the_image_evaluates_a_program_that_it_has_never_seen(
    neuroscope: Callable[..., Any], image: Path, host: str
) -> None:
    finished = neuroscope("eval", "--in", host, "-", input=UNSEEN)
    assert (finished.returncode, finished.stdout) == (0, UNSEEN_PRINTED + "\n"), finished.stderr


def test_upstream_evaluates_a_program_that_the_image_has_never_seen(image: Path) -> None:
    assert UNSEEN_PRINTED in lines_on_upstream(image, UNSEEN)


def test_an_error_ends_with_the_stack_and_status_one(neuroscope: Callable[..., Any], image: Path) -> None:
    finished = neuroscope("eval", "-e", "#(1 2 3) at: 5")
    assert finished.returncode == 1
    assert finished.stdout == ""
    assert "5" in finished.stderr
    assert "Array" in finished.stderr


def test_expressions_share_their_variables_and_the_transcript_is_apart(
    neuroscope: Callable[..., Any], image: Path
) -> None:
    finished = neuroscope("eval", "-e", "a := 'täx'. Transcript show: 'seen'; cr", "-e", "a , '€'")
    assert (finished.returncode, finished.stdout) == (0, "'täx€'\n"), finished.stderr
    assert "seen" in finished.stderr


def test_a_program_in_which_every_process_waits_ends_with_all_stacks(
    neuroscope: Callable[..., Any], image: Path
) -> None:
    finished = neuroscope("eval", "-e", "Semaphore new wait")
    assert finished.returncode == 1
    assert "waits" in finished.stderr


def test_a_program_that_never_ends_is_stopped(neuroscope: Callable[..., Any], image: Path) -> None:
    finished = neuroscope("eval", "--timeout", "2", "-e", "[ true ] whileTrue")
    assert finished.returncode == 1
    assert "2" in finished.stderr
