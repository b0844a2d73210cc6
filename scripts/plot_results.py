#!/usr/bin/env python3
"""Draws docs/plots/*.svg from bench/results and bench/peers; the same files give the same bytes.

    plot_results.py [FOLDER]      default: docs/plots

For each GPU that has results: GPU_roofline.svg, GPU_ratio.svg (to the faster peer, row by row) and, when it was
measured, GPU_sweep.svg. Needs matplotlib.
"""

import pathlib
import sys

import bench_results
import matplotlib.pyplot as plt
from bench_results import ROOT, Results, geometric_mean
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = {"compute": "#b3402a", "memory": "#2a5fb3", "serving batch": "#3a8f4c", "latency": "#8a5fb0"}
PEERS = {"flashmla_us": ("FlashMLA", "o"), "fa3_us": ("FlashAttention-3", "^")}

plt.rcParams.update({"svg.hashsalt": "flash_mla", "svg.fonttype": "none", "font.size": 9, "axes.grid": True})
plt.rcParams.update({"grid.alpha": 0.25, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})


def save(figure: Figure, path: pathlib.Path) -> None:
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    print(path)


def caption(results: Results) -> str:
    return f"{results.run['device']}, {results.run['date'][:10]}, commit {results.run['commit']}"


def roofline(results: Results) -> Figure:
    """Rate over intensity. The roofs are this run's own ceilings."""
    roof = results.run["roof"]
    bandwidth, peak = roof["hbm_paged_read_gbps"] * 1e9, roof["mma_mix_multicast_l2_tflops"] * 1e12
    figure, axes = plt.subplots(figsize=(8, 4.8))
    low, high = 8.0, 1000.0
    xs = [low, peak / bandwidth, high]
    axes.plot(xs, [min(x * bandwidth, peak) / 1e12 for x in xs], color="black", lw=1)
    axes.text(8.5, 55, f"paged read, {bandwidth / 1e9:.0f} GB/s", fontsize=8)
    axes.text(200, peak / 1e12 * 1.15, f"the two products, {peak / 1e12:.0f} TFLOPS", fontsize=8)
    for regime in bench_results.REGIMES:
        rows = results.regime(regime)
        axes.scatter(
            [row.flop / row.bytes for row in rows],
            [row.flop / row.us / 1e6 for row in rows],
            s=18,
            color=COLOURS[regime],
            label=regime,
        )
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(0.5, 1500))
    axes.set(xlabel="flop per byte that must move", ylabel="TFLOPS", title=f"Roofline: {caption(results)}")
    axes.legend(loc="lower right")
    return figure


def ratio_axes(axes: Axes, results: Results, regime: str) -> None:
    rows = sorted(results.regime(regime), key=lambda row: (row.heads, row.seqlen_q, row.batch, row.length, row.lens))
    places = range(len(rows))
    axes.bar(places, [row.ratio for row in rows], color=COLOURS[regime], width=0.7)
    axes.axhline(1, color="black", lw=1)
    for peer, (name, marker) in PEERS.items():
        ys = [row.peer_us / getattr(row, peer) if getattr(row, peer) else None for row in rows]
        axes.plot(places, ys, marker, color="black", ms=3, label=name)
    mean = geometric_mean(row.ratio for row in rows)
    axes.set_title(f"{regime}: {mean:.2f} x", fontsize=9)
    axes.set_xticks(list(places), [row.name for row in rows], rotation=90, fontsize=6)


def ratios(results: Results) -> Figure:
    """Bars: our speed; markers: the two peers'."""
    regimes = [regime for regime in bench_results.REGIMES if results.regime(regime)]
    widths = [len(results.regime(regime)) for regime in regimes]
    figure, all_axes = plt.subplots(
        1, len(regimes), figsize=(13, 4.6), sharey=True, squeeze=False, gridspec_kw={"width_ratios": widths}
    )
    for axes, regime in zip(all_axes[0], regimes):
        ratio_axes(axes, results, regime)
    all_axes[0][0].legend(loc="lower left", fontsize=7)
    all_axes[0][0].set_ylabel("speed, faster peer = 1; mean in the title")
    figure.suptitle(caption(results), fontsize=9)
    return figure


def sweep(results: Results) -> Figure:
    """Time over (floor + 3 us) against the length, a line for each batch."""
    points = results.sweep
    heads = sorted({point["h"] for point in points})
    figure, all_axes = plt.subplots(1, len(heads), figsize=(12, 4.6), sharey=True, squeeze=False)
    batches = sorted({point["b"] for point in points})
    colours = {b: plt.get_cmap("viridis")(i / max(len(batches) - 1, 1)) for i, b in enumerate(batches)}
    for axes, h in zip(all_axes[0], heads):
        for b in batches:
            line = sorted((p["s_k"], p["us"] / (p["floor_us"] + 3)) for p in points if p["h"] == h and p["b"] == b)
            axes.plot(*zip(*line), marker=".", ms=3, lw=0.9, color=colours[b], label=f"{b}")
        axes.set(xscale="log", xlabel="tokens of each request", title=f"h = {h}")
    all_axes[0][0].set_ylabel("time / (floor + 3 us)")
    all_axes[0][-1].legend(title="b", fontsize=6, ncols=2)
    figure.suptitle(f"Sweep: {caption(results)}", fontsize=9)
    return figure


def main(folder: pathlib.Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    drawn = 0
    for gpu in ("h100", "h200"):
        results = bench_results.load(gpu)
        if results is None:
            continue
        save(roofline(results), folder / f"{gpu}_roofline.svg")
        save(ratios(results), folder / f"{gpu}_ratio.svg")
        if results.sweep:
            save(sweep(results), folder / f"{gpu}_sweep.svg")
        drawn += 1
    return 0 if drawn else 1


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "plots"))
