#!/usr/bin/env python3
"""Runs a compiler command and fails if ptxas reports what a release kernel must not have.

    ptxas_check.py nvcc ... -Xptxas=-v ...

Spilled registers, local memory (a stack frame) and wgmma products that were serialised (notices C75xx) cost speed
without failing a build. Output is shown only when something is wrong.
"""
import re
import subprocess
import sys

BAD = (
    ("spilled registers", re.compile(r"[1-9]\d* bytes spill (?:stores|loads)")),
    ("local memory", re.compile(r"[1-9]\d* bytes (?:stack frame|lmem)")),
    ("a notice about wgmma or setmaxnreg", re.compile(r"\(C75\d\d\)|setmaxnreg ignored", re.IGNORECASE)),
)


def complaints(text):
    return [f"{name}: {line.strip()}" for line in text.splitlines() for name, pattern in BAD if pattern.search(line)]


def main(command):
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    wrong = complaints(run.stdout)
    if run.returncode or wrong:
        sys.stderr.write(run.stdout)
    for complaint in wrong:
        sys.stderr.write(f"ptxas_check: {complaint}\n")
    return run.returncode or (1 if wrong else 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
