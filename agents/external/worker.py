#!/usr/bin/env python3
"""Runs an agent on tasks claimed from a Lightning Server. One file, standard library only.

    python worker.py my_agent:agent --server http://127.0.0.1:8080 --concurrency 64

The agent is any function

    async def agent(task: dict, base_url: str, key: str): ...

that calls an OpenAI-compatible endpoint at `base_url` with the key `key` and returns its answer
(a string), or None if it found none, or `{"answer": …, "reward": …, "signals": [{"kind": …,
"detail": …}]}`. The worker claims tasks, runs many agents concurrently, renews their leases,
posts their results, and reports failures by the last line of their traceback. SIGTERM (or Ctrl-C)
stops it gracefully: it claims nothing more, running agents have `--grace` seconds to finish, and
the remaining tasks are released to the server.

With `--once` it runs the agent once, for servers that start a process per task:

    python worker.py --once my_agent:agent

Environment: LEYDEN_SERVER_URL and AGL_KEY instead of `--server` and `--key`. With `--once` the
task is LEYDEN_TASK (a JSON object) or the file LEYDEN_TASK_FILE, and AGL_OPENAI_BASE_URL,
AGL_EVENT_URL and AGL_KEY give the model's URL, the URL for results, and the key.
"""

import argparse
import asyncio
import concurrent.futures
import functools
import http.client
import importlib
import json
import os
import random
import signal
import socket
import sys
import threading
import time
import traceback
from urllib.parse import urlsplit

# Seconds between two claims if there was no work: the first and the longest wait.
IDLE = 0.02, 0.25
# Lease of a claimed task without a heartbeat, in seconds.
LEASE = 30
# Timeout of a request to the server, in seconds.
ANSWER_TIME = 60


class Refused(Exception):
    """A server response that is not 2xx."""

    def __init__(self, status, text):
        super().__init__(f"the server answers {status}: {text[:500]}")
        self.status = status


class Gone(Exception):
    """The server was unreachable for too long."""


class Http:
    """POSTs JSON; each thread keeps its own connection open."""

    def __init__(self, key, patience):
        self.headers = {"Content-Type": "application/json"}
        if key:
            self.headers["Authorization"] = f"Bearer {key}"
        self.patience = patience
        self.local = threading.local()

    def post(self, url, body):
        """Returns the JSON response of the server.

        If the server is unreachable or overloaded, the request is retried for `patience` seconds;
        all requests here may safely be sent twice. Raises `Refused` or `Gone`.
        """
        deadline, pause = time.monotonic() + self.patience, 0.1
        while True:
            try:
                return self.try_post(url, body)
            except (OSError, http.client.HTTPException, Refused) as error:
                if isinstance(error, Refused) and error.status not in (429, 502, 503, 504):
                    raise
                if time.monotonic() + pause > deadline:
                    raise Gone(f"{url} cannot be reached: {error!r}") from error
            time.sleep(pause * random.uniform(0.75, 1.25))
            pause = min(2 * pause, 5)

    def try_post(self, url, body):
        parts = urlsplit(url)
        place = f"{parts.scheme}://{parts.netloc}"
        connection = self.local.__dict__.pop(place, None)
        if connection is None:
            kind = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
            connection = kind[parts.scheme](parts.netloc, timeout=ANSWER_TIME)
            connection.connect()
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            connection.request("POST", parts.path or "/", json.dumps(body).encode(), self.headers)
            answer = connection.getresponse()
            text = answer.read()
        except BaseException:
            connection.close()
            raise
        self.local.__dict__[place] = connection
        if not 200 <= answer.status < 300:
            raise Refused(answer.status, text.decode(errors="replace"))
        return json.loads(text) if text else None


def events_of(result):
    """An agent's result as events to post."""
    if not isinstance(result, dict):
        result = {"answer": result}
    events = [("signal", signal) for signal in result.get("signals") or []]
    for call, value in enumerate(result.get("process_rewards") or []):
        events.append(("process_reward", {"value": value, "call": call}))
    for name in ("answer", "reward"):
        if result.get(name) is not None:
            events.append((name, {"value": result[name]}))
    return [{"event_type": name, "data": data} for name, data in events]


