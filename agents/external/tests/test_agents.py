"""The three agents in their frameworks, with a scripted model. Needs the packages of
requirements.txt; skipped without them:

    .venv-external/bin/python -m unittest discover agents/external/tests
"""

import asyncio
import os
import sqlite3
import sys
import tempfile
import unittest
from importlib import import_module

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE)]

from stub import Stub


class Case(unittest.TestCase):
    def agent(self, module):
        try:
            return import_module(module)
        except ModuleNotFoundError as error:
            self.skipTest(f"{error.name} is not installed: see requirements.txt")

    def run_agent(self, module, script, passages=(), **task):
        agent = self.agent(module).agent
        with Stub(script, key="secret", passages=passages) as stub:
            task = {"id": "r", "search": f"{stub.url}/api/search", **task}
            answer = asyncio.run(agent(task, stub.base(), "secret"))
        # Connections belong to the event loop that has just ended.
        sys.modules.pop(module)
        return answer, stub.asked


class Calculator(Case):
    def test_one_tool_call_and_an_answer(self):
        def script(messages, tools):
            if messages[-1]["role"] == "tool":
                return f"### ANSWER: {messages[-1]['content']} ###"
            return tools[0]["function"]["name"], {"expression": "1000 * (3 + 4.5)"}

        answer, asked = self.run_agent("autogen_calc", script, question="how many?")
        self.assertEqual(answer, "### ANSWER: 7_500 ###")
        system, user = asked[0]["messages"]
        self.assertEqual(system["content"], "Use the calculator. End with ### ANSWER: x ###")
        self.assertEqual(user["content"], "how many?")
        self.assertEqual(len(asked), 2)

    def test_no_answer_after_three_calls_gives_none(self):
        answer, asked = self.run_agent(
            "autogen_calc", lambda *_: ("calculator", {"expression": "1"}), question="how many?")
        self.assertIsNone(answer)
        self.assertEqual(len(asked), 3)

    def test_results_are_formatted_like_the_native_calculator_s(self):
        agent = self.agent("autogen_calc")
        for expression, result in [
            ("7 / 2 * 2", "7"),
            ("10000 / 7", "10_000/7 = around 1_428.571429"),
            ("-1 / 3", "-1/3 = around -0.333333"),
            ("0.1 + 0.2", "0.3"),
            ("1.5 - 1.5", "0"),
            ("12345.5 * 100", "1_234_550"),
            ("2 ** 10", "1_024"),
            ("1 / (2 - 2)", "ERROR: division by zero"),
        ]:
            self.assertEqual(asyncio.run(agent.calculator(expression)), result, expression)

    def test_hostile_expressions_are_refused_at_once(self):
        agent = self.agent("autogen_calc")
        for expression in ["9**9**9**9", "((9**999)**999)**999", "__import__('os')", "[1]*9**9",
                           "(" * 5000, "1" * 10_000, "x", "", "True", "'a'*9", "1e999*10",
                           "(-8)**0.5"]:
            result = asyncio.run(agent.calculator(expression))
            self.assertTrue(result.startswith("ERROR: "), (expression[:20], result[:80]))


class Retrieval(Case):
    passages = [{"id": "1", "title": "Ada", "text": "Ada was born in Lund."}]

    def test_text_before_a_call_stays_with_it_and_the_answer_follows(self):
        def script(messages, tools):
            if messages[-1]["role"] == "tool":
                return f"<answer>{messages[-1]['content']}</answer>"
            return tools[0]["name"], {"query": " Ada"}

        answer, asked = self.run_agent(
            "openai_agents_rag", script, self.passages, question="where?")
        self.assertEqual(answer, "<answer>[1] Ada: Ada was born in Lund.</answer>")
        self.assertTrue(all(body["stream"] for body in asked))
        self.assertEqual(asked[0]["instructions"], "Use retrieve. End with <answer>x</answer>")

    def test_searches_and_turns_are_limited(self):
        results = []

        def script(messages, tools):
            results[:] = [m["content"] for m in messages if m["role"] == "tool"]
            return "retrieve", {"query": f"q{len(results)}"}

        answer, asked = self.run_agent("openai_agents_rag", script, question="where?")
        self.assertIsNone(answer)
        self.assertEqual(len(asked), 4)
        self.assertEqual(results, ["No passage matches. Try other words."] * 3)


