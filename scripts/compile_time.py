#!/usr/bin/env python3
"""Compiles a target's sources anew, two at a time and past any compiler cache, and fails if that takes too long.

    compile_time.py BUILD_FOLDER TARGET MOST_SECONDS

The commands are those of BUILD_FOLDER/compile_commands.json; what they make is thrown away.
"""
import concurrent.futures
import json
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile
import time

JOBS = 2


def commands_of(entries, target):
    """[(folder, arguments)] of the entries whose object belongs to the target."""
    commands = [(entry["directory"], shlex.split(entry["command"])) for entry in entries]
    return [(folder, command) for folder, command in commands if f"CMakeFiles/{target}.dir/" in object_of(command)]


def object_of(arguments):
    return arguments[arguments.index("-o") + 1]


def redirected(arguments, path):
    """The command with its outputs, the object and what depends on what, at this path."""
    changed = list(arguments)
    changed[changed.index("-o") + 1] = f"{path}.o"
    if "-MF" in changed:
        changed[changed.index("-MF") + 1] = f"{path}.d"
    return changed


def compile_all(commands):
    """Seconds that it takes; raises CalledProcessError."""
    environment = {**os.environ, "CCACHE_DISABLE": "1"}
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        begin = time.monotonic()
        runs = [
            pool.submit(subprocess.run, redirected(arguments, pathlib.Path(folder) / str(i)), cwd=directory,
                        env=environment, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for i, (directory, arguments) in enumerate(commands)
        ]
        for run in runs:
            run.result()
        return time.monotonic() - begin


def main(build_folder, target, most_seconds):
    entries = json.loads((pathlib.Path(build_folder) / "compile_commands.json").read_text())
    commands = commands_of(entries, target)
    if not commands:
        sys.exit(f"compile_time: {build_folder} compiles nothing for the target '{target}'")
    try:
        seconds = compile_all(commands)
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error.stdout}compile_time: status {error.returncode} from {shlex.join(error.cmd)}")
    print(f"{target}: {len(commands)} files, {JOBS} at a time, compiled in {seconds:.1f} s, at most {most_seconds} s")
    return 0 if seconds <= float(most_seconds) else 1


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
