#!/usr/bin/env python3
"""`leyden serve` beside the engine that is in it, and beside vLLM's server.

    make setup && make smollm2
    sh benchmarks/peers/install_vllm.sh        # where it installs
    python3 benchmarks/peers/serve.py --rounds 3 --record

Two questions, each answered in rounds in which the contestants take turns:

1. What does serving cost? 32 clients ask at once, each a prompt of 200 tokens, for 64 new
   tokens; beside it `generate` on the same 32 prompts, without server. Output tokens/s.
2. How long is the silence? 8 clients ask at once, streamed; the time until each sees the first
   text, beside vLLM's server. Every round asks other prompts, so that nobody finds them in a
   cache.

Before speed, agreement: the server says which prompt ids it made of the messages, `generate` is
given the very ids, vLLM must have made the same ones, and greedy answers must be the tokens that
`generate` finds. Needs nothing but Python's standard library.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

from compare import machine
from contest import FILES, ROOT, SETTLED, THREADS, Contestant, build, has_fast_bf16
from contest import installed, model_path

RESULTS = ROOT / "results" / "serve"
DTYPES = {"f32": "float32", "bf16": "bfloat16"}
# Common words, which are one token each in most vocabularies.
WORDS = (
    "time year people way day man thing woman life child world school state family student "
    "group country problem hand part place case week company system program question work "
    "government number night point home water room mother area money story fact month lot "
    "right study book eye job word business issue side kind head house service friend father "
    "power hour game line end member law car city community name president team minute idea "
    "body information back parent face others level office door health person art war history "
    "party result change morning reason research girl guy moment air teacher force education"
).split()
ORDER = "Tell a long story in which these words occur:"


class Http:
    """One request a connection, over asyncio's streams."""

    def __init__(self, port):
        self.port = port

    async def post(self, path, body):
        """Yields the lines of the answer's body as they arrive, each with its time."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        data = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
        )
        writer.write(head.encode() + data)
        await writer.drain()
        status = int((await reader.readline()).split()[1])
        chunked = False
        while (line := await reader.readline()) not in (b"\r\n", b""):
            chunked |= line.lower().startswith(b"transfer-encoding:") and b"chunked" in line.lower()
        try:
            async for piece in self.pieces(reader, chunked):
                if status != 200:
                    raise SystemExit(f"port {self.port} answered {status}: {piece.decode()}")
                yield piece, time.perf_counter()
        finally:
            writer.close()

    @staticmethod
    async def pieces(reader, chunked):
        if not chunked:
            yield await reader.read()
            return
        while size := int(await reader.readline(), 16):
            yield await reader.readexactly(size)
            await reader.readline()

    async def whole(self, path, body):
        return json.loads(b"".join([piece async for piece, _ in self.post(path, body)]))

    async def first_text(self, path, body):
        """Seconds until the first delta with text, and until the end."""
        started, first, rest = time.perf_counter(), None, b""
        async for piece, now in self.post(path, body):
            rest += piece
            while b"\n" in rest:
                line, rest = rest.split(b"\n", 1)
                if not line.startswith(b"data: {"):
                    continue
                chunk = json.loads(line[len(b"data: ") :])
                if "error" in chunk:
                    raise SystemExit(f"port {self.port} answered in its stream: {chunk}")
                choices = chunk.get("choices") or [{}]
                if first is None and (choices[0].get("delta") or {}).get("content"):
                    first = now - started
        ended = time.perf_counter() - started
        # An answer without text has its first token at its end.
        return ended if first is None else first, ended


class Server:
    """A server on a port of its own, in a process group of its own."""

    def __init__(self, name, command, port, health, log):
        self.name, self.port = name, port
        self.command, self.health, self.log = [str(part) for part in command], health, log
        self.process = None

    def __enter__(self):
        environment = dict(os.environ, OMP_NUM_THREADS=str(THREADS), **SETTLED)
        environment.update(
            HF_HUB_OFFLINE="1", VLLM_CPU_KVCACHE_SPACE="2", VLLM_CPU_OMP_THREADS_BIND="nobind"
        )
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                self.command, cwd=ROOT, env=environment, stdout=log, stderr=log,
                start_new_session=True,
            )
        limit = time.monotonic() + 300
        while not self.healthy():
            if self.process.poll() is not None or time.monotonic() > limit:
                self.__exit__()
                raise SystemExit(f"{self.name} does not start; see {self.log}")
            time.sleep(0.2)
        return Http(self.port)

    def healthy(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.settimeout(5)
                request = f"GET {self.health} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
                connection.sendall(request.encode())
                return b" 200 " in connection.recv(64)
        except OSError:
            return False

    def __exit__(self, *_):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def body(question, tokens, **more):
    return {
        "model": "m",
        "messages": [{"role": "user", "content": question}],
        "max_tokens": tokens,
        "temperature": 1.0,
        "top_p": 1.0,
        **more,
    }


def question(number, words):
    """Words in an order that no other number has, not even at its beginning."""
    chosen, state = [], number + 1
    for _ in range(words):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        chosen.append(WORDS[(state >> 33) % len(WORDS)])
    return f"{ORDER} {' '.join(chosen)}"


CHAT = "/v1/chat/completions"


async def prompt_ids(http, text):
    answer = await http.whole(CHAT, body(text, 1, return_token_ids=True))
    return answer["prompt_token_ids"]


async def fitting(http, length):
    """The number of words with which prompts have about `length` tokens."""
    none, some = [len(await prompt_ids(http, question(0, words))) for words in (1, 41)]
    return max(round((length - none) * 40 / (some - none)) + 1, 1)


async def answered(http, questions, tokens):
    """All at once, none ended by the model early, for `generate` ends none early either: output
    tokens of each, seconds."""
    started = time.perf_counter()
    answers = await asyncio.gather(
        *(http.whole(CHAT, body(text, tokens, ignore_eos=True)) for text in questions)
    )
    seconds = time.perf_counter() - started
    return [answer["usage"]["completion_tokens"] for answer in answers], seconds


async def silence(http, questions, tokens):
    """All at once, streamed: seconds until the first text of each, seconds in all."""
    asked = (http.first_text(CHAT, body(text, tokens, stream=True)) for text in questions)
    heard = await asyncio.gather(*asked)
    return sorted(first for first, _ in heard), max(ended for _, ended in heard)


async def greedy(http, questions, tokens):
    extra = {"temperature": 0.0, "return_token_ids": True}
    answers = [await http.whole(CHAT, {**body(text, tokens), **extra}) for text in questions]
    return [answer["choices"][0]["token_ids"] for answer in answers]


class Stage:
    """Servers and files of one comparison."""

    def __init__(self, args, dtype):
        self.args, self.dtype = args, dtype
        self.model = model_path(args.model) if args.model.exists() else args.model
        self.programs = build() if args.program is None else {}
        target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
        if args.program is None:
            command = ["cargo", "build", "--release", "--quiet", "--workspace", "--bins"]
            subprocess.run(command, cwd=ROOT, check=True)
        self.leyden = args.program or target / "leyden"
        FILES.mkdir(parents=True, exist_ok=True)
        self.python = None if args.no_vllm else installed({"vllm"}).get("vllm")

    def ours(self):
        port = free_port()
        command = [
            self.leyden, "serve", "--model", self.model, "--port", port, "--name", "m",
            "--dtype", self.dtype, "--threads", THREADS,
        ]  # fmt: skip
        return Server("leyden serve", command, port, "/healthz", FILES / "serve-leyden.log")

    def vllm(self):
        folder = self.model if self.model.is_dir() else FILES / self.model.stem
        if not (folder / "config.json").exists():
            command = [self.programs["generate"], "--model", self.model, "--export", folder]
            subprocess.run([str(part) for part in command], cwd=ROOT, check=True)
        port = free_port()
        command = [
            self.python, "-m", "vllm.entrypoints.openai.api_server", "--model", folder,
            "--served-model-name", "m", "--host", "127.0.0.1", "--port", port,
            "--dtype", DTYPES[self.dtype], "--enforce-eager", "--max-model-len", 1024,
            "--generation-config", "vllm",
        ]  # fmt: skip
        return Server("vLLM", command, port, "/health", FILES / "serve-vllm.log")

    def generate(self, conversations, *more):
        path = FILES / "serve.json"
        path.write_text(json.dumps({"conversations": conversations}))
        command = [
            self.programs["generate"], "--model", self.model, "--dtype", self.dtype,
            "--prompts", path, "--threads", THREADS, "--samples", 1,
        ]  # fmt: skip
        return Contestant("generate", command).run(*more)


def agree(stage, http, questions):
    """The ids of the prompts, and whether greedy answers are those of `generate`."""

    async def ask():
        ids = [await prompt_ids(http, text) for text in questions]
        return ids, await greedy(http, questions[:4], 16)

    ids, ours = asyncio.run(ask())
    lengths = sorted(len(prompt) for prompt in ids)
    print(f"prompts of {lengths[0]} to {lengths[-1]} tokens, {sum(lengths) / len(ids):.1f} on average")
    if not 0.9 * stage.args.length < lengths[0] <= lengths[-1] < 1.1 * stage.args.length:
        raise SystemExit(f"these are not about {stage.args.length} tokens")
    conversations = [{"prompt": prompt, "later": []} for prompt in ids]
    if not stage.programs:
        return conversations, None
    once = ("--repetitions", 1, "--warm-up", 0, "--tokens", 1, "--greedy", 16)
    theirs = stage.generate(conversations[:4], *once)["greedy"]
    # The server stops at the end of turn; `generate` goes on.
    pairs = [(a, b) for x, y in zip(ours, theirs) for a, b in zip(x, y)]
    equal = sum(a == b for a, b in pairs)
    print(f"greedy tokens, {stage.dtype}: {equal} of {len(pairs)} equal to generate's")
    if stage.dtype == "f32" and equal < len(pairs):
        raise SystemExit("the server and generate do not do the same work: no comparison")
    return conversations, [equal, len(pairs)]


def compare_throughput(stage, args):
    runs = {"leyden serve": [], "generate": []}
    with stage.ours() as http:
        words = asyncio.run(fitting(http, args.length))
        questions = [question(1000 + i, words) for i in range(args.clients)]
        conversations, agreement = agree(stage, http, questions)
    for number in range(1, args.rounds + 1):
        # A new server, as `generate` is a new process: nothing is cached.
        with stage.ours() as http:
            warm = [question(500 + i, words) for i in range(args.clients)]
            asyncio.run(answered(http, warm, 4))
            made, seconds = asyncio.run(answered(http, questions, args.tokens))
        made = sum(made)
        run = {"tokens": made, "seconds": seconds, "rate": made / seconds}
        runs["leyden serve"].append(run)
        line = f"round {number}: leyden serve {run['rate']:.4g} tokens/s ({made} tokens)"
        if stage.programs:
            done = stage.generate(conversations, "--tokens", args.tokens, "--repetitions", 1)
            run = {
                "tokens": args.clients * args.tokens,
                "seconds": done["seconds"][0],
                "rate": done["median_tokens_per_second"],
            }
            runs["generate"].append(run)
            line += f", generate {run['rate']:.4g}"
        print(line, flush=True)
    return words, runs, agreement


def compare_silence(stage, args, words):
    servers = {"leyden serve": stage.ours}
    if stage.python:
        servers["vLLM"] = stage.vllm
    runs = {name: [] for name in servers}
    prompts = {}
    for number in range(1, args.rounds + 1):
        for name, server in servers.items():
            texts = [question(10_000 * number + i, words) for i in range(args.listeners)]
            with server() as http:
                warm = [question(700 + i, words) for i in range(args.listeners)]
                asyncio.run(silence(http, warm, 4))
                firsts, seconds = asyncio.run(silence(http, texts, args.tokens))
                prompts.setdefault(number, []).append(asyncio.run(prompt_ids(http, texts[0])))
            run = {"first": firsts, "median": statistics.median(firsts), "seconds": seconds}
            runs[name].append(run)
            print(
                f"round {number}: {name}: first text after {run['median']:.3f} s (median of "
                f"{args.listeners}, last {firsts[-1]:.3f} s), all after {seconds:.3g} s",
                flush=True,
            )
    for number, asked in prompts.items():
        if any(ids != asked[0] for ids in asked):
            raise SystemExit(f"round {number}: the servers do not read the same prompt")
    return runs


def ratio(runs, first, second, key):
    """Median over rounds of first / second, with its range; `None` where one is missing."""
    pairs = [a[key] / b[key] for a, b in zip(runs.get(first, []), runs.get(second, []))]
    return [statistics.median(pairs), min(pairs), max(pairs)] if pairs else None


def rows(runs, key):
    for name, own in runs.items():
        values = [run[key] for run in own]
        if values:
            yield name, statistics.median(values), min(values), max(values)


def report(args, dtype, rate_runs, first_runs):
    lines = [
        f"| {args.clients} clients, prompts of {args.length} tokens, {args.tokens} new ones, "
        f"{dtype} | output tokens/s, median (range) |",
        "|---|---|",
    ]
    lines += [f"| {n} | {m:.3g} ({a:.3g}–{b:.3g}) |" for n, m, a, b in rows(rate_runs, "rate")]
    share = ratio(rate_runs, "leyden serve", "generate", "rate")
    if share:
        lines += ["", "The server reaches ×{:.2f} (×{:.2f}–×{:.2f}) of `generate`.".format(*share)]
    lines += [
        "",
        f"| {args.listeners} clients at once, streamed, {dtype} | first text after, s, median "
        "(range of rounds' medians) | all done after, s |",
        "|---|---|---|",
    ]
    done = {name: middle for name, middle, _, _ in rows(first_runs, "seconds")}
    lines += [
        f"| {name} | {middle:.3g} ({low:.3g}–{high:.3g}) | {done[name]:.3g} |"
        for name, middle, low, high in rows(first_runs, "median")
    ]
    share = ratio(first_runs, "leyden serve", "vLLM", "median")
    if share:
        lines += ["", "That is ×{:.2f} (×{:.2f}–×{:.2f}) of vLLM's time.".format(*share)]
    return "\n".join(lines)


def record(args, dtype, text, result):
    RESULTS.mkdir(parents=True, exist_ok=True)
    place = machine()
    body = json.dumps({"machine": place, **result}, indent=1).replace(str(ROOT) + "/", "")
    (RESULTS / f"serve-{dtype}.json").write_text(body + "\n")
    bf16 = "with" if place["bf16_instructions"] else "without"
    note = (
        f"{place['cpu']} {bf16} bf16 instructions, {place['threads']} threads, clients on the "
        f"same cores, {args.rounds} rounds in turn, revision {place['revision'][:10]}"
    )
    (RESULTS / f"serve-{dtype}.md").write_text(f"{text}\n\n{note}\n")
    print(f"written: {(RESULTS / f'serve-{dtype}').relative_to(ROOT)}.json and .md")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "smollm2")
    parser.add_argument("--dtypes", nargs="+", choices=["bf16", "f32"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--listeners", type=int, default=8)
    parser.add_argument("--length", type=int, default=200, help="tokens of a prompt")
    parser.add_argument("--tokens", type=int, default=64, help="new tokens")
    parser.add_argument("--no-vllm", action="store_true")
    parser.add_argument(
        "--program", type=Path, help="this leyden and nothing beside it, to try the script out"
    )
    parser.add_argument("--record", action="store_true", help="write results/serve/")
    args = parser.parse_args()
    if args.program and args.record:
        parser.error("--program has nothing beside it that could be recorded")
    dtypes = args.dtypes or (["bf16", "f32"] if has_fast_bf16() else ["f32"])
    busy = os.getloadavg()[0]
    if busy > 0.5 * (os.cpu_count() or 1):
        print(f"the machine is busy (load {busy:.1f}): these figures are worth little", file=sys.stderr)
    for dtype in dtypes:
        stage = Stage(args, dtype)
        words, rate_runs, agreement = compare_throughput(stage, args)
        first_runs = compare_silence(stage, args, words)
        text = report(args, dtype, rate_runs, first_runs)
        print(text)
        if args.record:
            settings = {
                key: getattr(args, key)
                for key in ("rounds", "clients", "listeners", "length", "tokens")
            }
            result = {
                "dtype": dtype,
                "settings": settings,
                "greedy_tokens_equal": agreement,
                "throughput": rate_runs,
                "first_text": first_runs,
            }
            record(args, dtype, text, result)


if __name__ == "__main__":
    main()
