#!/usr/bin/env python3
"""Leyden beside its peers: the same work, the same weights, one process at a time.

    make setup && make smollm2
    python3 -m venv .venv-peers
    .venv-peers/bin/pip install -r benchmarks/peers/requirements.txt
    sh benchmarks/peers/install_vllm.sh        # where it installs
    python3 benchmarks/peers/compare.py --rounds 3 --record

Contestants take turns (A B C, A B C, …), so that what else happens on the machine meets
them all; each has the cores to itself, two threads and the same settings. A ratio is
taken within a round and reported as the median over rounds with its range. A peer that is
not installed is named and left out. Needs nothing but Python's standard library.

Before speed, agreement: in f32, Leyden and transformers must continue the prompts greedily by
the same tokens, and must find the same loss, log-probability and gradient norm on the same
rollouts (--check does this alone).
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

from contest import PEERS, ROOT, THREADS, Contest, Contestant, has_fast_bf16
from works import BY_NAME, WORKS

# Largest relative difference in f32; orders of summation differ.
TOLERANCE = 1e-4
RESULTS = ROOT / "results" / "throughput"


def check(contest):
    """Agreement in f32; exits where there is none."""
    once = ["--repetitions", 1, "--warm-up", 0, "--tokens", 1, "--greedy", 16]
    shared = contest.input(BY_NAME["groups"])
    program, python = contest.programs["generate"], contest.peers["transformers"]
    ours = Contestant("Leyden f32", [program, "--model", contest.model, "--dtype", "f32", *shared])
    script = PEERS / "generate_transformers.py"
    head = [python, script, "--model", contest.folder, "--dtype", "f32"]
    theirs = Contestant("transformers f32", [*head, *shared])
    ours, theirs = ours.run(*once), theirs.run(*once)
    pairs = [(a, b) for x, y in zip(ours["greedy"], theirs["greedy"]) for a, b in zip(x, y)]
    equal = sum(a == b for a, b in pairs)
    print(f"greedy tokens, f32: {equal} of {len(pairs)} equal")
    agree = equal == len(pairs)
    shared = ["--rollouts", ROOT / "target" / "peers" / "check.json"]
    contest.write("train_step", *shared, "--make", "--tasks", 2, "--samples", 3)
    shared += ["--repetitions", 2]
    program = contest.programs["train_step"]
    command = [program, "--model", contest.model, "--dtype", "f32", *shared]
    train = Contestant("Leyden f32", command).run()
    script = PEERS / "train_step_transformers.py"
    command = [python, script, "--model", contest.folder, "--precision", "f32"]
    command += ["--exact-norm", *shared]
    peer = Contestant("transformers f32", command).run()
    # The first loss is a sum of advantages whatever the model says; the second is not.
    for key, scale in [("loss", 1.0), ("logp_mean", None), ("grad_norm", None)]:
        for update, (a, b) in enumerate(zip(train[key], peer[key]), 1):
            difference = abs(a - b) / (scale or abs(b))
            agree &= difference <= TOLERANCE
            print(f"{key} of update {update}, f32: {a:.8g} and {b:.8g}, apart by {difference:.1e}")
    if not agree:
        raise SystemExit("Leyden and transformers do not do the same work: no comparison")
    return {"greedy_tokens_equal": [equal, len(pairs)], "leyden": train, "transformers": peer}


def compete(contest, work, args):
    """Runs of every contestant, by name. A peer that fails is named and left out."""
    contestants = contest.contestants(work)
    if args.only:
        contestants = [c for c in contestants if any(name in c.name for name in args.only)]
    if not contestants:
        raise SystemExit(f"--only leaves nobody for {work.name}")
    runs = {c.name: [] for c in contestants}
    for number in range(1, args.rounds + 1):
        for contestant in list(contestants):
            try:
                run = contestant.run("--repetitions", args.repetitions)
            except SystemExit as failure:
                if contestant.name.startswith("Leyden"):
                    raise
                print(f"{failure}\n{contestant.name}: left out of {work.name}", file=sys.stderr)
                contestants.remove(contestant)
                del runs[contestant.name]
                continue
            runs[contestant.name].append(run)
            print(
                f"{work.name}, round {number}: {contestant.name}: {run[work.rate]:.4g} {work.unit}",
                flush=True,
            )
    return runs


def summary(work, runs):
    """Per contestant the median rate and its range, and the ratio of the first to it."""
    key = work.rate
    first = next(iter(runs))
    rows = []
    for name, own in runs.items():
        rates = [run[key] for run in own]
        ratios = [a[key] / b[key] for a, b in zip(runs[first], own)]
        rows.append(
            {
                "name": name,
                "rate": statistics.median(rates),
                "rate_range": [min(rates), max(rates)],
                "ratio": statistics.median(ratios),
                "ratio_range": [min(ratios), max(ratios)],
                "peak_memory_bytes": max(run["peak_memory_bytes"] for run in own),
                "computed_tokens": own[0].get("computed_tokens"),
            }
        )
    return rows


def table(work, rows, quick=False):
    first = rows[0]["name"]
    title = f"{work.title} (a small part of it: --quick)" if quick else work.title
    lines = [
        f"| {title} | {work.unit}, median (range) | {first} is faster by | peak memory |",
        "|---|---|---|---|",
    ]
    for row in rows:
        low, high = row["rate_range"]
        rate = f"{row['rate']:.3g} ({low:.3g}–{high:.3g})"
        low, high = row["ratio_range"]
        ratio = "" if row["name"] == first else f"×{row['ratio']:.2f} (×{low:.2f}–×{high:.2f})"
        memory = f"{row['peak_memory_bytes'] / 2**30:.2f} GiB"
        lines.append(f"| {row['name']} | {rate} | {ratio} | {memory} |")
    peers = [row for row in rows if not row["name"].startswith("Leyden")]
    if peers and first.startswith("Leyden"):
        best = min(peers, key=lambda row: row["ratio"])
        lines += ["", f"The fastest peer is {best['name']}; {first} is ×{best['ratio']:.2f} as fast."]
    return "\n".join(lines)


def machine():
    def output(*command):
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        return done.stdout.strip()

    cpu = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "bf16_instructions": has_fast_bf16(),
        "threads": THREADS,
        "system": platform.platform(),
        "revision": output("git", "rev-parse", "HEAD"),
        "changed_files": len(output("git", "status", "--porcelain").splitlines()),
        "rustc": output("rustc", "--version"),
    }


def record(work, args, runs, rows, agreement):
    RESULTS.mkdir(parents=True, exist_ok=True)
    result = {
        "work": work.name,
        "title": work.title,
        "machine": machine(),
        "rounds": args.rounds,
        "repetitions": args.repetitions,
        "agreement": agreement,
        "summary": rows,
        "runs": runs,
    }
    text = json.dumps(result, indent=1)
    # The paths of this machine say nothing to others.
    text = text.replace(str(ROOT) + "/", "")
    (RESULTS / f"{work.name}.json").write_text(text + "\n")
    place = result["machine"]
    bf16 = "with" if place["bf16_instructions"] else "without"
    note = (
        f"{place['cpu']} {bf16} bf16 instructions, {place['threads']} threads, {args.rounds} "
        f"rounds in turn, revision {place['revision'][:10]}"
    )
    (RESULTS / f"{work.name}.md").write_text(f"{table(work, rows)}\n\n{note}\n")
    print(f"written: {(RESULTS / work.name).relative_to(ROOT)}.json and .md")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ", ".join(BY_NAME)
    parser.add_argument("work", nargs="*", help=f"{names} (default: all)")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "smollm2")
    parser.add_argument(
        "--dtypes",
        nargs="+",
        choices=["bf16", "f32"],
        help="default: both where the processor multiplies bf16, else f32",
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--repetitions", type=int, default=1, help="timed repetitions of each run (default 1)"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="contestants whose name has this")
    parser.add_argument("--check", action="store_true", help="agreement only")
    parser.add_argument("--no-check", action="store_true", help="speed only")
    parser.add_argument("--quick", action="store_true", help="a small part of the work, to try it out")
    parser.add_argument("--record", action="store_true", help="write results/throughput/")
    args = parser.parse_args()
    if args.quick and args.record:
        parser.error("--quick measures too little to be recorded")
    if unknown := set(args.work) - set(BY_NAME):
        parser.error(f"unknown work {', '.join(sorted(unknown))}; there are {names}")

    dtypes = args.dtypes or (["bf16", "f32"] if has_fast_bf16() else ["f32"])
    if not args.dtypes and "bf16" not in dtypes:
        print("this processor has no bf16 instructions: everybody computes in f32")
    works = [BY_NAME[name] for name in args.work] or WORKS
    # Agreement is with transformers, whatever the work.
    wanted = {"transformers"}.union(*(work.peers for work in works))
    contest = Contest(args.model, dtypes, {"transformers"} if args.check else wanted, args.quick)
    busy = os.getloadavg()[0]
    if busy > 0.5 * (os.cpu_count() or 1) and not args.check:
        print(f"the machine is busy (load {busy:.1f}): these figures are worth little", file=sys.stderr)
    known = "transformers" in contest.peers
    agreement = check(contest) if known and not args.no_check else None
    if args.check:
        if not known:
            raise SystemExit("there is nobody to agree with: transformers is not installed")
        return
    for work in works:
        runs = compete(contest, work, args)
        rows = summary(work, runs)
        print(table(work, rows, args.quick))
        if args.record:
            record(work, args, runs, rows, agreement)


if __name__ == "__main__":
    main()
