"""A stub server: scripted OpenAI chat completions and responses, a retriever of one passage, and
the worker interface, with the standard library only.

It replaces the Lightning Server in tests of the agents alone: their requests, their posts and
their cost. `Stub(script)` has one script, `script(messages, tools) -> str | (tool, arguments)`;
`asked` contains every request body in order.
"""

import json
import threading
import uuid
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Stub:
    """Context manager that serves on a free loopback port."""

    def __init__(self, script, key="", passages=()):
        self.script, self.key, self.passages = script, key, list(passages)
        self.asked, self.events, self.finished, self.beats = [], [], [], []
        self.queue, self.lost, self.config = deque(), set(), {"timeout_seconds": 3600}
        self.changed = threading.Condition()
        handler = type("Handler", (Handler,), {"stub": self})
        self.server = Server(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def base(self, rollout="r"):
        return f"{self.url}/proxy/rollout/{rollout}/attempt/0/mode/train/openai/v1"

    def wait_for(self, condition, seconds=30):
        """Waits until `condition()` holds; returns whether it does."""
        with self.changed:
            return self.changed.wait_for(condition, seconds)

    def add(self, tasks):
        with self.changed:
            for task in tasks:
                self.queue.append(task)
            self.changed.notify_all()

    def answer(self, path, body):
        """The response to a POST: status and body."""
        with self.changed:
            name = path.rsplit("/", 1)[1]
            found = getattr(self, f"on_{name}", None)
            answer = found(path, body) if found else (404, {"detail": f"no {path}"})
            self.changed.notify_all()
            return answer

    def on_completions(self, path, body):
        self.asked.append(body)
        return 200, chat(body, self.script(body["messages"], body.get("tools") or []))

    def on_responses(self, path, body):
        self.asked.append(body)
        return 200, response(body, self.script(messages(body), body.get("tools") or []))

    def on_search(self, path, body):
        return 200, {"passages": self.passages[: body["k"]]}

    def on_events(self, path, body):
        self.events.append((path, body))
        return 200, body

    def on_claim(self, path, body):
        claims = []
        while self.queue and len(claims) < body["count"]:
            task = self.queue.popleft()
            event_url = f"{self.url}/api/rollouts/{task['id']}/attempt/1/events"
            addresses = {"openai_base_url": self.base(task["id"]), "event_url": event_url}
            rollout = {"rollout_id": task["id"], "input": task, "config": self.config}
            claims.append({"rollout": rollout, "attempt_id": "1", "addresses": addresses})
        return 200, {"claims": claims}

    def on_heartbeat(self, path, body):
        self.beats.append(body)
        leases = [dict(lease) for lease in body["leases"]]
        for lease in leases:
            if lease["rollout_id"] in self.lost:
                lease["lost"] = "it is another worker's"
        return 200, {"leases": leases}

    def on_finish(self, path, body):
        self.finished.append(body)
        return 200, {"status": "ok"}


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, *_):
        pass  # test clients are killed


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        if self.stub.key and self.headers.get("Authorization") != f"Bearer {self.stub.key}":
            return self.send(401, b'{"error": {"message": "wrong key"}}')
        status, answer = self.stub.answer(self.path, body)
        if body.get("stream") and status == 200:
            return self.send(status, stream(answer), "text/event-stream")
        self.send(status, json.dumps(answer).encode())

    def send(self, status, data, kind="application/json"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def log_message(self, *_):
        pass


USAGE = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}


def chat(body, said):
    """A chat completion with a text or a tool call."""
    message, finish = {"role": "assistant", "content": said}, "stop"
    if not isinstance(said, str):
        name, arguments = said
        function = {"name": name, "arguments": json.dumps(arguments)}
        call = {"id": f"call_{uuid.uuid4().hex}", "type": "function", "function": function}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        finish = "tool_calls"
    choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": "chat.completion", "created": 0,
            "model": body["model"], "choices": [choice], "usage": USAGE}


def messages(body):
    """The input of a response as chat messages."""
    found = []
    if body.get("instructions"):
        found.append({"role": "system", "content": body["instructions"]})
    items = body["input"]
    items = [{"role": "user", "content": items}] if isinstance(items, str) else items
    for item in items:
        kind = item.get("type", "message")
        if kind == "message":
            found.append({"role": item["role"], "content": item["content"]})
        elif kind == "function_call":
            found.append({"role": "assistant", "content": None, "tool_calls": [item]})
        elif kind == "function_call_output":
            found.append({"role": "tool", "content": item["output"]})
    return found


def response(body, said):
    """The same in the format of `/v1/responses`."""
    if isinstance(said, str):
        part = {"type": "output_text", "text": said, "annotations": [], "logprobs": []}
        item = {"type": "message", "id": f"msg_{uuid.uuid4().hex}", "role": "assistant",
                "status": "completed", "content": [part]}
    else:
        name, arguments = said
        item = {"type": "function_call", "id": f"fc_{uuid.uuid4().hex}", "name": name,
                "call_id": f"call_{uuid.uuid4().hex}", "arguments": json.dumps(arguments),
                "status": "completed"}
    usage = {"input_tokens": 9, "output_tokens": 5, "total_tokens": 14,
             "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
             "output_tokens_details": {"reasoning_tokens": 0}}
    return {"id": f"resp_{uuid.uuid4().hex}", "object": "response", "created_at": 0, "error": None,
            "model": body["model"], "status": "completed", "output": [item], "usage": usage,
            "incomplete_details": None, "instructions": body.get("instructions"), "metadata": {},
            "parallel_tool_calls": True, "temperature": 1.0, "top_p": 1.0, "tool_choice": "auto",
            "tools": body.get("tools") or []}


def stream(whole):
    """The events of a response, as bytes."""
    item = whole["output"][0]
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    at = {"output_index": 0, "item_id": item["id"]}
    events = [{"type": "response.created", "response": begun},
              {"type": "response.in_progress", "response": begun}]
    if item["type"] == "message":
        part = item["content"][0]
        text, place = part["text"], {**at, "content_index": 0}
        empty = {**part, "text": ""}
        events += [
            {"type": "response.output_item.added", "output_index": 0,
             "item": {**item, "content": [], "status": "in_progress"}},
            {"type": "response.content_part.added", **place, "part": empty},
            *({"type": "response.output_text.delta", **place, "delta": text[i:i + 4],
               "logprobs": []} for i in range(0, len(text), 4)),
            {"type": "response.output_text.done", **place, "text": text, "logprobs": []},
            {"type": "response.content_part.done", **place, "part": part}]
    else:
        arguments = item["arguments"]
        events += [
            {"type": "response.output_item.added", "output_index": 0,
             "item": {**item, "arguments": "", "status": "in_progress"}},
            {"type": "response.function_call_arguments.delta", **at, "delta": arguments},
            {"type": "response.function_call_arguments.done", **at, "arguments": arguments,
             "name": item["name"]}]
    events += [{"type": "response.output_item.done", "output_index": 0, "item": item},
               {"type": "response.completed", "response": whole}]
    lines = (f"event: {event['type']}\ndata: {json.dumps({**event, 'sequence_number': n})}\n\n"
             for n, event in enumerate(events))
    return "".join(lines).encode()
