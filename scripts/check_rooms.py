#!/usr/bin/env python3
"""Checks the house rules of docs/architecture.md: who may include whom, and what a file may hold.

    scripts/check_rooms.py [ROOT]

Prints one line per violation, "path:line: rule: what", and exits with 1 if there is any.
"""

import pathlib
import re
import sys

CODE = {".h", ".hpp", ".cuh", ".cpp", ".cc", ".cu"}
HEADERS = {".h", ".hpp", ".cuh"}
MAX_LINES = 400
FOLDERS = ["include", "src", "tools", "tests", "bench", "examples", "scripts", "cmake", "python"]

# A header of the C++ standard library: <vector>, <cstdint>, never <name.h>.
STANDARD = r"[a-z0-9_]+"
CUDA = r"cuda.*|nv/.*|cooperative_groups.*|vector_types\.h"
PUBLIC = r"(?!(core|schedule|api|cache|cpu|cuda)/).*"  # anything but the rooms of src/
POSIX = r"unistd\.h|sched\.h|sys/.*|cpuid\.h|pthread\.h"

# Longest matching prefix wins. quoted: includes of this project; angled: of others.
ROOMS = [
    # folder            quoted                                                   angled
    ("include/flash_mla", r"flash_mla/.*", STANDARD),
    ("src/core", r"(core|flash_mla)/.*", STANDARD),
    ("src/schedule", r"(schedule|core|flash_mla)/.*", STANDARD),
    ("src/api", r"(api|schedule|core|flash_mla)/.*", STANDARD),
    ("src/cache", r"(cache|schedule|core|flash_mla)/.*", STANDARD),
    ("src/cpu", r"(cpu|schedule|core|flash_mla|hwy)/.*", rf"{STANDARD}|oneapi/.*|dnnl\.hpp|hwy/.*|omp\.h|{POSIX}"),
    ("src/cuda/ptx", r"cuda/ptx/.*", rf"{STANDARD}|{CUDA}"),
    ("src/cuda/tile", r"(cuda/tile|cuda/ptx|core)/.*", rf"{STANDARD}|{CUDA}"),
    ("src/cuda/sm90", r"(@own|cuda/sm90/common|cuda/combine|cuda/tile|cuda/ptx|schedule|core|flash_mla)/.*", rf"{STANDARD}|{CUDA}"),
    ("src/cuda", r"(cuda|schedule|core|flash_mla)/.*", rf"{STANDARD}|{CUDA}|dlfcn\.h"),
    ("python", r"flash_mla/.*|[a-z_]+\.h", rf"{STANDARD}|tvm/ffi/.*|cuda_runtime_api\.h"),  # cuda: to wait for a stream
    ("tools", PUBLIC, PUBLIC),
    ("examples", PUBLIC, PUBLIC),
    ("tests/reference", r"(flash_mla|reference)/.*", rf"{STANDARD}|{CUDA}"),
    ("tests/consumer", PUBLIC, PUBLIC),
]

# Headers that bring allocation or input and output; core and schedule have neither (snprintf is fine).
ALLOCATION_OR_IO = re.compile(
    r"vector|string|memory|map|unordered_map|set|unordered_set|deque|list|functional|any"
    r"|iostream|ostream|istream|fstream|sstream|iomanip|filesystem"
)

PRINTING = re.compile(
    r"std::(?:cout|cerr|clog)\b"
    r"|(?<![\w.>])(?:std::)?(?:printf|fprintf|vprintf|vfprintf|puts|fputs|putchar|perror)\s*\("
    r"|(?<![\w.>])(?:std::)?(?:exit|_exit|_Exit|quick_exit|abort|terminate)\s*\("
)
TORCH = re.compile(r"^[ \t]*(?:import|from)[ \t]+torch\b", re.MULTILINE)
RELOCATABLE = re.compile(r"-rdc\b|relocatable-device-code|CUDA_SEPARABLE_COMPILATION")

# Debug builds that say which barrier never comes before they trap.
WATCHDOG = re.compile(r"#\s*ifdef FLASH_MLA_WATCHDOG\b.*?#\s*(?:else|endif)\b", re.DOTALL)

TOKEN = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"(?P<tag>[^(\s]*)\(.*?\)(?P=tag)"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'', re.DOTALL
)
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)


def blank(match):
    """Keeps line numbers."""
    return re.sub(r"[^\n]", " ", match.group())


def without_comments_and_strings(text):
    text = re.sub(r"(?<=[0-9a-fA-F])'(?=[0-9a-fA-F])", "", text)  # a digit separator begins no literal
    return TOKEN.sub(blank, text)


