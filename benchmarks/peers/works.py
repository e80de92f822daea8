"""The work that is compared: what each contestant is given, and how its speed is named.

Lengths and counts stand here once; the input files are written from them by Leyden's own
binaries, and every contestant reads the same file.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    name: str
    # What it is, for the reader of a table.
    title: str
    # `generate`, `train_step` or `grpo_step`: which binary, and which script of a peer.
    kind: str
    # Arguments with which the binary writes the input.
    made: tuple
    # Samples of each prompt and new tokens of each sample, where something is generated.
    samples: int = 0
    tokens: int = 0
    # Figure of a contestant's JSON that is its speed, and that figure in words.
    rate: str = "median_tokens_per_second"
    unit: str = "output tokens/s"
    peers: tuple = ("transformers",)
    # Leyden against itself: a name and arguments each, instead of number types and peers.
    variants: tuple = ()

    @property
    def reads(self):
        """The binary that writes the input, and the option that names it."""
        if self.kind == "train_step":
            return "train_step", "--rollouts"
        return "generate", "--prompts"


def generation(name, title, made, samples, tokens, peers):
    return Work(name, title, "generate", made, samples, tokens, peers=("transformers", *peers))


WORKS = [
    generation(
        "groups",
        "group rollouts: 4 prompts of 200 tokens, 8 samples each, 64 new tokens",
        ("--count", 4, "--length", 200),
        8,
        64,
        ("vllm",),
    ),
    generation(
        "distinct",
        "32 different prompts of 200 tokens, 64 new tokens",
        ("--count", 32, "--length", 200),
        1,
        64,
        ("vllm",),
    ),
    generation(
        "single",
        "batch 1: a prompt of 8 tokens, 128 new tokens",
        ("--count", 1, "--length", 8),
        1,
        128,
        ("vllm", "llama"),
    ),
    generation(
        "turns",
        "16 agents, 5 turns: prompts grow from 240 to 1,200 tokens, 48 new tokens a turn",
        ("--count", 16, "--length", 240, "--turns", 5, "--between", 192),
        1,
        48,
        ("vllm",),
    ),
    Work(
        "tools",
        "the same 16 agents and 5 turns with tools of 0 to 4 seconds between the turns",
        "generate",
        ("--count", 16, "--length", 240, "--turns", 5, "--between", 192),
        samples=1,
        tokens=48,
        peers=(),
        variants=(
            ("continuous", "--tool-seconds", 2, "--schedule", "continuous"),
            ("lockstep", "--tool-seconds", 2, "--schedule", "lockstep"),
            ("continuous, no tools", "--schedule", "continuous"),
            ("lockstep, no tools", "--schedule", "lockstep"),
        ),
    ),
    Work(
        "calculator",
        "training step on 64 calculator rollouts: 8 tasks, 8 samples, 2 or 3 calls each",
        "train_step",
        ("--tasks", 8, "--samples", 8),
        rate="median_rollouts_per_second",
        unit="rollouts/s",
    ),
    Work(
        "unrelated",
        "training step on 8 rows of 256 tokens that share nothing",
        "train_step",
        ("--unrelated", 256),
        unit="tokens/s",
    ),
    Work(
        "grpo",
        "a whole step of GRPO: 4 prompts of 200 tokens, 8 samples of 64 new tokens, one update",
        "grpo_step",
        ("--count", 4, "--length", 200),
        samples=8,
        tokens=64,
        rate="median_rollouts_per_second",
        unit="rollouts/s",
        peers=("trl",),
    ),
]
BY_NAME = {work.name: work for work in WORKS}
