#!/usr/bin/env python3
"""Plants a violation of each rule of check_rooms.py and expects it to be found, and clean files to pass."""

import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import check_rooms  # noqa: E402

HEADER = "// What this is for.\n#pragma once\n"
SOURCE = "// What this is for.\n"


def rules(path, text):
    return [rule for _, rule, _ in check_rooms.check_file(path, text)]


class CheckRooms(unittest.TestCase):
    def test_torch(self):
        for line in ("import torch", "    from torch import Tensor"):
            self.assertIn("torch", rules("python/flash_mla/_decode.py", f"def f():\n{line}\n"))
            self.assertEqual([], rules("python/flash_mla/_torch.py", line))
        self.assertEqual([], rules("python/flash_mla/_library.py", "import torch_c_dlpack_ext\n"))

    def test_includes(self):
        for path, include in [
            ("include/flash_mla/a.h", '"core/int_math.h"'),
            ("include/flash_mla/a.h", "<cuda_runtime.h>"),
            ("src/core/a.h", '"schedule/work.h"'),
            ("src/schedule/a.h", '"api/validate.h"'),
            ("src/schedule/a.h", "<omp.h>"),
            ("src/api/a.h", '"cpu/backend.h"'),
            ("src/api/a.h", "<cuda_runtime.h>"),
            ("src/cache/a.h", "<oneapi/dnnl/dnnl.hpp>"),
            ("src/cpu/a.h", '"api/validate.h"'),
            ("src/cpu/a.h", '"cuda/tile/swizzle.h"'),
            ("src/cuda/ptx/a.h", '"core/int_math.h"'),
            ("src/cuda/tile/a.h", '"schedule/work.h"'),
            ("src/cuda/sm90/dense_decode/a.cuh", '"cuda/combine.h"'),
            ("src/cuda/sm90/dense_decode/a.cuh", '"cuda/sm90/sparse_decode/b.cuh"'),
            ("src/cuda/backend.h", '"cpu/backend.h"'),
            ("tests/reference/a.h", '"core/dtype.h"'),
            ("tests/consumer/a.h", '"core/dtype.h"'),
            ("python/src/a.h", '"core/dtype.h"'),
            ("python/src/a.h", "<torch/extension.h>"),
            ("examples/a.h", '"core/dtype.h"'),
            ("tools/a.h", "<core/dtype.h>"),
        ]:
            with self.subTest(path=path, include=include):
                self.assertEqual(rules(path, f"{HEADER}#include {include}\n"), ["include"])

    def test_allowed_includes(self):
        for path, include in [
            ("include/flash_mla/a.h", '"flash_mla/types.h"'),
            ("src/core/a.h", "<cstdint>"),
            ("src/schedule/a.h", '"core/int_math.h"'),
            ("src/api/a.h", '"schedule/layout.h"'),
            ("src/cpu/a.h", "<oneapi/dnnl/dnnl.hpp>"),
            ("src/cuda/ptx/a.h", "<cuda/ptx>"),
            ("src/cuda/sm90/dense_decode/a.cuh", '"cuda/sm90/dense_decode/smem.h"'),
            ("src/cuda/sm90/dense_decode/launch.cpp", '"cuda/tensor_map.h"'),
            ("src/cuda/backend.h", '"cuda/combine.h"'),
            ("tests/unit/a.h", '"cpu/tile.h"'),
            ("tools/replay/a.h", '"replay/trace.h"'),
            ("tools/replay/a.h", "<fmt/format.h>"),
        ]:
            with self.subTest(path=path, include=include):
                self.assertEqual(rules(path, f"{HEADER}#include {include}\n"), [])

    def test_core_and_schedule_are_pure(self):
        self.assertEqual(rules("src/core/a.h", HEADER + "#include <vector>\n"), ["pure"])
        self.assertEqual(rules("src/schedule/a.cpp", SOURCE + "int* p = new int;\n"), ["pure"])
        self.assertEqual(rules("src/schedule/a.cpp", SOURCE + "void f() { kernel<<<1, 32>>>(); }\n"), ["pure"])
        self.assertEqual(rules("src/api/a.h", HEADER + "#include <vector>\n"), [])

    def test_headers(self):
        self.assertEqual(rules("tests/a.h", HEADER + "using namespace std;\n"), ["using-namespace"])
        self.assertEqual(rules("tests/a.cpp", SOURCE + "using namespace std;\n"), [])
        self.assertEqual(rules("src/core/a.h", "// What this is for.\nint x;\n"), ["pragma-once"])

    def test_opening_comment(self):
        self.assertEqual(rules("src/core/a.cpp", "int x;\n"), ["opening"])
        self.assertEqual(rules("src/core/a.cpp", '#include "core/b.h"\n'), ["opening"])
        self.assertEqual(rules("src/core/a.cpp", '#include "core/a.h"\n'), [])

    def test_length(self):
        for path in ["src/core/a.cpp", "scripts/a.py", "cmake/A.cmake", "tests/a.sh"]:
            with self.subTest(path=path):
                self.assertEqual(rules(path, SOURCE + "\n" * 399), [])
                self.assertEqual(rules(path, SOURCE + "\n" * 400), ["length"])

    def test_asm(self):
        code = SOURCE + 'void f() { asm volatile("nop"); }\n'
        self.assertEqual(rules("src/cuda/tile/a.cpp", code), ["asm"])
        self.assertEqual(rules("src/cuda/ptx/a.cpp", code), [])

    def test_the_library_is_silent(self):
        for code in [
            'printf("x");', 'std::fprintf(stderr, "x");', 'std::cout << "x";', 'std::cerr << 1;',
            "exit(1);", "std::abort();", "std::terminate();", "throw 1;",
        ]:
            with self.subTest(code=code):
                self.assertEqual(rules("src/api/a.cpp", f"{SOURCE}void f() {{ {code} }}\n"), ["silent"])
                self.assertEqual(rules("tools/a.cpp", f"{SOURCE}void f() {{ {code} }}\n"), [])
        for code in ['snprintf(b, 1, "x");', "x.exit();", "// printf(", 'g("exit(1)");', "int n = 1'000;  // throw 'x'"]:
            with self.subTest(code=code):
                self.assertEqual(rules("src/api/a.cpp", f"{SOURCE}void f() {{\n {code}\n}}\n"), [])

    def test_a_watchdog_may_print(self):
        code = '#ifdef FLASH_MLA_WATCHDOG\nvoid f() { printf("x"); }\n#endif\n'
        self.assertEqual(rules("src/cuda/ptx/a.h", HEADER + code), [])
        self.assertEqual(rules("src/cuda/ptx/a.h", HEADER + code + code.replace("ifdef", "ifndef")), ["silent"])

    def test_relocatable_device_code(self):
        self.assertEqual(rules("src/cuda/CMakeLists.txt", "add_compile_options(-rdc=true)\n"), ["rdc"])

    def test_line_numbers_and_tree(self):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            (root / "src/core").mkdir(parents=True)
            (root / "src/core/good.h").write_text(HEADER + "#include <cstdint>\n")
            self.assertEqual(list(check_rooms.check_tree(root)), [])
            (root / "src/core/bad.h").write_text(HEADER + '/* two\nlines */\n#include "api/plan.h"\n')
            self.assertEqual(
                list(check_rooms.check_tree(root)),
                ['src/core/bad.h:5: include: src/core must not include "api/plan.h"'],
            )


if __name__ == "__main__":
    unittest.main()
