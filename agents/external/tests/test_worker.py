"""Tests of the worker with a stub server. Standard library only:

    python3 -m unittest discover agents/external/tests
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
WORKER = os.path.join(os.path.dirname(HERE), "worker.py")
sys.path[:0] = [HERE, os.path.dirname(HERE)]

import worker
from stub import Stub

AGENTS = '''
    import asyncio, json, urllib.request

    async def echo(task, base_url, key):
        return f"{task['question']} by {key}"

    async def nothing(task, base_url, key):
        return None

    async def rich(task, base_url, key):
        return {"answer": "a", "reward": 0.5, "signals": [{"kind": "tool_error", "detail": "x"}]}

    async def breaks(task, base_url, key):
        print("noise " * 100_000, file=__import__("sys").stderr)
        raise ValueError("no such table: t")

    async def hangs(task, base_url, key):
        if task["question"] != "quick":
            await asyncio.sleep(3600)
        return "quick"
'''


class Case(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        with open(os.path.join(self.folder, "agents_of_test.py"), "w") as file:
            file.write(textwrap.dedent(AGENTS))

    def stub(self, **options):
        stub = Stub(lambda messages, tools: "hello", **options)
        self.enterContext(stub)
        return stub

    def start(self, *arguments, **environment):
        command = [sys.executable, WORKER, *arguments]
        kept = {"PATH": os.environ["PATH"], **environment}
        process = subprocess.Popen(command, cwd=self.folder, env=kept, stderr=subprocess.PIPE)
        for action in (process.stderr.close, process.wait, process.kill):
            self.addCleanup(action)
        return process

    def worker(self, stub, agent, *arguments):
        more = {"AGL_KEY": stub.key} if stub.key else {}
        return self.start(f"agents_of_test:{agent}", *arguments, LEYDEN_SERVER_URL=stub.url, **more)

    def ended(self, stub, count):
        self.assertTrue(stub.wait_for(lambda: len(stub.finished) >= count), stub.finished)
        return {end["rollout_id"]: end for end in stub.finished}


def tasks(*names, question="q"):
    return [{"id": name, "question": question} for name in names]


class Claims(Case):
    def test_every_task_is_answered_once_by_concurrent_agents(self):
        stub = self.stub(key="secret")
        names = [f"r{n}" for n in range(100)]
        stub.add(tasks(*names))
        process = self.worker(stub, "echo", "--concurrency", "7")
        self.assertEqual(sorted(self.ended(stub, 100)), sorted(names))
        self.assertEqual(len(stub.finished), 100)
        self.assertTrue(all(end["state"] == "succeeded" for end in stub.finished))
        answer = {"event_type": "answer", "data": {"value": "q by secret"}}
        posted = {f"/api/rollouts/{name}/attempt/1/events" for name in names}
        self.assertEqual({path for path, _ in stub.events}, posted)
        self.assertTrue(all(event == answer for _, event in stub.events))
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(30), 0)

    def test_results_are_posted_as_events_before_the_end(self):
        stub = self.stub()
        stub.add(tasks("r"))
        self.worker(stub, "rich")
        self.ended(stub, 1)
        kinds = [(event["event_type"], event["data"]) for _, event in stub.events]
        signal_ = ("signal", {"kind": "tool_error", "detail": "x"})
        self.assertEqual(kinds, [signal_, ("answer", {"value": "a"}), ("reward", {"value": 0.5})])
        self.assertEqual(worker.events_of(None), [])
        self.assertEqual(worker.events_of({"reward": 0})[0]["data"], {"value": 0})
        rewarded = worker.events_of({"answer": "a", "process_rewards": [0, 0.5]})
        self.assertEqual(rewarded[1]["data"], {"value": 0.5, "call": 1})

    def test_a_failure_is_reported_by_its_last_line_and_the_next_task_runs(self):
        stub = self.stub()
        stub.add(tasks("a", "b"))
        process = self.worker(stub, "breaks", "--concurrency", "1")
        reader = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)
        self.addCleanup(reader.wait)
        self.addCleanup(reader.kill)
        for end in self.ended(stub, 2).values():
            self.assertEqual(end["state"], "failed")
            self.assertEqual(end["error_message"], "ValueError: no such table: t")

    def test_an_agent_that_takes_too_long_fails(self):
        stub = self.stub()
        stub.config = {"timeout_seconds": 0.1}
        stub.add(tasks("r"))
        self.worker(stub, "hangs")
        self.assertIn("within 0.1 seconds", self.ended(stub, 1)["r"]["error_message"])

    def test_sigterm_releases_unfinished_tasks(self):
        stub = self.stub()
        stub.add(tasks("a", "b"))
        process = self.worker(stub, "hangs", "--grace", "0.2")
        self.assertTrue(stub.wait_for(lambda: not stub.queue))
        stub.add(tasks("c", question="quick"))
        self.ended(stub, 1)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(30), 0)
        last = stub.beats[-1]
        self.assertEqual(sorted(lease["rollout_id"] for lease in last["leases"]), ["a", "b"])
        self.assertEqual(last["lease_seconds"], 1)
        self.assertEqual([end["rollout_id"] for end in stub.finished], ["c"])

    def test_a_lost_rollout_is_cancelled_and_its_slot_reused(self):
        stub = self.stub()
        stub.add(tasks("lost"))
        self.worker(stub, "hangs", "--concurrency", "1", "--lease", "1")
        self.assertTrue(stub.wait_for(lambda: stub.beats))
        with stub.changed:
            stub.lost.add("lost")
        stub.add(tasks("next", question="quick"))
        self.assertEqual(list(self.ended(stub, 1)), ["next"])

    def test_a_wrong_key_and_an_absent_server_are_reported(self):
        stub = self.stub(key="secret")
        process = self.start("agents_of_test:echo", "--server", stub.url, "--key", "wrong")
        self.assertEqual(process.wait(30), 3)
        self.assertIn(b"401", process.stderr.read())
        absent = ["--server", "http://127.0.0.1:9", "--patience", "0.3"]
        process = self.start("agents_of_test:echo", *absent)
        self.assertEqual(process.wait(30), 3)
        self.assertIn(b"cannot be reached", process.stderr.read())


class Once(Case):
    def once(self, stub, agent, **changes):
        base = {"AGL_OPENAI_BASE_URL": stub.base(),
                "AGL_EVENT_URL": f"{stub.url}/api/rollouts/r/attempt/0/events", **changes}
        if "LEYDEN_TASK_FILE" not in base:
            base.setdefault("LEYDEN_TASK", json.dumps(tasks("r")[0]))
        process = self.start("--once", f"agents_of_test:{agent}", **base)
        _, errors = process.communicate(timeout=30)
        return process.returncode, errors.decode().strip().splitlines()[-1:]

    def test_the_answer_is_posted(self):
        stub = self.stub()
        self.assertEqual(self.once(stub, "echo"), (0, []))
        [(path, event)] = stub.events
        self.assertEqual(path, "/api/rollouts/r/attempt/0/events")
        self.assertEqual(event, {"event_type": "answer", "data": {"value": "q by none"}})
        self.assertEqual(self.once(stub, "nothing"), (0, []))
        self.assertEqual(len(stub.events), 1)

    def test_a_long_task_is_read_from_a_file(self):
        stub = self.stub()
        path = os.path.join(self.folder, "task.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(tasks("r", question="ü" * 200_000)[0], file)
        self.assertEqual(self.once(stub, "echo", LEYDEN_TASK_FILE=path), (0, []))
        self.assertEqual(len(stub.events[0][1]["data"]["value"]), 200_008)

    def test_a_failure_is_the_last_line_of_stderr(self):
        stub = self.stub()
        self.assertEqual(self.once(stub, "breaks"), (1, ["ValueError: no such table: t"]))
        code, errors = self.once(stub, "echo", LEYDEN_TASK="{")
        self.assertEqual(code, 2)
        self.assertIn("has no task", errors[0])


if __name__ == "__main__":
    unittest.main()
