#!/usr/bin/env python3
"""Lists what compute-sanitizer complains about in a log, but for the exceptions that are known.

    sanitizer_findings.py TOOL LOG EXCEPTIONS

Prints each finding that the exceptions of the tool do not cover and exits with 1 if there is any, or if the tool did
not come to its end. A line of EXCEPTIONS is "tool | what the finding contains | why the tool is wrong". A race is one
finding for each pair of accesses; "A <> B" covers those with A in one access and B in the other, "A" those with A in
either.
"""

import re
import sys

PREFIX = "========="
NO_FINDING = re.compile(r"COMPUTE-SANITIZER|SUMMARY|LEAK|Target application returned|no kernels|RACECHECK")
CONTINUED = re.compile(r"^(?:\s{2,}|\s*$)")
RACE = "Race reported between "
DETAILS = re.compile(r"\+0x[0-9a-f]+| \[\d+ hazards\]")  # of a race; they differ from one report to the next

Finding = tuple[str, ...]  # the two accesses of a race, or the text of anything else


def blocks_of(text: str) -> list[list[str]]:
    """A report's first line follows the prefix and one space, its details are indented deeper."""
    blocks: list[list[str]] = []
    for line in text.splitlines():
        if not line.startswith(PREFIX):
            continue
        line = line[len(PREFIX) :]
        if not CONTINUED.match(line):
            blocks.append([line.strip()])
        elif blocks and line.strip():
            blocks[-1].append(line.rstrip())
    return blocks


def races_of(block: list[str]) -> list[Finding]:
    first, *others = [DETAILS.sub("", line).strip() for line in block]
    return [(first[first.index(RACE) + len(RACE) :], other.removeprefix("and ")) for other in others]


def findings(text: str) -> list[Finding]:
    found: list[Finding] = []
    for block in blocks_of(text):
        if NO_FINDING.search(block[0]):
            continue
        found += races_of(block) if RACE in block[0] and len(block) > 1 else [("\n".join(block),)]
    return found


def exceptions_of(tool: str, text: str) -> list[list[str]]:
    lines = (line.split("|") for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return [[part.strip() for part in fields[1].split("<>")] for fields in lines if fields[0].strip() == tool]


def covers(exception: list[str], finding: Finding) -> bool:
    if len(exception) == 1:
        return any(exception[0] in access for access in finding)
    return any(all(part in access for part, access in zip(exception, order)) for order in (finding, finding[::-1]))


def main(tool: str, log_path: str, exceptions_path: str) -> int:
    with open(log_path, encoding="utf-8", errors="replace") as file:
        log = file.read()
    with open(exceptions_path, encoding="utf-8") as file:
        exceptions = exceptions_of(tool, file.read())
    wrong = [finding for finding in findings(log) if not any(covers(exception, finding) for exception in exceptions)]
    distinct = list(dict.fromkeys(wrong))
    for finding in distinct[:10]:
        print(f"{log_path}: {tool}: " + "\n    and ".join(finding))
    if len(distinct) > 10:
        print(f"{log_path}: {tool}: {len(distinct) - 10} more")
    if "were not printed" in log:
        print(f"{log_path}: {tool} did not print all that it found")
    if "SUMMARY" not in log:
        print(f"{log_path}: {tool} did not come to its end")
    return 1 if wrong or "were not printed" in log or "SUMMARY" not in log else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