def last_line(error):
    """The last line of the error's traceback."""
    return "".join(traceback.format_exception_only(type(error), error)).strip().splitlines()[-1]


def load(name):
    """Loads `module:function` from this file's folder or the current folder."""
    module, _, function = name.partition(":")
    if not module or not function:
        raise SystemExit(f"`{name}` names no agent: write module:function")
    for folder in (os.path.dirname(os.path.abspath(__file__)), os.getcwd()):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    return getattr(importlib.import_module(module), function)


class Worker:
    """Claims tasks and runs an agent on up to `concurrency` of them concurrently."""

    def __init__(self, agent, server, key, name, concurrency, grace, patience, lease=LEASE):
        self.agent, self.key, self.name = agent, key or "none", name
        self.server, self.concurrency, self.grace = server.rstrip("/"), concurrency, grace
        self.lease = lease
        self.http = Http(key, patience)
        self.threads = concurrent.futures.ThreadPoolExecutor(min(8, 1 + concurrency))
        # The agents' asyncio tasks by (rollout, attempt).
        self.working = {}
        self.stopping, self.ended = asyncio.Event(), threading.Event()

    def post_now(self, action, **body):
        url = f"{self.server}/api/workers/{action}"
        return self.http.post(url, {"worker": self.name, **body})

    async def in_thread(self, function, *arguments, **named):
        call = functools.partial(function, *arguments, **named)
        return await asyncio.get_running_loop().run_in_executor(self.threads, call)

    async def run(self):
        """Runs until it is stopped."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        threading.Thread(target=self.beat, args=(loop,), daemon=True).start()
        try:
            await self.claim_all()
            await self.drain()
        finally:
            self.ended.set()
            self.threads.shutdown(wait=False)

    def stop(self):
        if self.stopping.is_set():
            os._exit(1)  # second signal
        self.stopping.set()
        self.http.patience = min(self.http.patience, 5)

    async def claim_all(self):
        """Repeatedly claims as many tasks as there are free slots."""
        idle = IDLE[0]
        while not self.stopping.is_set():
            free = self.concurrency - len(self.working)
            if free == 0:
                await self.wait(self.working.values())
                continue
            asked = {"count": free, "lease_seconds": self.lease}
            claims = (await self.in_thread(self.post_now, "claim", **asked))["claims"]
            for claim in claims:
                name = claim["rollout"]["rollout_id"], claim["attempt_id"]
                self.working[name] = task = asyncio.ensure_future(self.work(name, claim))
                task.add_done_callback(functools.partial(self.done, name))
            if not claims:
                await self.wait([], idle)
            idle = IDLE[0] if claims else min(1.5 * idle, IDLE[1])

    async def wait(self, tasks, seconds=None):
        """Waits for the first task to finish, the timeout, or the stop signal."""
        stopping = asyncio.ensure_future(self.stopping.wait())
        first = asyncio.FIRST_COMPLETED
        await asyncio.wait([stopping, *tasks], timeout=seconds, return_when=first)
        stopping.cancel()

    def done(self, name, _):
        self.working.pop(name, None)

    async def work(self, name, claim):
        """Runs the agent on one task and reports the result."""
        rollout, addresses = claim["rollout"], claim["addresses"]
        limit = rollout["config"].get("timeout_seconds")
        events, end = [], {"state": "succeeded"}
        try:
            agent = self.agent(rollout["input"], addresses["openai_base_url"], self.key)
            events = events_of(await asyncio.wait_for(agent, limit))
        except asyncio.TimeoutError:
            end = failed(f"the agent did not end within {limit} seconds")
        except Exception as error:  # any error is the agent's
            end = failed(last_line(error))
        try:
            await self.in_thread(self.report, name, addresses["event_url"], events, end)
        except Refused as error:
            # The attempt was replaced, or the server refused the answer.
            say(f"rollout {name[0]}: {error}")

    def report(self, name, event_url, events, end):
        for event in events:
            self.http.post(event_url, event)
        self.post_now("finish", rollout_id=name[0], attempt_id=name[1], **end)

    def beat(self, loop):
        """Renews leases from a separate thread, so that an agent that blocks the event loop for a
        while does not lose its task."""
        while not self.ended.wait(self.lease / 3):
            names = list(self.working)
            try:
                leases = self.renew(names, self.lease) if names else []
            except (Refused, Gone) as error:
                say(f"heartbeat: {error}")
                continue
            for lease in leases:
                if "lost" in lease:
                    name = lease["rollout_id"], lease["attempt_id"]
                    loop.call_soon_threadsafe(self.drop, name)

    def renew(self, names, seconds):
        leases = [{"rollout_id": rollout, "attempt_id": attempt} for rollout, attempt in names]
        return self.post_now("heartbeat", leases=leases, lease_seconds=seconds)["leases"]

    def drop(self, name):
        """Cancels an attempt that has ended or was leased to another worker."""
        if name in self.working:
            self.working[name].cancel()

    async def drain(self):
        """Waits for the running agents; tasks of those that take too long are released."""
        if not self.working:
            return
        _, late = await asyncio.wait(self.working.values(), timeout=self.grace)
        names = [name for name, task in self.working.items() if task in late]
        self.ended.set()
        for task in late:
            task.cancel()
        if names:
            try:
                # Shorten the lease, so that other workers can claim the task at once.
                await self.in_thread(self.renew, names, 1)
            except (Refused, Gone) as error:
                say(f"{len(names)} tasks were not released: {error}")


def failed(why):
    return {"state": "failed", "error_message": why}


def say(text):
    print(f"worker: {text}", file=sys.stderr, flush=True)


def task_of(environment):
    if "LEYDEN_TASK" in environment:
        return json.loads(environment["LEYDEN_TASK"])
    with open(environment["LEYDEN_TASK_FILE"], encoding="utf-8") as file:
        return json.load(file)


def once(agent):
    """Runs the agent on the task in the environment; returns the exit status."""
    key = os.environ.get("AGL_KEY", "")
    try:
        task, base_url = task_of(os.environ), os.environ["AGL_OPENAI_BASE_URL"]
        events_url = os.environ["AGL_EVENT_URL"]
    except (KeyError, ValueError, OSError) as error:
        say(f"the environment has no task: {last_line(error)}")
        return 2
    # The server may treat printed output as the answer, but this worker posts it.
    sys.stdout = sys.stderr
    try:
        events = events_of(asyncio.run(agent(task, base_url, key or "none")))
    except Exception:  # any error is the agent's
        traceback.print_exc()
        return 1
    server = Http(key, patience=60)
    try:
        for event in events:
            server.post(events_url, event)
    except (Refused, Gone) as error:
        say(f"the answer was not posted: {error}")
        return 3
    return 0


def main():
    about, environment = argparse.ArgumentParser(description=__doc__.splitlines()[0]), os.environ
    about.add_argument("agent", help="module:function")
    about.add_argument("--once", action="store_true", help="one task, from the environment")
    about.add_argument("--server", default=environment.get("LEYDEN_SERVER_URL", ""))
    about.add_argument("--key", default=environment.get("AGL_KEY", ""))
    name = environment.get("LEYDEN_WORKER") or f"{socket.gethostname()}:{os.getpid()}"
    about.add_argument("--name", default=name, help="identifies this worker to the server")
    about.add_argument("--concurrency", type=int, default=64, help="number of concurrent agents")
    about.add_argument("--lease", type=float, default=LEASE, help="lease in seconds")
    about.add_argument("--grace", type=float, default=10, help="seconds to finish after SIGTERM")
    about.add_argument("--patience", type=float, default=60, help="seconds to retry requests")
    options = about.parse_args()
    agent = load(options.agent)
    if options.once:
        return once(agent)
    if not options.server:
        about.error("no server: give --server or set LEYDEN_SERVER_URL")

    async def work():
        worker = Worker(agent, options.server, options.key, options.name,
                        max(1, options.concurrency), options.grace, options.patience,
                        max(1, options.lease))
        await worker.run()

    try:
        asyncio.run(work())
    except (Refused, Gone) as error:
        say(str(error))
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
