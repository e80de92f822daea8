//! Statistics of Calc-X: usable chains and their calculations.

use std::collections::BTreeMap;

use leyden_calcx::Turn;
use leyden_calcx::chain::{self, Demonstrations};
use leyden_core::Task;
use serde_json::Value;

use crate::describe::{Description, SHOWN, distribution, listed};
use crate::table::{counted, shortened};

pub fn describe(name: &str, tasks: &[Task]) -> Description {
    let mut description = Description::new(name, tasks);
    description.own = chains(&chain::demonstrations(tasks), tasks.len());
    description.measure("question", tasks.iter().map(|task| task.question.as_str()));
    description.measure("chain", tasks.iter().filter_map(chain_of));
    description.measure("result", tasks.iter().map(|task| task.gold.as_str()));
    description.show(tasks, |task| {
        let chain = chain_of(task).map(|chain| ("chain", chain.to_owned()));
        let question = ("question", task.question.clone());
        [question].into_iter().chain(chain).chain([("result", task.gold.clone())]).collect()
    });
    description
}

fn chain_of(task: &Task) -> Option<&str> {
    task.fields.get("chain").and_then(Value::as_str)
}

fn chains(found: &Demonstrations, tasks: usize) -> Vec<String> {
    let shown = counted(found.found.len(), "demonstration");
    let without = counted(tasks - found.found.len(), "task");
    let mut lines = vec![format!("{shown}, {without} without")];
    let mut flaws: BTreeMap<&'static str, (usize, String)> = BTreeMap::new();
    for (id, flaw) in &found.flawed {
        flaws.entry(flaw.kind()).or_insert_with(|| (0, format!("{id}: {flaw}"))).0 += 1;
    }
    for (kind, (count, first)) in &flaws {
        lines.push(format!("  {kind}: {count} (first: {})", shortened(first, SHOWN)));
    }
    let calls = distribution(found.found.iter().map(|demonstration| demonstration.calls()));
    if !calls.is_empty() {
        lines.push(format!("calculator calls per demonstration: {calls}"));
    }
    let mut operators: BTreeMap<&'static str, usize> = BTreeMap::new();
    for turn in found.found.iter().flat_map(|demonstration| &demonstration.turns) {
        if let Turn::Assistant { call: Some(expression), .. } = turn {
            for operator in operators_of(expression) {
                *operators.entry(operator).or_default() += 1;
            }
        }
    }
    if !operators.is_empty() {
        lines.push(format!("operators: {}", listed(&operators)));
    }
    lines
}

/// The binary operators of an expression, in order.
fn operators_of(expression: &str) -> Vec<&'static str> {
    let text: Vec<char> = expression.chars().filter(|c| !c.is_whitespace()).collect();
    let mut operators = Vec::new();
    let mut at = 0;
    while at < text.len() {
        // A sign at the start, after a bracket or after an operator is unary.
        let operand_before = at > 0 && !"(+-*/^%,=<>".contains(text[at - 1]);
        let (operator, width) = match (text[at], text.get(at + 1)) {
            ('*', Some('*')) => ("**", 2),
            ('/', Some('/')) => ("//", 2),
            ('*', _) => ("*", 1),
            ('/', _) => ("/", 1),
            ('^', _) => ("^", 1),
            ('%', _) => ("%", 1),
            ('+', _) if operand_before => ("+", 1),
            ('-', _) if operand_before => ("-", 1),
            _ => ("", 1),
        };
        if !operator.is_empty() {
            operators.push(operator);
        }
        at += width;
    }
    operators
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn task(id: &str, chain: Option<&str>, gold: &str) -> Task {
        let mut fields = serde_json::Map::new();
        if let Some(chain) = chain {
            fields.insert("chain".to_owned(), json!(chain));
        }
        Task {
            id: id.to_owned(),
            question: "How many?".to_owned(),
            gold: gold.to_owned(),
            labels: vec![("source".to_owned(), "x".to_owned())],
            fields,
        }
    }

    #[test]
    fn operators_are_those_between_operands() {
        for (expression, operators) in [
            ("-3 + 4*-2", vec!["+", "*"]),
            ("2**3 - (-1)", vec!["**", "-"]),
            ("7//2 % 3", vec!["//", "%"]),
            ("(1+2)-3/4", vec!["+", "-", "/"]),
            ("12", vec![]),
        ] {
            assert_eq!(operators_of(expression), operators, "{expression}");
        }
    }

    #[test]
    fn a_description_counts_chains_and_flaws() {
        let good = "<gadget id=\"calculator\">2+3*4</gadget>\n<output>14</output>\n\
                    <result>14</result>";
        let tasks = [
            task("a", Some(good), "14"),
            task("b", Some(good), "15"),
            task("c", None, "1"),
            task("d", Some("Just so.\n<result>2</result>"), "2"),
        ];
        let text = describe("some", &tasks).to_string();
        for line in [
            "some: 4 tasks\n",
            "  source  x: 4\n",
            "2 demonstrations, 2 tasks without\n",
            "  no chain: 1 (first: c: it has no chain)\n",
            "  other result: 1 (first: b: its chain ends in 14, but its result is 15)\n",
            "calculator calls per demonstration: 0: 1, 1: 1\n",
            "operators: *: 1, +: 1\n",
            "  question         9       9     9        9\n",
            "    question  How many?\n",
        ] {
            assert!(text.contains(line), "{line:?} is not in\n{text}");
        }
    }
}
