#!/usr/bin/env python3
"""compile_time.py on builds of our own, whose compiler is a shell."""

import contextlib
import io
import json
import pathlib
import shlex
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import compile_time  # noqa: E402


def entry(folder, target, script):
    command = ["sh", "-c", script, "-o", f"CMakeFiles/{target}.dir/a.o"]
    return {"directory": folder, "command": shlex.join(command)}


class CompileTime(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def run_main(self, entries, most_seconds="60", target="kernels"):
        (pathlib.Path(self.folder) / "compile_commands.json").write_text(json.dumps(entries))
        with contextlib.redirect_stdout(io.StringIO()) as said:
            status = compile_time.main(self.folder, target, most_seconds)
        return status, said.getvalue()

    def test_compiles_the_targets_files_alone_and_past_a_cache(self):
        script = 'test "$CCACHE_DISABLE" = 1 && touch "$(mktemp seen.XXXXXX)"'
        status, said = self.run_main([entry(self.folder, "kernels", script), entry(self.folder, "kernels", script),
                                      entry(self.folder, "others", "exit 1")])
        self.assertEqual((status, len(list(pathlib.Path(self.folder).glob("seen.*")))), (0, 2))
        self.assertIn("kernels: 2 files", said)

    def test_fails_above_the_limit(self):
        status, said = self.run_main([entry(self.folder, "kernels", "sleep 0.2")], most_seconds="0.1")
        self.assertEqual(status, 1)
        self.assertIn("at most 0.1 s", said)

    def test_a_file_that_does_not_compile_is_named(self):
        with self.assertRaisesRegex(SystemExit, "status 3 from sh -c 'exit 3'"):
            self.run_main([entry(self.folder, "kernels", "exit 3")])

    def test_a_target_without_files_is_an_error(self):
        with self.assertRaisesRegex(SystemExit, "nothing for the target 'kernals'"):
            self.run_main([entry(self.folder, "kernels", "true")], target="kernals")

    def test_outputs_go_elsewhere(self):
        arguments = "nvcc -MD -MT a.o -MF a.o.d -c a.cu -o a.o".split()
        self.assertEqual(compile_time.redirected(arguments, "/t/0"),
                         "nvcc -MD -MT a.o -MF /t/0.d -c a.cu -o /t/0.o".split())

    def test_reads_commands_as_cmake_writes_them(self):
        commands = compile_time.commands_of(
            [{"directory": "/b", "command": "nvcc '-DA=\"x y\"' -o src/CMakeFiles/k.dir/a.o -c a.cu"}], "k")
        self.assertEqual(commands, [("/b", ["nvcc", '-DA="x y"', "-o", "src/CMakeFiles/k.dir/a.o", "-c", "a.cu"])])


if __name__ == "__main__":
    unittest.main()