class Sql(Case):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.database = os.path.join(folder.name, "pets's ü.sqlite")
        connection = sqlite3.connect(self.database)
        connection.execute("CREATE TABLE pet (name, age)")
        connection.execute("INSERT INTO pet VALUES ('Rex', 2.5), ('Mia', NULL)")
        connection.commit()
        connection.close()

    def ask(self, *replies):
        replies = list(replies)
        task = {"question": "who?", "schema": "pet(name, age)", "database": self.database}
        answer, asked = self.run_agent("langchain_sql", lambda *_: replies.pop(0), **task)
        self.assertEqual(replies, [])
        return answer, [tuple(message["content"] for message in body["messages"]) for body in asked]

    def test_a_query_is_written_checked_and_rewritten(self):
        answer, asked = self.ask(
            "```sql\nSELECT nam FROM pet\n```", "No. VERDICT: INCORRECT",
            "```sql\nSELECT name, age FROM pet\n```", "VERDICT: CORRECT")
        self.assertEqual(answer, "SELECT name, age FROM pet")
        check = ("Does the SQL answer the question? End with VERDICT: CORRECT or VERDICT: "
                 "INCORRECT. pet(name, age)")
        failed = "who? SQL: SELECT nam FROM pet Result: ERROR: no such column: nam"
        self.assertEqual(asked, [
            ("Answer in SQL. pet(name, age)", "who?"),
            (check, failed),
            ("Correct the SQL. pet(name, age)", f"{failed} No. VERDICT: INCORRECT"),
            (check, "who? SQL: SELECT name, age FROM pet Result: "
                    "name | age\nRex | 2.5\nMia | NULL"),
        ])

    def test_three_queries_at_most_and_the_last_one_counts(self):
        wrong = "VERDICT: CORRECT? No, VERDICT: INCORRECT"
        answer, asked = self.ask("SELECT 1", wrong, "no block", wrong, "```\nSELECT 3\n```", wrong)
        self.assertEqual(answer, "SELECT 3")
        self.assertEqual(len(asked), 6)

    def test_queries_read_this_database_and_nothing_else(self):
        run = self.agent("langchain_sql").run
        endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
        for query in ["DELETE FROM pet", "DROP TABLE pet", "CREATE TABLE t (a)",
                      "ATTACH '/tmp/other.sqlite' AS o", "VACUUM INTO '/tmp/other.sqlite'",
                      "SELECT load_extension('x')", "SELECT 1; SELECT 2", "", "-- nothing",
                      f"{endless} SELECT max(i) FROM n"]:
            self.assertTrue(run(self.database, query).startswith("ERROR: "), query)
        self.assertEqual(run(self.database, "SELECT count(*) FROM pet"), "count(*)\n2")
        self.assertEqual(run(self.database, "SELECT name FROM pet WHERE 0"), "name\n(no rows)")
        long = run(self.database, f"SELECT {', '.join(['name'] * 9)} FROM pet")
        self.assertEqual(len(long), 60 + len("\n... (truncated)"))


class Form(unittest.TestCase):
    def test_each_is_at_most_sixty_lines_without_training_terms(self):
        for name in ("autogen_calc", "openai_agents_rag", "langchain_sql"):
            with open(os.path.join(os.path.dirname(HERE), f"{name}.py"), encoding="utf-8") as file:
                text = file.read()
            self.assertLessEqual(len(text.splitlines()), 60, name)
            for word in ("train", "reward", "rollout", "policy", "advantage", "logprob"):
                self.assertNotIn(word, text.lower(), name)


if __name__ == "__main__":
    unittest.main()
