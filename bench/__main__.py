"""`python -m bench list`, `... run NAME|AREA ...` and `... report`. Layer: tooling."""

from __future__ import annotations

import argparse
import json
import sys

from bench.claim import RESULTS, Claim, gpu_name
from bench.claims import CLAIMS


def show(claims: list[Claim]) -> None:
    """One line a claim: its name, goal, and the last result if there is one."""
    for claim in claims:
        path = RESULTS / f"{claim.name}.json"
        last = "not measured yet"
        if path.exists():
            found = json.loads(path.read_text())
            ratio = "" if found["ratio"] is None else f", ratio {found['ratio']:.2f} to {found['peer_name']}"
            verdict = "met" if found["met"] else "NOT met"
            last = f"{found['ours']:.2f} {found['unit']}{ratio}; goal {found['goal']}: {verdict}"
        print(f"{claim.name}\n  {claim.sentence}\n  {last}")


def run(claim: Claim) -> None:
    """Measures one claim, prints the figures and writes its JSON result; says so where it lacks a GPU."""
    if claim.needs_gpu and gpu_name() is None:
        print(f"==> {claim.name}: not measured: it needs a GPU, and NVML finds none on this machine")
        return
    print(f"==> {claim.name}: {claim.sentence}", flush=True)
    document = claim.save(claim.measure())
    keys = ("ours", "peer", "peer_name", "ratio", "unit", "goal", "met", "details")
    print(json.dumps({key: document[key] for key in keys}, indent=1))


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list")
    commands.add_parser("report")
    areas = sorted({claim.area for claim in CLAIMS})
    names = [*(claim.name for claim in CLAIMS), *areas]
    commands.add_parser("run").add_argument("names", nargs="+", choices=names, metavar="NAME|AREA")
    options = parser.parse_args()
    if options.command == "list":
        show(list(CLAIMS))
        return 0
    if options.command == "report":
        from bench import report  # draws, with a library that measuring needs not

        report.write()
        return 0
    for claim in CLAIMS:
        if claim.name in options.names or claim.area in options.names:
            run(claim)
    return 0


if __name__ == "__main__":
    sys.exit(main())
