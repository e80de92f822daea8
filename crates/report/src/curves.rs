//! `curves.csv`: every recorded metric of every run, for other programs to plot.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use crate::experiment::{RunGroup, label_of, reward_of};
use crate::interval::Estimate;
use crate::table::field;
use crate::tensorboard::step_scalars;

/// Every curve: one line per experiment, seed and step, one column per series, empty where the
/// series has no value at that step. Six significant digits; `metrics.jsonl` has full precision.
pub(crate) fn curves_csv(experiments: &[RunGroup]) -> String {
    let mut columns = Columns::default();
    let mut lines: Vec<(String, Vec<(usize, f64)>)> = Vec::new();
    for experiment in experiments {
        for run in &experiment.runs {
            let run_fields = format!("{},{}", field(&experiment.name), field(&run.seed_label()));
            let mut by_step: BTreeMap<u64, Vec<(usize, f64)>> = BTreeMap::new();
            for step in &run.steps {
                let scalars = step_scalars(step).into_iter();
                let values = scalars.map(|(name, value)| (columns.index(&name), value));
                by_step.entry(step.step).or_default().extend(values);
            }
            for eval in &run.evals {
                let line = by_step.entry(eval.step).or_default();
                let mut put = |name: String, estimate: Estimate| {
                    line.push((columns.index(&name), estimate.mean));
                    if let Some((low, high)) = estimate.interval {
                        line.push((columns.index(&format!("{name}/low")), low));
                        line.push((columns.index(&format!("{name}/high")), high));
                    }
                };
                let name = format!("test/{}/reward", eval.mode);
                if let Some(estimate) = reward_of(eval) {
                    put(name.clone(), estimate);
                }
                for (label, values) in &eval.by_label {
                    for value in values.keys() {
                        if let Some(estimate) = label_of(eval, label, value) {
                            put(format!("{name}/{label}={value}"), estimate);
                        }
                    }
                }
            }
            let with_run = |(step, values)| (format!("{run_fields},{step}"), values);
            lines.extend(by_step.into_iter().map(with_run));
        }
    }
    let mut out = String::from("experiment,seed,step");
    columns.names.iter().for_each(|name| _ = write!(out, ",{}", field(name)));
    for (line, values) in lines {
        let mut row = vec![String::new(); columns.names.len()];
        values.into_iter().for_each(|(column, value)| row[column] = six_digits(value));
        let _ = write!(out, "\n{line},{}", row.join(","));
    }
    out.push('\n');
    out
}

/// Columns in order of first use.
#[derive(Default)]
struct Columns {
    names: Vec<String>,
    index: HashMap<String, usize>,
}

impl Columns {
    fn index(&mut self, name: &str) -> usize {
        if let Some(&index) = self.index.get(name) {
            return index;
        }
        self.names.push(name.to_owned());
        self.index.insert(name.to_owned(), self.names.len() - 1);
        self.names.len() - 1
    }
}

/// `value` rounded to six significant digits, in its shortest form.
fn six_digits(value: f64) -> String {
    format!("{value:.5e}").parse::<f64>().unwrap_or(value).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_to_six_digits() {
        let rounded = [1.0 / 3.0, -1234567.0, 0.5, 1e-20, 2.0, f64::NAN].map(six_digits);
        assert_eq!(rounded, ["0.333333", "-1234570", "0.5", "0.00000000000000000001", "2", "NaN"]);
    }
}
