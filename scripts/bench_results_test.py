#!/usr/bin/env python3
"""Tests of bench_results.py and results_table.py on small results files."""

import json
import math
import pathlib
import tempfile
import unittest

import bench_results
import results_table

ROOF = {"hbm_paged_read_gbps": 3000, "mma_mix_multicast_l2_tflops": 800}
SHAPE = {"b": 2, "s_q": 1, "h": 16, "s_k": 64, "lens": "uniform"}
PEERS = {
    "roof": ROOF,
    "rows": [
        {**SHAPE, "regime": "latency", "flop": 8e8, "bytes": 6e6, "flashmla_us": 12.0, "fa3_us": 10.0},
        {**SHAPE, "b": 4, "regime": "memory", "flop": 8e8, "bytes": 6e6, "flashmla_us": 10.0},
    ],
}
RUN = {
    **{"device": "GPU", "date": "2026-01-01T00:00:00Z", "commit": "abc", "roof": ROOF},
    **{"schedule_us_b256": 5.0, "host_us_per_decode": 4.0},
    "rows": [{**SHAPE, "b": 4, "us": 20.0, "sustained_us": 21.0}, {**SHAPE, "us": 5.0}],
}


def point(b: int, s_k: int, us: float) -> dict:
    return {"b": b, "h": 16, "s_k": s_k, "us": us, "floor_us": 1.0}


class BenchResults(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.root = pathlib.Path(self.folder.name)
        for name, content in (("results", RUN), ("peers", PEERS)):
            (self.root / "bench" / name).mkdir(parents=True)
            (self.root / "bench" / name / "h100.json").write_text(json.dumps(content), encoding="utf-8")

    def tearDown(self) -> None:
        self.folder.cleanup()

    def test_rows_are_joined_by_shape_in_the_order_of_the_peers(self) -> None:
        results = bench_results.load("h100", self.root)
        self.assertEqual([(row.batch, row.us, row.peer_us) for row in results.rows], [(2, 5.0, 10.0), (4, 20.0, 10.0)])
        self.assertEqual([row.ratio for row in results.rows], [2.0, 0.5])
        self.assertAlmostEqual(results.rows[0].floor_us, 2.0)  # 6 MB at 3 TB/s
        self.assertIsNone(bench_results.load("h200", self.root))

    def test_geometric_mean(self) -> None:
        self.assertAlmostEqual(bench_results.geometric_mean([2.0, 0.5]), 1.0)
        self.assertTrue(math.isnan(bench_results.geometric_mean([])))

    def test_steps_above_neighbours(self) -> None:
        points = [point(1, 64, 8), point(1, 128, 10), point(1, 256, 4), point(2, 128, 10), point(4, 128, 10)]
        factors = {(p["b"], p["s_k"]): factor for factor, p in bench_results.steps_above_neighbours(points)}
        self.assertEqual(factors, {(1, 128): 1.25, (2, 128): 1.0})
        self.assertEqual(bench_results.steps_above_neighbours([]), [])

    def test_tables(self) -> None:
        text = results_table.report(bench_results.load("h100", self.root))
        self.assertIn("| latency | 1 | 2.000 x | 2.00 x, b=2 s_q=1 h=16 64 uniform |  |", text)
        self.assertIn("| all rows | 2 | 1.000 x | 0.50 x, b=4 s_q=1 h=16 64 uniform |  |", text)
        widths = {line.count("|") for line in text.splitlines() if line.startswith("| b=")}
        self.assertEqual(widths, {12})
        self.assertNotIn("| pair |", text)

    def test_tables_of_a_sweep(self) -> None:
        pair = {"name": "skewed b=8 h=16", "us": 24.4, "base_us": 20.0, "ratio": 1.22}
        content = {"sweep": [point(1, 64, 8), point(1, 128, 10), point(1, 256, 4)], "pairs": [pair]}
        path = self.root / "bench" / "results" / "h100_sweep.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        text = results_table.report(bench_results.load("h100", self.root))
        self.assertIn("| skewed b=8 h=16 | 24.4 | 20.0 | 1.220 |", text)
        self.assertIn("| b=1 h=16 128 | 10.0 | 1.0 | 1.25 |", text)


if __name__ == "__main__":
    unittest.main()
