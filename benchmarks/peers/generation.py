"""What all peers that generate share: their arguments, the conversations, the line of JSON.

Loaded only inside the peers' own environments; needs nothing but the standard library.
"""

import argparse
import json
import statistics
import time


def arguments(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", required=True, help="the model in the form that the peer reads")
    parser.add_argument("--prompts", required=True, help="JSON file of conversations")
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="bf16")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--warm-up", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--greedy", type=int, default=0)
    return parser.parse_args()


def read(path):
    """Prompts, and for each later turn the tokens that follow everybody's response."""
    with open(path) as file:
        conversations = json.load(file)["conversations"]
    prompts = [c["prompt"] for c in conversations]
    later = [list(turn) for turn in zip(*(c["later"] for c in conversations))]
    return prompts, later


def peak_memory():
    """Most memory that this process has held at once, in bytes."""
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmHWM")


def measure(tool, args, play, greedy=(), versions=None):
    """Times `play(repetition)`, which returns the number of tokens it made, and prints all."""
    prompts, later = read(args.prompts)
    expected = len(prompts) * (1 + len(later)) * args.samples * args.tokens
    seconds = []
    for repetition in range(args.warm_up + args.repetitions):
        started = time.perf_counter()
        made = play(repetition)
        took = time.perf_counter() - started
        if made != expected:
            raise SystemExit(f"{made} tokens were generated, not {expected}")
        if repetition >= args.warm_up:
            seconds.append(took)
    rates = [expected / s for s in seconds]
    result = {
        "tool": tool,
        "work": "generate",
        "model": args.model,
        "dtype": args.dtype,
        "threads": args.threads,
        "prompts": len(prompts),
        "turns": 1 + len(later),
        "samples": args.samples,
        "new_tokens": args.tokens,
        "seconds": seconds,
        "tokens_per_second": rates,
        "median_tokens_per_second": statistics.median(rates),
        "peak_memory_bytes": peak_memory(),
        "greedy": list(greedy),
        "versions": versions or {},
    }
    print(json.dumps(result))
