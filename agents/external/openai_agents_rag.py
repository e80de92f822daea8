"""The retrieval agent on the OpenAI Agents SDK: one assistant, one tool, answers streamed."""

import httpx
from agents import (Agent, MaxTurnsExceeded, ModelBehaviorError, OpenAIResponsesModel, RunConfig,
                    RunContextWrapper, Runner, function_tool)
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

PROMPT = "Use retrieve. End with <answer>x</answer>"
TURNS, SEARCHES, PASSAGES, LONGEST = 4, 3, 1, 1200
HTTP = DefaultAsyncHttpxClient()  # shared: each new client reads the certificates again
SEARCH = httpx.AsyncClient(timeout=60)


class Library:
    """Passage search for one conversation, with a limited number of searches."""

    def __init__(self, url: str, key: str):
        self.url, self.headers, self.left = url, {"Authorization": f"Bearer {key}"}, SEARCHES

    async def search(self, query: str) -> str:
        query = query.strip()
        if not query:
            return "ERROR: the argument `query` is missing"
        if self.left == 0:
            return "ERROR: no search is left; answer with what you know"
        self.left -= 1
        asked = {"query": query, "k": PASSAGES}
        found = await SEARCH.post(self.url, json=asked, headers=self.headers)
        passages = found.raise_for_status().json()["passages"]
        shown = [f"[{n}] {passage(p)}" for n, p in enumerate(passages, 1)]
        return "\n".join(shown) or "No passage matches. Try other words."


def passage(found: dict) -> str:
    title, text = found["title"].strip(), found["text"].strip()
    text = text if len(text) <= LONGEST else text[:LONGEST].rstrip() + " …"
    return f"{title}: {text}" if title else text


@function_tool(failure_error_function=None)
async def retrieve(library: RunContextWrapper[Library], query: str) -> str:
    """Finds the passages of an encyclopedia that match a query best."""
    return await library.context.search(query)


ASSISTANT = Agent[Library](name="librarian", instructions=PROMPT, tools=[retrieve])


async def agent(task: dict, base_url: str, key: str) -> str | None:
    client = AsyncOpenAI(base_url=base_url, api_key=key, http_client=HTTP)
    config = RunConfig(model=OpenAIResponsesModel("leyden", client), tracing_disabled=True)
    run = Runner.run_streamed(ASSISTANT, task["question"], context=Library(task["search"], key),
                              max_turns=TURNS, run_config=config)
    try:
        async for _ in run.stream_events():
            pass
    except (MaxTurnsExceeded, ModelBehaviorError):
        return None  # the model gave no answer
    return run.final_output
