#!/usr/bin/env python3
"""Prints the tables that docs/performance.md quotes, as Markdown, from bench/results and bench/peers.

results_table.py [GPU]      default: every GPU that has results
"""

import sys

import bench_results
from bench_results import Results, Row, geometric_mean


def line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def header(names: list[str]) -> list[str]:
    return [line(names), "|" + "---|" * len(names)]


def row_cells(row: Row) -> list[str]:
    sustained = row.sustained_us > 0 and row.peer_sustained_us > 0
    return [
        row.name,
        f"{row.us:.1f}",
        f"{row.flashmla_us:.1f}" if row.flashmla_us else "",
        f"{row.fa3_us:.1f}" if row.fa3_us else "",
        f"{row.floor_us:.1f}",
        f"{row.ratio:.2f} x",
        f"{row.us / row.floor_us:.2f} x",
        f"{row.flop / row.us / 1e6:.0f}",
        f"{row.bytes / row.us / 1e3:.0f}",
        f"{row.sustained_us:.1f} ({row.peer_sustained_us / row.sustained_us:.2f} x)" if sustained else "",
        f"{row.joules * 1e3:.0f}" if row.joules > 0 else "",
    ]


def means_table(results: Results) -> list[str]:
    lines = header(["regime", "rows", "geometric mean", "slowest row", "sustained mean"])
    for name in (*bench_results.REGIMES, "all rows"):
        rows = results.rows if name == "all rows" else results.regime(name)
        if not rows:
            continue
        slowest = min(rows, key=lambda row: row.ratio)
        sustained = [r.peer_sustained_us / r.sustained_us for r in rows if r.sustained_us and r.peer_sustained_us]
        mean = f"{geometric_mean(sustained):.3f} x" if sustained else ""
        ratio = geometric_mean(row.ratio for row in rows)
        lines.append(line([name, str(len(rows)), f"{ratio:.3f} x", f"{slowest.ratio:.2f} x, {slowest.name}", mean]))
    return lines


def rows_table(results: Results, regime: str) -> list[str]:
    names = ["shape", "us", "FlashMLA", "FA3", "floor", "x faster peer", "x floor", "TFLOPS", "GB/s"]
    return header([*names, "sustained us", "mJ"]) + [line(row_cells(row)) for row in results.regime(regime)]


def ceilings_table(results: Results) -> list[str]:
    lines = header(["ceiling", "this run", "peers' run", "ratio"])
    for name, ours in results.run["roof"].items():
        if theirs := results.peers["roof"].get(name):
            lines.append(line([name, f"{ours:.0f}", f"{theirs:.0f}", f"{ours / theirs:.3f}"]))
    return lines


def pairs_table(results: Results) -> list[str]:
    lines = header(["pair", "us", "against us", "ratio"]) if results.pairs else []
    for pair in results.pairs:
        lines.append(line([pair["name"], f"{pair['us']:.1f}", f"{pair['base_us']:.1f}", f"{pair['ratio']:.3f}"]))
    return lines


def sweep_lines(results: Results) -> list[str]:
    highest = bench_results.steps_above_neighbours(results.sweep)[:8]
    if not highest:
        return []
    lines = header(["highest steps of the sweep", "us", "floor us", "x the larger neighbour"])
    for factor, point in highest:
        name = f"b={point['b']} h={point['h']} {point['s_k']}"
        lines.append(line([name, f"{point['us']:.1f}", f"{point['floor_us']:.1f}", f"{factor:.2f}"]))
    return lines


def report(results: Results) -> str:
    run = results.run
    tables = [means_table(results), ceilings_table(results)]
    tables += [rows_table(results, regime) for regime in bench_results.REGIMES if results.regime(regime)]
    tables += [pairs_table(results), sweep_lines(results)]
    title = f"{run['device']}, {run['date']}, commit {run['commit']}; schedule {run['schedule_us_b256']:.1f} us at "
    title += f"b = 256, decode {run['host_us_per_decode']:.1f} us of host time"
    return "\n\n".join([title] + ["\n".join(table) for table in tables if table])


def main(gpus: list[str]) -> int:
    found = [results for gpu in gpus if (results := bench_results.load(gpu))]
    for results in found:
        print(report(results), end="\n\n")
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["h100", "h200"]))
