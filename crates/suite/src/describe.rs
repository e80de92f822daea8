//! Statistics of a dataset: number, kinds, lengths and flaws of its tasks.
//!
//! Each dataset's module computes its own statistics; this module formats them.

use std::collections::BTreeMap;
use std::fmt;

use leyden_core::Task;

use crate::table::{Side, aligned, counted, indented, shortened};

/// Maximum number of listed values of a label or count; above it only their number or range is
/// shown.
const LISTED: usize = 12;
/// Number of sample rows.
const SAMPLES: usize = 3;
/// Maximum number of characters of a shown text.
pub(crate) const SHOWN: usize = 240;

/// Statistics of some tasks.
pub struct Description {
    name: String,
    tasks: usize,
    /// Label, value, tasks.
    labels: BTreeMap<String, BTreeMap<String, usize>>,
    /// Lines specific to this dataset.
    pub(crate) own: Vec<String>,
    /// Field name, and the field's lengths in characters, ascending.
    lengths: Vec<(&'static str, Vec<usize>)>,
    rows: Vec<Row>,
}

/// A sample task: its id, and its fields by name.
struct Row {
    id: String,
    fields: Vec<(&'static str, String)>,
}

impl Description {
    /// Default statistics: question and reference answer.
    pub fn usual(name: &str, tasks: &[Task]) -> Self {
        let mut description = Self::new(name, tasks);
        description.measure("question", tasks.iter().map(|task| task.question.as_str()));
        description.measure("answer", tasks.iter().map(|task| task.gold.as_str()));
        description.show(tasks, |task| {
            vec![("question", task.question.clone()), ("answer", task.gold.clone())]
        });
        description
    }

    /// Counts tasks by their labels; further statistics are added later.
    pub fn new(name: &str, tasks: &[Task]) -> Self {
        let mut labels: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
        for (label, value) in tasks.iter().flat_map(|task| &task.labels) {
            *labels.entry(label.clone()).or_default().entry(value.clone()).or_default() += 1;
        }
        let (own, lengths, rows) = (Vec::new(), Vec::new(), Vec::new());
        Self { name: name.to_owned(), tasks: tasks.len(), labels, own, lengths, rows }
    }

    /// Adds the lengths of a field's texts, if there are any.
    pub fn measure<'a>(&mut self, what: &'static str, texts: impl Iterator<Item = &'a str>) {
        let mut lengths: Vec<usize> = texts.map(|text| text.chars().count()).collect();
        lengths.sort_unstable();
        if !lengths.is_empty() {
            self.lengths.push((what, lengths));
        }
    }

    /// Adds a few sample tasks with the fields returned by `fields`.
    pub fn show<'a>(
        &mut self,
        tasks: &'a [Task],
        fields: impl Fn(&'a Task) -> Vec<(&'static str, String)>,
    ) {
        let row = |task: &'a Task| Row { id: task.id.clone(), fields: fields(task) };
        self.rows = spread(tasks).map(row).collect();
    }
}

/// A few tasks from start, middle and end.
fn spread(tasks: &[Task]) -> impl Iterator<Item = &Task> {
    let count = SAMPLES.min(tasks.len());
    let at = move |k: usize| k * tasks.len().saturating_sub(1) / count.saturating_sub(1).max(1);
    (0..count).map(move |k| &tasks[at(k)])
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.name, counted(self.tasks, "task"))?;
        if !self.labels.is_empty() {
            writeln!(f, "labels")?;
            f.write_str(&indented(&self.label_table()))?;
        }
        for line in &self.own {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "lengths in characters")?;
        f.write_str(&indented(&self.length_table()))?;
        writeln!(f, "rows")?;
        for row in &self.rows {
            writeln!(f, "  {}", row.id)?;
            for (name, text) in &row.fields {
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
pub(crate) fn listed<K: fmt::Display>(counts: &BTreeMap<K, usize>) -> String {
    counts.iter().map(|(key, count)| format!("{key}: {count}")).collect::<Vec<_>>().join(", ")
}

/// Frequency of each number: `1: 500, 2: 300`, or the range `3 to 40` if there are many.
pub(crate) fn distribution(numbers: impl Iterator<Item = usize>) -> String {
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    for number in numbers {
        *counts.entry(number).or_default() += 1;
    }
    match (counts.first_key_value(), counts.last_key_value()) {
        (Some((least, _)), Some((most, _))) if counts.len() > LISTED => {
            format!("{least} to {most}")
        }
        _ => listed(&counts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_rows_are_spread_over_the_tasks() {
        let task = |id: usize| Task {
            id: id.to_string(),
            question: "q".to_owned(),
            gold: "g".to_owned(),
            labels: Vec::new(),
            fields: serde_json::Map::new(),
        };
        let tasks: Vec<Task> = (0..101).map(task).collect();
        let ids = |tasks: &[Task]| spread(tasks).map(|t| t.id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&tasks), ["0", "50", "100"]);
        assert_eq!(ids(&tasks[..2]), ["0", "1"]);
        assert_eq!(ids(&tasks[..1]), ["0"]);
        assert!(ids(&[]).is_empty());
    }

    #[test]
    fn many_different_numbers_are_shown_as_a_range() {
        assert_eq!(distribution([2, 3, 2].into_iter()), "2: 2, 3: 1");
        assert_eq!(distribution(5..30), "5 to 29");
        assert_eq!(distribution(std::iter::empty()), "");
    }
}
