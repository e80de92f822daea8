"""Faulty agents, each with one kind of fault, and one without: the calculator agent with the
standard library only. Run as a process per rollout:

    python3 faults.py FOLDER KIND

Every second process has the fault KIND, the others solve their task. FOLDER counts the
processes by exclusively created files, and stores the ids of those that hang.
"""

import json
import os
import sys
import threading
import time
import urllib.request

TOOL = {"name": "calculator", "description": "", "parameters": {
    "type": "object", "properties": {"expression": {"type": "string"}}}}


def post(url, body):
    key = os.environ["AGL_KEY"]
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def report(answer):
    post(os.environ["AGL_EVENT_URL"], {"event_type": "answer", "data": {"value": answer}})


def chat(messages):
    body = {"model": "any", "messages": messages, "tools": [{"type": "function", "function": TOOL}]}
    answer = post(os.environ["OPENAI_BASE_URL"] + "/chat/completions", body)
    return answer["choices"][0]["message"]


def opening():
    task = json.loads(os.environ["LEYDEN_TASK"])
    return [{"role": "system", "content": "Use the calculator. End with ### ANSWER: x ###"},
            {"role": "user", "content": task["question"]}]


def solves():
    messages = opening()
    for _ in range(3):
        message = chat(messages)
        if not message.get("tool_calls"):
            return report(message["content"])
        messages.append(message)
        for call in message["tool_calls"]:
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": "42"})


def forks_and_hangs(folder):
    """Two processes that never exit; the child keeps the pipes open."""
    child = os.fork()
    with open(os.path.join(folder, f"hangs-{os.getpid()}"), "x"):
        pass
    if child != 0:
        chat(opening())
    while True:
        time.sleep(3600)


def never_calls():
    report("### ANSWER: 42 ###")


def answers_early():
    """Exits while its call is in flight."""
    threading.Thread(target=chat, args=(opening(),), daemon=True).start()
    report("### ANSWER: 42 ###")
    os._exit(0)


def crashes():
    chat(opening())
    raise RuntimeError("the tool of this agent broke")


def shouts():
    """Writes more than a pipe's buffer to stdout and stderr, then solves its task."""
    for stream in (sys.stderr, sys.stdout):
        for _ in range(50):
            stream.write("noise " * 10_000 + "\n")
        stream.flush()
    solves()


def sends_nonsense():
    """Sends invalid requests, then solves its task."""
    base, event = os.environ["OPENAI_BASE_URL"], os.environ["AGL_EVENT_URL"]
    nonsense = [(base + "/chat/completions", {"messages": "no list"}), (base + "/nowhere", {}),
                (event, {"event_type": "reward", "data": {"value": "much"}}),
                (base + "/chat/completions", {"messages": opening(), "tools": [{"type": 7}]})]
    for url, body in nonsense:
        try:
            post(url, body)
        except urllib.error.HTTPError as error:
            assert 400 <= error.code < 500, error.code
            assert json.load(error), "no JSON"
        else:
            raise AssertionError(f"{url} took {body}")
    solves()


def reward(call, value):
    data = {"value": value, "call": call}
    post(os.environ["AGL_EVENT_URL"], {"event_type": "process_reward", "data": data})


def rewards_a_call():
    chat(opening())
    reward(None, 0.25)
    solves()


def rewards_a_later_call():
    reward(7, 0.25)
    solves()


def vanishes(server):
    """Claims a rollout over HTTP, prints its id and exits."""
    claim = {"worker": "vanishing", "count": 1, "lease_seconds": 2}
    for claimed in post(f"{server}/api/workers/claim", claim)["claims"]:
        print(claimed["rollout"]["rollout_id"], flush=True)
    os._exit(1)


def number(folder):
    """The number of processes started before this one."""
    count = 0
    while True:
        try:
            os.close(os.open(os.path.join(folder, f"process-{count}"), os.O_CREAT | os.O_EXCL))
            return count
        except FileExistsError:
            count += 1


def main():
    _, folder, kind = sys.argv
    if kind == "vanishes":
        vanishes(folder)
    elif number(folder) % 2 == 0:
        forks_and_hangs(folder) if kind == "forks_and_hangs" else globals()[kind]()
    else:
        solves()


if __name__ == "__main__":
    main()
