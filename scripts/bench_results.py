"""Reads the measurements of bench/ for the plots and tables: our results beside the peers' rows of the same GPU.

Used by plot_results.py and results_table.py.
"""

import json
import math
import pathlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Optional

ROOT = pathlib.Path(__file__).resolve().parent.parent
REGIMES = ("compute", "memory", "serving batch", "latency")


@dataclass(frozen=True)
class Row:
    """One shape: our time and the peers', in microseconds; 0 where there is none."""

    batch: int
    seqlen_q: int
    heads: int
    length: int  # 0: lengths of a trace
    lens: str
    regime: str
    us: float
    sustained_us: float
    joules: float  # a launch, sustained
    flashmla_us: float
    fa3_us: float
    peer_sustained_us: float  # of the faster one
    flop: float
    bytes: float
    floor_us: float  # by the ceilings of our own run

    @property
    def peer_us(self) -> float:
        return faster(self.flashmla_us, self.fa3_us)

    @property
    def ratio(self) -> float:
        """How many times as fast as the faster peer."""
        return self.peer_us / self.us

    @property
    def name(self) -> str:
        return f"b={self.batch} s_q={self.seqlen_q} h={self.heads} {self.length or ''} {self.lens}".replace("  ", " ")


@dataclass(frozen=True)
class Results:
    gpu: str  # "h100", "h200"
    run: dict  # our file
    peers: dict
    rows: list[Row]
    sweep: list[dict]  # points {b, h, s_k, us, floor_us}; empty when none were measured, as below
    pairs: list[dict]  # {name, us, base_us, ratio}

    def regime(self, name: str) -> list[Row]:
        return [row for row in self.rows if row.regime == name]


def faster(*times_us: float) -> float:
    return min((time for time in times_us if time > 0), default=0.0)


def geometric_mean(values: Iterable[float]) -> float:
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


def floor_us(flop: float, num_bytes: float, roof: dict) -> float:
    return max(num_bytes / (roof["hbm_paged_read_gbps"] * 1e3), flop / (roof["mma_mix_multicast_l2_tflops"] * 1e6))


def key_of(row: dict) -> tuple:
    return row["b"], row["s_q"], row["h"], row["s_k"], row["lens"]


def join(ours: dict, peer: dict, roof: dict) -> Row:
    return Row(
        batch=peer["b"],
        seqlen_q=peer["s_q"],
        heads=peer["h"],
        length=peer["s_k"],
        lens=peer["lens"],
        regime=peer["regime"],
        us=ours["us"],
        sustained_us=ours.get("sustained_us", 0.0),
        joules=ours.get("sustained_joules", 0.0),
        flashmla_us=peer.get("flashmla_us", 0.0),
        fa3_us=peer.get("fa3_us", 0.0),
        peer_sustained_us=faster(peer.get("flashmla_sustained_us", 0.0), peer.get("fa3_sustained_us", 0.0)),
        flop=peer["flop"],
        bytes=peer["bytes"],
        floor_us=floor_us(peer["flop"], peer["bytes"], roof),
    )


def read(path: pathlib.Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def load(gpu: str, root: pathlib.Path = ROOT) -> Optional[Results]:
    """The results of this GPU, in the order of the peers' file; None when there are none."""
    paths = [root / "bench" / folder / f"{gpu}.json" for folder in ("results", "peers")]
    if not all(path.exists() for path in paths):
        return None
    run, peers = map(read, paths)
    path = root / "bench" / "results" / f"{gpu}_sweep.json"
    sweep = read(path) if path.exists() else {}
    ours = {key_of(row): row for row in run["rows"]}
    rows = [join(ours[key_of(peer)], peer, run["roof"]) for peer in peers["rows"] if key_of(peer) in ours]
    return Results(gpu, run, peers, rows, sweep.get("sweep", []), sweep.get("pairs", []))


def steps_above_neighbours(points: list[dict], slack_us: float = 3.0) -> list[tuple[float, dict]]:
    """For each point with two neighbours along an axis: by what factor its time over (floor + slack) exceeds the larger
    of theirs; the largest first."""
    cost = {(p["h"], p["b"], p["s_k"]): p["us"] / (p["floor_us"] + slack_us) for p in points}
    batches, lengths = (sorted({p[axis] for p in points}) for axis in ("b", "s_k"))
    found = []
    for point in points:
        h, b, s_k = point["h"], point["b"], point["s_k"]
        factors = []
        for axis, at in ((batches, b), (lengths, s_k)):
            i = axis.index(at)
            if 0 < i < len(axis) - 1:
                around = [(h, n, s_k) if axis is batches else (h, b, n) for n in (axis[i - 1], axis[i + 1])]
                if all(key in cost for key in around):
                    factors.append(cost[h, b, s_k] / max(cost[key] for key in around))
        if factors:
            found.append((max(factors), point))
    return sorted(found, key=lambda item: -item[0])
