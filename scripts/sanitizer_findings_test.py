#!/usr/bin/env python3
"""Tests of sanitizer_findings.py on logs as compute-sanitizer writes them."""

import pathlib
import tempfile
import unittest

import sanitizer_findings

CLEAN = """========= COMPUTE-SANITIZER
[  PASSED  ] 3 tests.
========= ERROR SUMMARY: 0 errors
"""
READ = """========= Invalid __global__ read of size 4 bytes
=========     at decode(int)+0x120 in load.h:12
=========     by thread (0,0,0) in block (0,0,0)
=========
"""
RACE = """========= Error: Race reported between Write access at deal(int)+0x10 in smem.h:3
=========     and Read access at decode(int)+0x30 in smem.h:9 [16384 hazards]
=========     and Read access at decode(int)+0x50 in smem.h:12 [1 hazards]
=========
"""


def with_findings(*findings):
    header, *rest = CLEAN.splitlines(keepends=True)
    return header + "".join(findings) + "".join(rest)


class SanitizerFindings(unittest.TestCase):
    def status(self, log, exceptions="", tool="memcheck"):
        with tempfile.TemporaryDirectory() as folder:
            paths = [pathlib.Path(folder, name) for name in ("log", "exceptions")]
            for path, text in zip(paths, (log, exceptions)):
                path.write_text(text, encoding="utf-8")
            return sanitizer_findings.main(tool, *map(str, paths))

    def test_findings(self):
        found = sanitizer_findings.findings(with_findings(READ, RACE))
        self.assertEqual(len(found), 3)
        self.assertEqual(found[2], ("Write access at deal(int) in smem.h:3", "Read access at decode(int) in smem.h:12"))
        self.assertEqual(sanitizer_findings.findings(CLEAN), [])

    def test_clean(self):
        self.assertEqual(self.status(CLEAN), 0)

    def test_finding(self):
        self.assertEqual(self.status(with_findings(READ)), 1)

    def test_no_end(self):
        self.assertEqual(self.status("========= COMPUTE-SANITIZER\n"), 1)
        self.assertEqual(self.status(""), 1)

    def test_not_all_printed(self):
        left_out = "========= ERROR SUMMARY: 3 errors were not printed. Use --print-limit option\n"
        self.assertEqual(self.status(with_findings(left_out)), 1)

    def test_exceptions(self):
        log = with_findings(READ, RACE)
        self.assertEqual(self.status(log, "memcheck | load.h:12 | why\n"), 1)
        self.assertEqual(self.status(log, "# a list\nmemcheck | load.h:12 | why\nmemcheck | smem.h | why\n"), 0)
        self.assertEqual(self.status(log, "racecheck | load.h:12 | why\nmemcheck | smem.h | why\n"), 1)

    def test_each_pair_of_a_race_needs_an_exception(self):
        log = with_findings(RACE)
        for exceptions, status in (
            (["deal("], 0),
            (["deal( <> decode("], 0),
            (["decode( <> deal("], 0),
            (["deal( <> smem.h:9"], 1),
            (["deal( <> smem.h:9", "smem.h:12"], 0),
            (["deal( <> deal("], 1),
        ):
            text = "".join(f"racecheck | {exception} | why\n" for exception in exceptions)
            self.assertEqual(self.status(log, text, "racecheck"), status, exceptions)


if __name__ == "__main__":
    unittest.main()
