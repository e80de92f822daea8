//! A dataset in figures: how many tasks, of which kinds, how long, with which flaws.

use std::collections::BTreeMap;
use std::fmt;

use leyden_calcx::Turn;
use leyden_calcx::chain::{self, Demonstrations};
use leyden_core::Task;
use serde_json::Value;

use crate::table::{Side, aligned, counted, indented, shortened};

/// Values of a label that are listed; beyond them only their number is told.
const LISTED: usize = 12;
/// Rows that are shown.
const SAMPLES: usize = 3;
/// Characters of a shown text.
const SHOWN: usize = 240;

/// What is in some tasks.
pub struct Description {
    name: String,
    tasks: usize,
    /// Label, value, tasks.
    labels: BTreeMap<String, BTreeMap<String, usize>>,
    demonstrations: usize,
    /// Kind of flaw: tasks and the first of them.
    flaws: BTreeMap<&'static str, (usize, String)>,
    /// Calls of the calculator in a demonstration: demonstrations.
    calls: BTreeMap<usize, usize>,
    /// Operators in the expressions of all demonstrations.
    operators: BTreeMap<&'static str, usize>,
    /// What is measured, and its lengths in characters, ascending.
    lengths: Vec<(&'static str, Vec<usize>)>,
    samples: Vec<Task>,
}

impl Description {
    pub fn of(name: &str, tasks: &[Task]) -> Self {
        let found = chain::demonstrations(tasks);
        let mut labels: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
        for (label, value) in tasks.iter().flat_map(|task| &task.labels) {
            *labels.entry(label.clone()).or_default().entry(value.clone()).or_default() += 1;
        }
        let (calls, operators) = operations(&found);
        Self {
            name: name.to_owned(),
            tasks: tasks.len(),
            labels,
            demonstrations: found.found.len(),
            flaws: flaws(&found),
            calls,
            operators,
            lengths: lengths(tasks),
            samples: spread(tasks),
        }
    }
}

fn flaws(found: &Demonstrations) -> BTreeMap<&'static str, (usize, String)> {
    let mut flaws: BTreeMap<&'static str, (usize, String)> = BTreeMap::new();
    for (id, flaw) in &found.flawed {
        flaws.entry(flaw.kind()).or_insert_with(|| (0, format!("{id}: {flaw}"))).0 += 1;
    }
    flaws
}

fn operations(found: &Demonstrations) -> (BTreeMap<usize, usize>, BTreeMap<&'static str, usize>) {
    let mut calls = BTreeMap::new();
    let mut operators = BTreeMap::new();
    for demonstration in &found.found {
        *calls.entry(demonstration.calls()).or_default() += 1;
        for turn in &demonstration.turns {
            if let Turn::Assistant { call: Some(expression), .. } = turn {
                for operator in operators_of(expression) {
                    *operators.entry(operator).or_default() += 1;
                }
            }
        }
    }
    (calls, operators)
}

