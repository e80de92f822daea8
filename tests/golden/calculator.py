"""Writes expressions and their SymPy results by the rules of Calc-X to calculator.jsonl and
calcx.jsonl.

    python3 tests/golden/calculator.py

The calculator of Calc-X (Kadlčík et al. 2023) evaluates an expression with SymPy and formats the
value: integers with `_` as thousands separator, decimals to six places without trailing zeros,
fractions and symbols followed by ` = around ` and the decimal, failures as `ERROR: …`. An answer is
correct if it equals the reference's text or letter, or if both evaluate to numbers within one per
cent of the larger one. Both rules are reimplemented here; the expressions are random, or chosen as
edge cases.
"""

import json
import math
import pathlib
import random

import sympy

HERE = pathlib.Path(__file__).parent
AROUND = " = around "

CHOSEN = """
1+1|2*3-4/5|7/7|22/7|-3/9|1/3+1/6|10**6|2**100|(-2)**3|-2**2|2**-1|1e3|1.5e-3|0.1+0.2|1.0|3.10*2
1_000*3|123456789*1000|999999.9999999|1/7*7|(1+2)*(3+4)|((((5))))|5 - -5|5 - - 5|+5|17 % 5|-17 % 5
17 // 5|-17 // 5|1000000/3|12345.678|0.0000001|1/1000000|100*1.07**10|sqrt(16)|sqrt(2)|pi|2*pi
5!|factorial(6)|abs(-4)|min(3, 2)|max(1, 2, 3)|log(1)|exp(0)|sin(0)|floor(7/2)|ceiling(7/2)|0/5
x|x+1|2x|1,000|$5|50%|5 apples||()|(1|1)|1/|*3|1..2|--|1 2|3 +|hello world|1/0
""".strip()


def evaluate(text):
    return sympy.parse_expr(text, evaluate=True)


def decimal(value):
    return f"{float(value):_.6f}".rstrip("0").rstrip(".")


def written(value, around=True):
    if isinstance(value, sympy.Integer):
        return f"{int(value):_}"
    if isinstance(value, sympy.Float):
        return decimal(value)
    if isinstance(value, sympy.Rational):
        above, below = value.as_numer_denom()
        text = f"{written(above, False)}/{written(below, False)}"
    else:
        text = str(value)
    return f"{text}{AROUND}{decimal(value.evalf())}" if around else text


def calculate(text):
    try:
        return written(evaluate(text))
    except Exception as error:
        return f"ERROR: {error}"


def letter(text):
    bare = text.replace(" ", "").replace("(", "").replace(")", "")
    return bare if len(bare) == 1 and bare.isascii() and bare.isalpha() else None


def number(text):
    try:
        return float(evaluate(text.split(AROUND)[0]).evalf())
    except Exception:
        return None


def same(predicted, gold):
    if predicted.strip() == gold.strip():
        return True
    if letter(gold) is not None:
        return letter(predicted) == letter(gold)
    a, b = number(predicted), number(gold)
    return a is not None and b is not None and math.isclose(a, b, rel_tol=0.01)


def drawn(random, depth=0):
    """A random expression of the four operations."""
    if depth == 3 or random.random() < 0.3:
        whole = random.choice([random.randint(0, 12), random.randint(0, 1000), random.randint(0, 10**7)])
        return random.choice([str(whole), str(whole), f"{whole / 100:.2f}", f"{random.random():.4f}"])
    left, right = drawn(random, depth + 1), drawn(random, depth + 1)
    text = f"{left}{random.choice(['+', '-', '*', '/', ' + ', ' * '])}{right}"
    return f"({text})" if random.random() < 0.4 else text


def pair(random):
    """A random prediction and reference, often close to each other."""
    gold = random.choice(
        [str(random.randint(1, 500)), f"{random.randint(1, 90)}/{random.randint(2, 9)}",
         f"{random.uniform(0, 90):.2f}", random.choice("ABCDE")]
    )
    value = number(gold) if letter(gold) is None else None
    if value is None:
        near = [gold, f"({gold})", gold.lower(), random.choice("ABCDE"), "7", f"{gold} "]
    else:
        factor = random.choice([1, 1.005, 0.995, 1.0099, 1.0102, 0.98, 1.3, -1])
        near = [f"{value * factor:.6f}", gold, f" {gold}", f"{gold}{AROUND}{value:.6f}",
                f"{gold}*1", f"{value:.1f}", f"${gold}", f"{gold}%", f"{gold} apples", "", "none"]
    return random.choice(near), gold


def main():
    draw = random.Random(19)
    chosen = [text for line in CHOSEN.splitlines() for text in line.split("|")]
    inputs = list(dict.fromkeys(chosen + [drawn(draw) for _ in range(250)]))
    write = lambda name, rows: (HERE / name).write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    )
    write("calculator.jsonl", [{"input": text, "output": calculate(text)} for text in inputs])
    pairs = list(dict.fromkeys(pair(draw) for _ in range(500)))
    write("calcx.jsonl", [{"pred": p, "gold": g, "same": same(p, g)} for p, g in pairs])


if __name__ == "__main__":
    main()
