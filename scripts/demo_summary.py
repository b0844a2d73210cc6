#!/usr/bin/env python3
"""Says in plain words what a replay showed: demo_summary.py REPORT.json PAGE.html"""

import json
import sys


def mebibytes(count):
    return f"{count / 2**20:,.0f} MiB"


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        report = json.load(file)
    step, requests, cost = report["per_step"], report["requests"], report["cost"]
    paged, padded = cost["paged_latent"]["peak_bytes"], cost["padded_latent"]["peak_bytes"]
    per_head = cost["uncompressed_per_head"]["peak_bytes"]
    preemptions = "- The pool of pages never ran dry; when it does, a request is set aside and continued later, not lost."
    if requests["preemptions"] > 0:
        preemptions = f"""- The pool of pages ran dry now and then; a request was then set aside and continued later, none was lost
  ({requests['preemptions']:,} preemptions)."""
    print(f"""
What this showed
- {requests['entered']:,} requests of very different lengths were served together on {report['device']},
  {step['mean_batch']:.0f} at a time on average: {report['tokens']['generated']:,} tokens, \
{report['tokens']['generated_per_second']:,.0f} a second, {step['attention_seconds_p50'] * 1e3:.0f} ms for a typical step.
- They shared a paged cache of {mebibytes(paged)}. Padding each batch to its longest request would take {mebibytes(padded)},
  and keys and values kept for every head, as without the latent, {mebibytes(per_head)}.
{preemptions}
- {report['verify']['rows']:,} rows of the results, drawn at random, were compared with a calculation in double precision: \
{report['verify']['wrong']:,} wrong.

Pictures (batch size, pages in use against padded, step time):  file://{sys.argv[2]}
All figures as JSON:                                            {sys.argv[1]}""")


if __name__ == "__main__":
    main()