/// The binary operators of an expression, in order.
fn operators_of(expression: &str) -> Vec<&'static str> {
    let text: Vec<char> = expression.chars().filter(|c| !c.is_whitespace()).collect();
    let mut operators = Vec::new();
    let mut at = 0;
    while at < text.len() {
        // A sign at the start, after a bracket or after an operator belongs to its number.
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

fn lengths(tasks: &[Task]) -> Vec<(&'static str, Vec<usize>)> {
    let length = |text: &str| text.chars().count();
    let chain = |task: &Task| task.fields.get("chain").and_then(Value::as_str).map(length);
    let measured = [
        ("question", tasks.iter().map(|task| length(&task.question)).collect()),
        ("chain", tasks.iter().filter_map(chain).collect()),
        ("result", tasks.iter().map(|task| length(&task.gold)).collect::<Vec<_>>()),
    ];
    let sorted = measured.into_iter().map(|(name, mut values)| {
        values.sort_unstable();
        (name, values)
    });
    sorted.filter(|(_, values)| !values.is_empty()).collect()
}

/// A few tasks from start, middle and end.
fn spread(tasks: &[Task]) -> Vec<Task> {
    let count = SAMPLES.min(tasks.len());
    let at = |k: usize| k * tasks.len().saturating_sub(1) / count.saturating_sub(1).max(1);
    (0..count).map(|k| tasks[at(k)].clone()).collect()
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.name, counted(self.tasks, "task"))?;
        if !self.labels.is_empty() {
            writeln!(f, "labels")?;
            f.write_str(&indented(&self.label_table()))?;
        }
        let flawed = self.tasks - self.demonstrations;
        let shown = counted(self.demonstrations, "demonstration");
        writeln!(f, "{shown}, {} without", counted(flawed, "task"))?;
        for (kind, (count, first)) in &self.flaws {
            writeln!(f, "  {kind}: {count} (first: {})", shortened(first, SHOWN))?;
        }
        if !self.calls.is_empty() {
            writeln!(f, "calculator calls per demonstration: {}", listed(&self.calls))?;
        }
        if !self.operators.is_empty() {
            writeln!(f, "operators: {}", listed(&self.operators))?;
        }
        writeln!(f, "lengths in characters")?;
        f.write_str(&indented(&self.length_table()))?;
        writeln!(f, "rows")?;
        for task in &self.samples {
            writeln!(f, "  {}", task.id)?;
            let mut fields = vec![("question", task.question.as_str())];
            fields.extend(task.fields.get("chain").and_then(Value::as_str).map(|c| ("chain", c)));
            fields.push(("result", &task.gold));
            for (name, text) in fields {
                writeln!(f, "    {name:<8}  {}", shortened(text, SHOWN))?;
            }
        }
        Ok(())
    }
}

impl Description {
    fn label_table(&self) -> String {
        let rows: Vec<Vec<String>> = self
            .labels
            .iter()
            .map(|(label, values)| {
                let text = if values.len() > LISTED {
                    format!("{} different values", values.len())
                } else {
                    listed(values)
                };
                vec![label.clone(), text]
            })
            .collect();
        aligned(&rows, &[Side::Left])
    }

    fn length_table(&self) -> String {
        let head = ["", "shortest", "median", "90 %", "longest"].map(str::to_owned).to_vec();
        let quantile = |values: &[usize], share: f64| {
            values[((values.len() - 1) as f64 * share).round() as usize].to_string()
        };
        let rows = self.lengths.iter().map(|(name, values)| {
            let figures = [0.0, 0.5, 0.9, 1.0].map(|share| quantile(values, share));
            [(*name).to_owned()].into_iter().chain(figures).collect()
        });
        let rows: Vec<Vec<String>> = [head].into_iter().chain(rows).collect();
        let right = Side::Right;
        aligned(&rows, &[Side::Left, right, right, right, right])
    }
}

/// `1: 500, 2: 300`.
fn listed<K: fmt::Display>(counts: &BTreeMap<K, usize>) -> String {
    counts.iter().map(|(key, count)| format!("{key}: {count}")).collect::<Vec<_>>().join(", ")
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
    fn a_description_counts_what_is_there() {
        let good = "<gadget id=\"calculator\">2+3*4</gadget>\n<output>14</output>\n\
                    <result>14</result>";
        let tasks = [
            task("a", Some(good), "14"),
            task("b", Some(good), "15"),
            task("c", None, "1"),
            task("d", Some("Just so.\n<result>2</result>"), "2"),
        ];
        let text = Description::of("some", &tasks).to_string();
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

    #[test]
    fn shown_rows_are_spread_over_the_tasks() {
        let tasks: Vec<Task> = (0..101).map(|i| task(&i.to_string(), None, "1")).collect();
        let ids = |tasks: &[Task]| spread(tasks).into_iter().map(|t| t.id).collect::<Vec<_>>();
        assert_eq!(ids(&tasks), ["0", "50", "100"]);
        assert_eq!(ids(&tasks[..2]), ["0", "1"]);
        assert_eq!(ids(&tasks[..1]), ["0"]);
    }
}
