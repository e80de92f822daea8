"""The calculator agent on AutoGen: one assistant, one tool, at most three turns."""
import ast
import operator
from fractions import Fraction

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.messages import TextMessage
from autogen_core.tools import FunctionTool
from autogen_ext.models.openai import OpenAIChatCompletionClient
from openai import DefaultAsyncHttpxClient

PROMPT = "Use the calculator. End with ### ANSWER: x ###"
ABILITIES = {"function_calling": True, "json_output": False, "structured_output": False,
             "vision": False, "family": "unknown"}
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
             ast.Div: operator.truediv, ast.Pow: operator.pow}
HTTP = DefaultAsyncHttpxClient()  # shared: each new client reads the certificates again


def evaluate(node: ast.AST) -> Fraction | float:
    """Evaluates integers and fractions exactly; only numbers and operators are allowed."""
    match node:
        case ast.Constant(int() | float() as number) if not isinstance(number, bool):
            return Fraction(number) if isinstance(number, int) else number
        case ast.UnaryOp(ast.USub(), operand):
            return -evaluate(operand)
        case ast.BinOp(left, sign, right) if type(sign) in OPERATORS:
            left, right = evaluate(left), evaluate(right)
            bits = sum(n.bit_length() for n in Fraction(left).as_integer_ratio())
            if isinstance(sign, ast.Pow) and bits * abs(right) > 1 << 16:
                raise ValueError("a number on the way is too large")
            return OPERATORS[type(sign)](left, right)
    raise ValueError("only numbers, + - * / ** and parentheses can be used")


async def calculator(expression: str) -> str:
    """Evaluates one arithmetic expression exactly."""
    try:
        value = evaluate(ast.parse(expression.strip(), mode="eval").body)
        if value == 0 or isinstance(value, Fraction) and value.denominator == 1:
            return f"{int(value):_}"
        near = f"{float(value):_.6f}".rstrip("0").rstrip(".")
        exact = [f"{part:_}" for part in value.as_integer_ratio()]
        return near if isinstance(value, float) else f"{'/'.join(exact)} = around {near}"
    except ZeroDivisionError:
        return "ERROR: division by zero"
    except (ValueError, TypeError, SyntaxError, OverflowError, RecursionError) as error:
        return f"ERROR: {error}"


TOOL = FunctionTool(calculator, description=calculator.__doc__)


async def agent(task: dict, base_url: str, key: str) -> str | None:
    model = OpenAIChatCompletionClient(
        model="leyden", base_url=base_url, api_key=key, model_info=ABILITIES, http_client=HTTP)
    assistant = AssistantAgent("calculator_agent", model, tools=[TOOL], system_message=PROMPT,
                               max_tool_iterations=3)
    last = (await assistant.run(task=task["question"])).messages[-1]
    return last.content if isinstance(last, TextMessage) else None
