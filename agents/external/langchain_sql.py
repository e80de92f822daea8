"""The text-to-SQL agent on LangGraph: write a query, run and check it, rewrite it."""
import re
import sqlite3
from typing import TypedDict
from urllib.parse import quote

from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command
from openai import DefaultAsyncHttpxClient, DefaultHttpxClient

State = TypedDict("State", {"task": dict, "chat": object, "query": str, "found": list, "left": int})
CHECK = "Does the SQL answer the question? End with VERDICT: CORRECT or VERDICT: INCORRECT."
# Shared by all conversations: each new client reads the certificates again.
HTTP = {"http_client": DefaultHttpxClient(), "http_async_client": DefaultAsyncHttpxClient()}


def run(database: str, query: str, longest: int = 60) -> str:
    """Returns the first rows or the error; can read only this database."""
    connection = sqlite3.connect(f"file:{quote(database)}?mode=ro&immutable=1", uri=True)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.set_progress_handler(lambda: 1, 50_000_000)  # instruction limit
    try:
        found = connection.execute(query)
        rows = [[c[0] for c in found.description], *(found.fetchmany(longest) or [["(no rows)"]])]
        text = "\n".join(" | ".join("NULL" if c is None else str(c) for c in row) for row in rows)
    except (sqlite3.Error, sqlite3.Warning, TypeError) as error:
        text = f"ERROR: {error}"
    connection.close()
    return text if len(text) <= longest else text[:longest] + "\n... (truncated)"


async def ask(state: State, instruction: str) -> str:
    task, found = state["task"], " ".join(["", *state["found"]])
    asked = [("system", f"{instruction} {task['schema']}"), ("user", task["question"] + found)]
    return (await state["chat"].ainvoke(asked)).content


async def write(state: State) -> dict:
    text = await ask(state, "Correct the SQL." if state["found"] else "Answer in SQL.")
    blocks = re.findall(r"```\w*[^\S\n]*\n(.*?)\n```", text, re.DOTALL)
    query = blocks[-1].strip() if blocks else state["query"] or text.strip()
    found = [f"SQL: {query}", f"Result: {run(state['task']['database'], query)}"]
    return {"query": query, "found": found, "left": state["left"] - 1}


async def check(state: State) -> Command:
    verdict = await ask(state, CHECK)
    correct = verdict.rfind("VERDICT: CORRECT") > verdict.rfind("VERDICT: INCORRECT")
    return Command(update={"found": [*state["found"], verdict]},
                   goto=END if correct or not state["left"] else "write")


GRAPH = StateGraph(State).add_sequence([write, check]).add_edge(START, "write").compile()


async def agent(task: dict, base_url: str, key: str) -> str | None:
    model = ChatOpenAI(model="leyden", base_url=base_url, api_key=key, **HTTP)
    state = State(task=task, chat=model, query="", found=[], left=3)
    return (await GRAPH.ainvoke(state))["query"] or None
