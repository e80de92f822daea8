#!/usr/bin/env python3
"""Runs an agent on tasks that a Lightning Server hands out. One file, standard library only.

    python worker.py my_agent:agent --server http://127.0.0.1:8080 --concurrency 64

The agent is any function

    async def agent(task: dict, base_url: str, key: str): ...

that talks to an OpenAI-compatible endpoint at `base_url` with the key `key` and returns its
answer (a text), or None if it found none, or, if it has more to say, `{"answer": …, "reward": …,
"signals": [{"kind": …, "detail": …}]}`. The worker claims tasks, runs many agents at once, keeps
their leases alive, posts what they return, and reports those that fail by the last line of
their traceback. SIGTERM (or Ctrl-C) ends it gracefully: nothing new is claimed, agents at work
have `--grace` seconds, the rest is handed back to the server.

With `--once` it runs the agent once, for servers that start a process for each task:

    python worker.py --once my_agent:agent

Environment: LEYDEN_SERVER_URL and AGL_KEY instead of `--server` and `--key`. With `--once` the
task is LEYDEN_TASK (a JSON object) or the file LEYDEN_TASK_FILE, and AGL_OPENAI_BASE_URL,
AGL_EVENT_URL and AGL_KEY say where the model is and where the answer goes.
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

# Seconds between two questions for work where there was none: the first and the longest.
IDLE = 0.02, 0.25
# Seconds that a claimed task stays ours without a heartbeat.
LEASE = 30
# Seconds that the server may take to answer.
ANSWER_TIME = 60


class Refused(Exception):
    """An answer of the server that is not 2xx."""

    def __init__(self, status, text):
        super().__init__(f"the server answers {status}: {text[:500]}")
        self.status = status


class Gone(Exception):
    """The server could not be reached for too long."""


class Http:
    """POSTs JSON, each thread over a connection of its own that is kept open."""

    def __init__(self, key, patience):
        self.headers = {"Content-Type": "application/json"}
        if key:
            self.headers["Authorization"] = f"Bearer {key}"
        self.patience = patience
        self.local = threading.local()

    def post(self, url, body):
        """The JSON that the server answers.

        A server that is away or overloaded is asked again for `patience` seconds; all that is
        posted here may be posted twice. Raises `Refused` or `Gone`.
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
    """What an agent returned as the events to be posted."""
    if not isinstance(result, dict):
        result = {"answer": result}
    events = [("signal", signal) for signal in result.get("signals") or []]
    for name in ("answer", "reward"):
        if result.get(name) is not None:
            events.append((name, {"value": result[name]}))
    return [{"event_type": name, "data": data} for name, data in events]


def last_line(error):
    """The last line of the error's traceback."""
    return "".join(traceback.format_exception_only(type(error), error)).strip().splitlines()[-1]


def load(name):
    """The function `module:function`; modules beside this file and in the current folder."""
    module, _, function = name.partition(":")
    if not module or not function:
        raise SystemExit(f"`{name}` names no agent: write module:function")
    for folder in (os.path.dirname(os.path.abspath(__file__)), os.getcwd()):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    return getattr(importlib.import_module(module), function)


class Worker:
    """Claims tasks and runs an agent on up to `concurrency` of them at once."""

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
        """Works until it is told to stop."""
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
            os._exit(1)  # asked a second time
        self.stopping.set()
        self.http.patience = min(self.http.patience, 5)

    async def claim_all(self):
        """Claims as many tasks as there is room for, again and again."""
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
        """Until one of the tasks or the time is over, or the worker is to stop."""
        stopping = asyncio.ensure_future(self.stopping.wait())
        first = asyncio.FIRST_COMPLETED
        await asyncio.wait([stopping, *tasks], timeout=seconds, return_when=first)
        stopping.cancel()

    def done(self, name, _):
        self.working.pop(name, None)

    async def work(self, name, claim):
        """Runs the agent on one task and reports how it ended."""
        rollout, addresses = claim["rollout"], claim["addresses"]
        limit = rollout["config"].get("timeout_seconds")
        events, end = [], {"state": "succeeded"}
        try:
            agent = self.agent(rollout["input"], addresses["openai_base_url"], self.key)
            events = events_of(await asyncio.wait_for(agent, limit))
        except asyncio.TimeoutError:
            end = failed(f"the agent did not end within {limit} seconds")
        except Exception as error:  # whatever it is, it is the agent's
            end = failed(last_line(error))
        try:
            await self.in_thread(self.report, name, addresses["event_url"], events, end)
        except Refused as error:
            # Another attempt took its place, or the server does not take the answer.
            say(f"rollout {name[0]}: {error}")

    def report(self, name, event_url, events, end):
        for event in events:
            self.http.post(event_url, event)
        self.post_now("finish", rollout_id=name[0], attempt_id=name[1], **end)

    def beat(self, loop):
        """Keeps leases alive, from a thread of its own: an agent that blocks the loop for a
        while does not lose its task."""
        while not self.ended.wait(self.lease / 3):
            names = list(self.working)
            try:
                leases = self.prolong(names, self.lease) if names else []
            except (Refused, Gone) as error:
                say(f"heartbeat: {error}")
                continue
            for lease in leases:
                if "lost" in lease:
                    name = lease["rollout_id"], lease["attempt_id"]
                    loop.call_soon_threadsafe(self.drop, name)

    def prolong(self, names, seconds):
        leases = [{"rollout_id": rollout, "attempt_id": attempt} for rollout, attempt in names]
        return self.post_now("heartbeat", leases=leases, lease_seconds=seconds)["leases"]

    def drop(self, name):
        """Stops work on an attempt that is over, or another worker's now."""
        if name in self.working:
            self.working[name].cancel()

    async def drain(self):
        """Waits for the agents at work; tasks of those that take too long go back."""
        if not self.working:
            return
        _, late = await asyncio.wait(self.working.values(), timeout=self.grace)
        names = [name for name, task in self.working.items() if task in late]
        self.ended.set()
        for task in late:
            task.cancel()
        if names:
            try:
                # A lease that ends at once: others need not wait for the rest of it.
                await self.in_thread(self.prolong, names, 1)
            except (Refused, Gone) as error:
                say(f"{len(names)} tasks were not handed back: {error}")


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
    """Runs the agent on the task in the environment; the exit status."""
    key = os.environ.get("AGL_KEY", "")
    try:
        task, base_url = task_of(os.environ), os.environ["AGL_OPENAI_BASE_URL"]
        events_url = os.environ["AGL_EVENT_URL"]
    except (KeyError, ValueError, OSError) as error:
        say(f"the environment brings no task: {last_line(error)}")
        return 2
    # A server may take what is printed as the answer: this worker posts it.
    sys.stdout = sys.stderr
    try:
        events = events_of(asyncio.run(agent(task, base_url, key or "none")))
    except Exception:  # whatever it is, it is the agent's
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
    about.add_argument("--name", default=name, help="by which the server knows this worker")
    about.add_argument("--concurrency", type=int, default=64, help="agents at work at once")
    about.add_argument("--lease", type=float, default=LEASE, help="seconds between signs of life")
    about.add_argument("--grace", type=float, default=10, help="seconds for agents after SIGTERM")
    about.add_argument("--patience", type=float, default=60, help="seconds without a server")
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
