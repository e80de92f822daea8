#!/usr/bin/env python3
"""Leyden beside its peers: the same work, the same weights, one process at a time.

    make setup
    python3 -m venv .venv-peers
    .venv-peers/bin/pip install -r benchmarks/peers/requirements.txt
    python3 benchmarks/peers/compare.py --model models/smollm2 --rounds 3 --record

Contestants take turns (A B C, A B C, …), so that what else happens on the machine meets
them all; each has the cores to itself, two threads and the same settings. A ratio is
taken within a round and reported as the median over rounds with its range. A peer that is
not installed is named and left out. Needs nothing but Python's standard library.

Before speed, agreement: in f32, Leyden and the peer must continue the prompts greedily by
the same tokens, and must find the same loss, log-probability and gradient norm on the same
rollouts (--check does this alone, on a smaller batch).
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "benchmarks" / "peers"
WORK = ROOT / "target" / "peers"
# What Leyden sets for itself at its start, for all: waiting threads sleep, and glibc keeps
# freed blocks instead of faulting their pages in anew.
SETTLED = {
    "OMP_WAIT_POLICY": "passive",
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "2147483648",
}
THREADS = 2
# Largest relative difference in f32; orders of summation differ.
TOLERANCE = 1e-4
RATE = {"generate": "tokens_per_second", "train_step": "rollouts_per_second"}


class Contestant:
    """A command line whose last line of output is JSON."""

    def __init__(self, name, command):
        self.name, self.command = name, [str(part) for part in command]

    def run(self, *more):
        environment = dict(os.environ, OMP_NUM_THREADS=str(THREADS), **SETTLED)
        command = self.command + [str(part) for part in more]
        done = subprocess.run(
            command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        if done.returncode != 0:
            raise SystemExit(f"{self.name} failed (exit code {done.returncode}): {' '.join(command)}")
        return json.loads(done.stdout.strip().splitlines()[-1])


def model_path(path):
    """A Hugging Face folder, a GGUF file, or a folder that holds one GGUF file."""
    if path.is_file() or (path / "config.json").exists():
        return path
    files = sorted(path.rglob("*.gguf"))
    if len(files) != 1:
        raise SystemExit(f"{path} holds no config.json and {len(files)} GGUF files; give --model")
    return files[0]


def build():
    subprocess.run(
        ["cargo", "build", "--release", "--quiet", "-p", "leyden-benchmarks", "--bins"],
        cwd=ROOT,
        check=True,
    )
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
    return target / "generate", target / "train_step"


class Contest:
    """Files and command lines of both kinds of work."""

    def __init__(self, args):
        self.args = args
        self.model = model_path(args.model)
        self.generate, self.train_step = build()
        WORK.mkdir(parents=True, exist_ok=True)
        self.prompts, self.rollouts = WORK / "prompts.json", WORK / "rollouts.json"
        self.small = WORK / "rollouts-small.json"
        make = ["--make", "--rollouts"]
        write_file(self.generate, "--model", self.model, "--prompts", self.prompts, "--make")
        write_file(self.train_step, *make, self.rollouts)
        write_file(self.train_step, *make, self.small, "--tasks", 2, "--samples", 3)
        if args.quick:
            self.rollouts = self.small
        self.peer = self.find_peer()
        self.folder = self.hugging_face_folder() if self.peer else None

    def find_peer(self):
        python = self.args.peers
        if python.exists():
            probe = [python, "-c", "import torch, transformers"]
            if subprocess.run(probe, stderr=subprocess.DEVNULL).returncode == 0:
                return python
        requirements = (PEERS / "requirements.txt").relative_to(ROOT)
        print(
            f"transformers: not installed ({python} cannot import it), left out; "
            f"python3 -m venv .venv-peers && .venv-peers/bin/pip install -r {requirements}"
        )
        return None

    def hugging_face_folder(self):
        if self.model.is_dir():
            return self.model
        folder = WORK / self.model.stem
        if not (folder / "config.json").exists():
            write_file(self.generate, "--model", self.model, "--export", folder)
        return folder

    def leyden(self, work, dtype, *more):
        if work == "generate":
            head = [self.generate, "--prompts", self.prompts]
        else:
            head = [self.train_step, "--rollouts", self.rollouts]
        command = [*head, "--model", self.model, "--threads", THREADS, "--dtype", dtype, *more]
        return Contestant(f"Leyden {dtype}", command)

    def transformers(self, work, name, *more):
        given = ["--prompts", self.prompts] if work == "generate" else ["--rollouts", self.rollouts]
        script = PEERS / f"{work}_transformers.py"
        head = [self.peer, script, *given, "--model", self.folder, "--threads", THREADS]
        return Contestant(f"transformers {name}", [*head, *more])

    def contestants(self, work):
        if work == "generate":
            ours = [self.leyden(work, dtype) for dtype in ("bf16", "f32")]
            theirs = [("bf16", "--dtype", "bf16"), ("f32", "--dtype", "f32")]
        else:
            ours = [self.leyden(work, "bf16")]
            theirs = [
                ("bf16 + f32 master", "--precision", "master"),
                ("bf16 autocast", "--precision", "autocast"),
                ("bf16 + f32 master, head at actions", "--precision", "master", "--logits", "actions"),
            ]
        if self.peer:
            ours += [self.transformers(work, *their) for their in theirs]
        if work == "generate" and self.args.quick:
            for contestant in ours:
                contestant.command += ["--tokens", "8", "--samples", "2"]
        chosen = [c for c in ours if not self.args.only or any(o in c.name for o in self.args.only)]
        if not chosen:
            raise SystemExit(f"--only leaves nobody of: {', '.join(c.name for c in ours)}")
        return chosen


def write_file(program, *arguments):
    """Lets a binary of ours write a file."""
    subprocess.run([str(program), *map(str, arguments)], cwd=ROOT, check=True)


def check(contest):
    """Agreement in f32; exits where there is none."""
    ours = contest.leyden("generate", "f32").run("--repetitions", 1, "--warm-up", 0, "--greedy", 16)
    theirs = contest.transformers("generate", "f32", "--dtype", "f32").run(
        "--repetitions", 1, "--warm-up", 0, "--greedy", 16
    )
    pairs = [(a, b) for x, y in zip(ours["greedy"], theirs["greedy"]) for a, b in zip(x, y)]
    equal = sum(a == b for a, b in pairs)
    print(f"greedy tokens, f32: {equal} of {len(pairs)} equal")
    agree = equal == len(pairs)
    settings = ["--rollouts", contest.small, "--repetitions", 2]
    command = [contest.train_step, "--model", contest.model, "--dtype", "f32", *settings]
    ours = Contestant("Leyden f32", command).run()
    script = PEERS / "train_step_transformers.py"
    command = [contest.peer, script, "--model", contest.folder, "--precision", "f32", *settings]
    theirs = Contestant("transformers f32", command).run()
    # The first loss is a sum of advantages whatever the model says; the second is not.
    for key, scale in [("loss", 1.0), ("logp_mean", None), ("grad_norm", None)]:
        for update, (a, b) in enumerate(zip(ours[key], theirs[key]), 1):
            difference = abs(a - b) / (scale or abs(b))
            agree &= difference <= TOLERANCE
            print(f"{key} of update {update}, f32: {a:.8g} and {b:.8g}, apart by {difference:.1e}")
    if not agree:
        raise SystemExit("Leyden and transformers do not do the same work: no comparison")
    return {"greedy_tokens_equal": [equal, len(pairs)], "leyden": ours, "transformers": theirs}


def compete(contest, work):
    """Runs of every contestant, by name."""
    contestants = contest.contestants(work)
    runs = {c.name: [] for c in contestants}
    for number in range(1, contest.args.rounds + 1):
        for contestant in contestants:
            run = contestant.run("--repetitions", contest.args.repetitions)
            runs[contestant.name].append(run)
            rate = run["median_" + RATE[work]]
            print(f"{work}, round {number}: {contestant.name}: {rate:.4g} /s", flush=True)
    return runs


def summary(work, runs):
    """Per contestant the median rate and its range, and the ratio of the first to it."""
    key = "median_" + RATE[work]
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


def table(work, rows):
    unit = {"generate": "output tokens/s", "train_step": "rollouts/s"}[work]
    first = rows[0]["name"]
    lines = [
        f"| {work} | {unit}, median (range) | {first} is faster by | peak memory |",
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
        "threads": THREADS,
        "system": platform.platform(),
        "revision": output("git", "rev-parse", "HEAD"),
        "changed_files": len(output("git", "status", "--porcelain").splitlines()),
        "rustc": output("rustc", "--version"),
    }


def record(work, args, runs, rows, agreement):
    folder = ROOT / "results" / "throughput"
    folder.mkdir(parents=True, exist_ok=True)
    result = {
        "work": work,
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
    (folder / f"{work}.json").write_text(text + "\n")
    place = result["machine"]
    note = (
        f"{place['cpu']}, {place['threads']} threads, {args.rounds} rounds in turn, "
        f"revision {place['revision'][:10]}"
    )
    (folder / f"{work}.md").write_text(f"{table(work, rows)}\n\n{note}\n")
    print(f"written: {(folder / work).relative_to(ROOT)}.json and .md")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", nargs="*", help="generate, train_step (default: both)")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "smollm2")
    parser.add_argument(
        "--peers", type=Path, default=ROOT / ".venv-peers/bin/python", help="the peers' Python"
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
    unknown = set(args.work) - set(RATE)
    if unknown:
        parser.error(f"unknown work {', '.join(unknown)}; there are {', '.join(RATE)}")

    contest = Contest(args)
    busy = os.getloadavg()[0]
    if busy > 0.5 * (os.cpu_count() or 1) and not args.check:
        print(f"the machine is busy (load {busy:.1f}): these figures are worth little", file=sys.stderr)
    agreement = check(contest) if contest.peer and not args.no_check else None
    if args.check:
        return
    for work in args.work or RATE:
        runs = compete(contest, work)
        rows = summary(work, runs)
        print(table(work, rows))
        if args.record:
            record(work, args, runs, rows, agreement)


if __name__ == "__main__":
    main()
