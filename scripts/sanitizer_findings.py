#!/usr/bin/env python3
"""Lists what compute-sanitizer complains about in a log, but for the exceptions that are known.

    sanitizer_findings.py TOOL LOG EXCEPTIONS

Prints each finding that no exception of the tool covers and exits with 1 if there is any, or if the tool did not come to
its end. A line of EXCEPTIONS is "tool | text that the finding contains | why the tool is wrong".
"""
import re
import sys

PREFIX = "========="
NO_FINDING = re.compile(r"COMPUTE-SANITIZER|SUMMARY|LEAK|Target application returned|no kernels|RACECHECK")
CONTINUED = re.compile(r"^(?:\s{2,}|\s*$)")


def findings(text):
    """Blocks of lines: a finding's first line follows the prefix and one space, its details are indented deeper."""
    blocks = []
    for line in text.splitlines():
        if not line.startswith(PREFIX):
            continue
        line = line[len(PREFIX) :]
        if CONTINUED.match(line):
            if blocks:
                blocks[-1].append(line.rstrip())
        else:
            blocks.append([line.strip()])
    return ["\n".join(block).rstrip() for block in blocks if not NO_FINDING.search(block[0])]


def exceptions_of(tool, text):
    lines = (line.split("|") for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return [fields[1].strip() for fields in lines if fields[0].strip() == tool]


def main(tool, log_path, exceptions_path):
    with open(log_path, encoding="utf-8", errors="replace") as file:
        log = file.read()
    with open(exceptions_path, encoding="utf-8") as file:
        exceptions = exceptions_of(tool, file.read())
    wrong = [finding for finding in findings(log) if not any(text in finding for text in exceptions)]
    for finding in wrong[:5]:
        print(f"{log_path}: {tool}: {finding}")
    if len(wrong) > 5:
        print(f"{log_path}: {tool}: {len(wrong) - 5} more")
    if "SUMMARY" not in log:
        print(f"{log_path}: {tool} did not come to its end")
    return 1 if wrong or "SUMMARY" not in log else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