def line_of(text, position):
    return text.count("\n", 0, position) + 1


def room_of(path):
    # A kernel's launch is host code: it may use what the rest of the backend uses.
    path = re.sub(r"^src/cuda/sm90/\w+/launch\.", "src/cuda/launch.", path)
    fits = [room for room in ROOMS if path.startswith(room[0] + "/")]
    return max(fits, key=lambda room: len(room[0]), default=None)


def check_includes(path, text):
    room = room_of(path)
    if room is None:
        return
    folder, quoted, angled = room
    own = re.escape(str(pathlib.PurePosixPath(path).parent.relative_to("src"))) if path.startswith("src/") else "-"
    quoted = quoted.replace("@own", own)
    for match in INCLUDE.finditer(text):
        ours, theirs = match.group(1), match.group(2)
        if ours is not None and not re.fullmatch(quoted, ours):
            yield line_of(text, match.start()), "include", f'{folder} must not include "{ours}"'
        if theirs is not None and not re.fullmatch(angled, theirs):
            yield line_of(text, match.start()), "include", f"{folder} must not include <{theirs}>"
        if folder in ("src/core", "src/schedule") and theirs is not None and ALLOCATION_OR_IO.fullmatch(theirs):
            yield line_of(text, match.start()), "pure", f"{folder} neither allocates nor does input and output: <{theirs}>"


def check_words(path, bare):
    """Rules on the code itself, comments and literals blanked."""

    def find(pattern, rule, what):
        for match in re.finditer(pattern, bare):
            yield line_of(bare, match.start()), rule, f"{what}: {match.group().strip()}"

    if pathlib.PurePosixPath(path).suffix in HEADERS:
        yield from find(r"\busing\s+namespace\b", "using-namespace", "not in a header")
        if not re.search(r"#\s*pragma\s+once", bare) and "-inl." not in path:
            yield 1, "pragma-once", "a header starts with #pragma once"
    if path.startswith("src/"):
        for match in PRINTING.finditer(WATCHDOG.sub(blank, bare)):
            yield line_of(bare, match.start()), "silent", f"the library neither prints nor exits: {match.group()}"
        yield from find(r"\bthrow\b", "silent", "the library reports by Status")
        if not path.startswith("src/cuda/ptx/"):
            yield from find(r"\b(?:asm|__asm__|__asm)\b", "asm", "only in src/cuda/ptx")
    if path.startswith(("src/core/", "src/schedule/")):
        yield from find(r"<<<", "pure", "no kernel launches here")
        yield from find(r"(?<!operator )\bnew\b|\bmalloc\s*\(", "pure", "no allocation here")


def check_file(path, text):
    """Yields (line, rule, message) of one file; path is relative to the root, with slashes."""
    name, suffix = pathlib.PurePosixPath(path).name, pathlib.PurePosixPath(path).suffix
    lines = text.count("\n") + (not text.endswith("\n"))
    if lines > MAX_LINES:
        yield lines, "length", f"{lines} lines, at most {MAX_LINES}"
    if not name.startswith("check_rooms"):
        for match in RELOCATABLE.finditer(text):
            yield line_of(text, match.start()), "rdc", f"relocatable device code is never used: {match.group()}"
    if suffix in CODE:
        # foo.cpp may leave it to foo.h, which it then includes first.
        stem = pathlib.PurePosixPath(path).stem
        if not re.match(rf'//|#include "(?:[^"]*/)?{re.escape(stem)}\.h"', text):
            yield 1, "opening", "a file opens with a comment that says what it is for"
        yield from check_includes(path, text)
        yield from check_words(path, without_comments_and_strings(text))
    if path.startswith("python/flash_mla/") and suffix == ".py" and name != "_torch.py":
        for match in TORCH.finditer(text):
            yield line_of(text, match.start()), "torch", "imported by python/flash_mla/_torch.py alone"


def files(root):
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            is_cmake = path.suffix == ".cmake" or path.name == "CMakeLists.txt"
            if path.is_file() and (path.suffix in CODE | {".py", ".sh"} or is_cmake):
                yield path


def check_tree(root):
    for path in files(root):
        relative = path.relative_to(root).as_posix()
        for line, rule, message in check_file(relative, path.read_text(encoding="utf-8")):
            yield f"{relative}:{line}: {rule}: {message}"


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent)
    found = list(check_tree(root))
    for line in found:
        print(line)
    print(f"check_rooms: {sum(1 for _ in files(root))} files, {len(found)} violations")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
