"""Who competes: their command lines, their environments, and what each of them needs.

A contestant is a process whose last line of output is JSON.
"""

import json
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "benchmarks" / "peers"
FILES = ROOT / "target" / "peers"
THREADS = 2
# What Leyden sets for itself at its start, for all: waiting threads sleep, and glibc keeps
# freed blocks instead of faulting their pages in anew.
SETTLED = {
    "OMP_WAIT_POLICY": "passive",
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "2147483648",
}
# The peers' own environments: the folder, and what must import there.
ENVIRONMENTS = {
    "transformers": (".venv-peers", "torch, transformers", "requirements.txt"),
    "trl": (".venv-peers", "trl", "requirements.txt"),
    "llama": (".venv-peers", "xllamacpp, gguf", "requirements.txt"),
    "vllm": (".venv-vllm", "vllm", "install_vllm.sh"),
}


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
            raise SystemExit(
                f"{self.name} failed (exit code {done.returncode}): {' '.join(command)}"
            )
        return json.loads(done.stdout.strip().splitlines()[-1])


def has_fast_bf16():
    """Whether this processor multiplies bf16 numbers; where it does not, bf16 is emulated."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return bool({"avx512_bf16", "amx_bf16"} & set(line.split()))
    return False


def model_path(path):
    """A Hugging Face folder, a GGUF file, or a folder that holds one GGUF file."""
    if path.is_file() or (path / "config.json").exists():
        return path
    files = sorted(path.rglob("*.gguf"))
    if len(files) != 1:
        raise SystemExit(
            f"{path} holds no config.json and {len(files)} GGUF files; give --model"
        )
    return files[0]


def build():
    subprocess.run(
        ["cargo", "build", "--release", "--quiet", "--workspace", "--bins"],
        cwd=ROOT,
        check=True,
    )
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
    return {kind: target / kind for kind in ("generate", "train_step", "grpo_step")}


def installed(wanted):
    """The Python of every wanted peer that is there; the others are named."""
    found = {}
    for peer in sorted(wanted):
        folder, modules, how = ENVIRONMENTS[peer]
        python = ROOT / folder / "bin" / "python"
        if python.exists():
            probe = [python, "-c", f"import {modules}"]
            if subprocess.run(probe, capture_output=True).returncode == 0:
                found[peer] = python
                continue
        print(
            f"{peer}: not installed ({folder} cannot import {modules}), left out; "
            f"see benchmarks/peers/{how}"
        )
    return found


class Contest:
    """Files and command lines of all kinds of work."""

    def __init__(self, model, dtypes, wanted, quick):
        self.model, self.dtypes, self.quick = model_path(model), dtypes, quick
        self.programs = build()
        FILES.mkdir(parents=True, exist_ok=True)
        self.peers = installed(wanted)
        self._folder = None

    def write(self, program, *arguments):
        """Lets a binary of ours write a file."""
        command = [str(self.programs[program]), *map(str, arguments)]
        subprocess.run(command, cwd=ROOT, check=True)

    @property
    def folder(self):
        """The model as a Hugging Face folder, which is what peers read."""
        if self._folder is None:
            self._folder = self.model if self.model.is_dir() else FILES / self.model.stem
            if not (self._folder / "config.json").exists():
                self.write("generate", "--model", self.model, "--export", self._folder)
        return self._folder

    def input(self, work):
        """The option that hands over the work's input, which is written here."""
        path = FILES / f"{work.name}.json"
        program, option = work.reads
        made = work.made
        if self.quick and work.name == "calculator":
            made = ("--tasks", 2, "--samples", 3)
        if program == "generate":
            made = ("--model", self.model, *made)
        self.write(program, option, path, "--make", *made)
        return (option, path)

    def contestants(self, work):
        """Leyden in every number type, then the peers; the first is compared with all."""
        shared = [*self.input(work), "--threads", THREADS]
        if work.tokens:
            tokens = 8 if self.quick else work.tokens
            shared += ["--samples", work.samples, "--tokens", tokens]
        if work.variants:
            dtype = self.dtypes[0]
            return [
                self.leyden(work, dtype, [*shared, *more], f", {name}")
                for name, *more in work.variants
            ]
        ours = [self.leyden(work, dtype, shared) for dtype in self.dtypes]
        for peer in work.peers:
            if peer == "transformers" and peer in self.peers:
                ours += self.transformers(work, shared)
            elif peer in self.peers:
                script = PEERS / f"{work.kind}_{peer}.py"
                for dtype in self.dtypes:
                    head = [self.peers[peer], script, "--model", self.weights(peer, dtype)]
                    ours.append(Contestant(f"{peer} {dtype}", [*head, "--dtype", dtype, *shared]))
        return ours

    def weights(self, peer, dtype):
        """The model in the form that a peer reads."""
        if peer != "llama":
            return self.folder
        path = FILES / f"{self.model.stem}-{dtype}.gguf"
        if not path.exists():
            command = [self.peers[peer], PEERS / "gguf_of.py", self.folder, path, "--dtype", dtype]
            subprocess.run([str(part) for part in command], cwd=ROOT, check=True)
        return path

    def leyden(self, work, dtype, shared, variant=""):
        head = [self.programs[work.kind], "--model", self.model, "--dtype", dtype]
        return Contestant(f"Leyden {dtype}{variant}", [*head, *shared])

    def transformers(self, work, shared):
        script = PEERS / f"{work.kind}_transformers.py"
        head = [self.peers["transformers"], script, "--model", self.folder, *shared]
        if work.kind == "generate":
            forms = [(dtype, "--dtype", dtype) for dtype in self.dtypes]
        else:
            forms = []
            if "bf16" in self.dtypes:
                forms += [
                    ("bf16 + f32 master", "--precision", "master"),
                    ("bf16 autocast", "--precision", "autocast"),
                    ("bf16 + f32 master, head at actions", "--precision", "master",
                     "--logits", "actions"),
                ]
            if "f32" in self.dtypes:
                forms += [
                    ("f32", "--precision", "f32"),
                    ("f32, head at actions", "--precision", "f32", "--logits", "actions"),
                ]
        return [Contestant(f"transformers {name}", [*head, *more]) for name, *more in forms]
