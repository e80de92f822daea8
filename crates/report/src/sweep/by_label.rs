//! Final rewards by the value of a label of the test tasks, such as the length of a problem.
//!
//! A variant may differ from the baseline on some tasks only, and a mean over all tasks hides it.
//! The comparisons by value are a family of their own for Holm's correction: the sweep file names
//! the label, so they are decided before the results are known.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::charts::size;
use super::comparison::{Comparison, adjust};
use super::load::{CellRun, SweepRuns};
use super::measure::Measures;
use super::summary::{Measured, Summary, over_runs};
use super::words::{difference_words, p_cell, words};
use crate::chart::{Chart, Ink, Level, Mark, Point, Scale};
use crate::figures::{Figure, Section};
use crate::run::Run;
use crate::table::{cell, field};

/// The comparisons by the values of one label.
#[derive(Debug, Clone)]
pub struct ByLabel {
    pub label: String,
    pub values: Vec<OfValue>,
}

/// The variants on the test tasks with one value of the label.
#[derive(Debug, Clone)]
pub struct OfValue {
    pub value: String,
    /// Number of test tasks; the largest if cells differ.
    pub tasks: usize,
    /// In the order of the sweep's variants.
    pub variants: Vec<OfVariant>,
}

/// One variant on these tasks.
#[derive(Debug, Clone)]
pub struct OfVariant {
    pub name: String,
    /// Mean of the final rewards over runs, its interval by Student's t.
    pub reward: Option<Measured>,
    /// The comparison with the baseline; `None` for the baseline.
    pub comparison: Option<Comparison>,
}

/// Mean reward and number of tasks of a label's value in the last evaluation that has it.
fn last(run: &Run, mode: &str, label: &str, value: &str) -> Option<(f64, usize)> {
    let of = run.evals(mode).filter_map(|eval| eval.by_label.get(label)?.get(value).copied());
    of.filter(|(mean, _)| mean.is_finite()).last()
}

/// The comparisons by `label`; `None` if no evaluation has it.
pub(super) fn by_label(
    sweep: &SweepRuns,
    summary: &Summary,
    label: &str,
    shares: bool,
) -> Option<ByLabel> {
    let runs = || sweep.variants.iter().flat_map(|v| &v.cells).filter_map(|c| c.run.as_ref());
    let mut values: Vec<String> = runs()
        .flat_map(|run| run.evals(&summary.mode))
        .filter_map(|eval| eval.by_label.get(label))
        .flat_map(|values| values.keys().cloned())
        .collect::<BTreeSet<String>>()
        .into_iter()
        .collect();
    values.sort_by_key(|value| leading_number(value));
    if values.is_empty() {
        return None;
    }
    let mut values: Vec<OfValue> =
        values.into_iter().map(|value| of_value(sweep, summary, label, value, shares)).collect();
    let variants = values.iter_mut().flat_map(|value| &mut value.variants);
    let mut comparisons: Vec<&mut Comparison> =
        variants.filter_map(|variant| variant.comparison.as_mut()).collect();
    adjust(&mut comparisons);
    Some(ByLabel { label: label.to_owned(), values })
}

/// The number that a value begins with, so that `10-12` follows `2-4`.
fn leading_number(value: &str) -> u64 {
    let digits: String = value.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(u64::MAX)
}

fn of_value(
    sweep: &SweepRuns,
    summary: &Summary,
    label: &str,
    value: String,
    shares: bool,
) -> OfValue {
    let mut tasks = 0;
    let mut reward = |cell: &CellRun, measures: &Measures| -> Option<f64> {
        let found = cell.run.as_ref().and_then(|run| last(run, &summary.mode, label, &value));
        tasks = tasks.max(found.map_or(0, |(_, tasks)| tasks));
        if measures.counts_as_zero() { Some(0.0) } else { found.map(|(mean, _)| mean) }
    };
    let finals: Vec<Vec<(u64, f64)>> = sweep
        .variants
        .iter()
        .zip(&summary.variants)
        .map(|(variant, summarised)| {
            let of = |(seed, measures): &(u64, Measures)| {
                let cell = variant.cells.iter().find(|cell| cell.cell.seed == *seed)?;
                Some((*seed, reward(cell, measures)?))
            };
            summarised.measures.iter().filter_map(of).collect()
        })
        .collect();
    let base = sweep.variants.iter().position(|variant| variant.name == sweep.baseline);
    let variants = sweep
        .variants
        .iter()
        .enumerate()
        .map(|(index, variant)| {
            let rewards: Vec<f64> = finals[index].iter().map(|(_, reward)| *reward).collect();
            let base = base.filter(|base| *base != index);
            OfVariant {
                name: variant.name.clone(),
                reward: over_runs(&rewards, shares),
                comparison: base.and_then(|base| Comparison::of(&finals[index], &finals[base])),
            }
        })
        .collect();
    OfValue { value, tasks, variants }
}

impl ByLabel {
    /// The text below the table.
    pub(super) fn method(&self) -> String {
        let variants = || self.values.iter().flat_map(|value| &value.variants);
        let tested = |variant: &&OfVariant| {
            variant.comparison.as_ref().is_some_and(|found| found.adjusted_p.is_some())
        };
        format!(
            "Final rewards on the test tasks with each value of the label {}. Adjusted p is Holm's \
             over the {} comparisons of this table; a claim needs an adjusted p < 0.05.",
            self.label,
            variants().filter(tested).count()
        )
    }

    /// The rows of the table, as texts: value, tasks, variant, final reward, difference, p, adjusted
    /// p.
    pub(super) fn rows(&self) -> Vec<[String; 7]> {
        let row = |value: &OfValue, variant: &OfVariant| {
            let comparison = variant.comparison.as_ref();
            [
                value.value.clone(),
                value.tasks.to_string(),
                variant.name.clone(),
                words(variant.reward),
                difference_words(comparison),
                p_cell(comparison.and_then(Comparison::p_value)),
                p_cell(comparison.and_then(|comparison| comparison.adjusted_p)),
            ]
        };
        let of = |value| move |variant| row(value, variant);
        self.values.iter().flat_map(|value| value.variants.iter().map(of(value))).collect()
    }

    pub(super) fn markdown(&self) -> String {
        let mut out = format!(
            "\n## By {}\n\n| {} | tasks | variant | final reward | difference | p | adjusted p |\n\
             |---|---:|---|---:|---:|---:|---:|\n",
            cell(&self.label),
            cell(&self.label)
        );
        for row in self.rows() {
            let _ = writeln!(out, "| {} |", row.map(|text| cell(&text)).join(" | "));
        }
        let _ = writeln!(out, "\n{}", self.method());
        out
    }

    pub(super) fn csv(&self) -> String {
        let mut out = String::from(
            "label,value,tasks,variant,final,final_low,final_high,difference,difference_low,\
             difference_high,p,adjusted_p\n",
        );
        let number = |value: Option<f64>| {
            value.filter(|v| v.is_finite()).map_or_else(String::new, |v| v.to_string())
        };
        let measured = |measured: Option<Measured>| {
            let (low, high) = measured.and_then(|m| m.interval).unzip();
            [measured.map(|m| m.value), low, high].map(number).join(",")
        };
        for value in &self.values {
            for variant in &value.variants {
                let comparison = variant.comparison.as_ref();
                let _ = writeln!(
                    out,
                    "{},{},{},{},{},{},{},{}",
                    field(&self.label),
                    field(&value.value),
                    value.tasks,
                    field(&variant.name),
                    measured(variant.reward),
                    measured(comparison.map(Comparison::difference)),
                    number(comparison.and_then(Comparison::p_value)),
                    number(comparison.and_then(|comparison| comparison.adjusted_p)),
                );
            }
        }
        out
    }

    /// Charts of final rewards and of differences from the baseline, by value.
    pub(super) fn figures(&self, summary: &Summary, shares: bool) -> Vec<Figure> {
        let reward = Scale::Linear { zero: true, ceiling: shares.then_some(1.0) };
        let mut difference = self.figure(
            summary,
            "difference_by_label",
            &format!("Difference from the baseline by {}", self.label),
            Scale::Linear { zero: true, ceiling: None },
            |variant| variant.comparison.as_ref().map(Comparison::difference),
        );
        difference.chart.levels.push(Level { label: "no difference".to_owned(), value: 0.0 });
        let title = format!("Final test reward by {}, {}", self.label, summary.mode);
        let rewards =
            self.figure(summary, "reward_by_label", &title, reward, |variant| variant.reward);
        vec![difference, rewards]
    }

    fn figure(
        &self,
        summary: &Summary,
        file: &str,
        title: &str,
        scale: Scale,
        measure: impl Fn(&OfVariant) -> Option<Measured>,
    ) -> Figure {
        let mut chart = Chart::new(title, &self.label, "mean reward");
        chart.scale = scale;
        chart.size = size(summary);
        let variants = summary.variants.len();
        // The variants of a value stand side by side.
        let x = |value: usize, variant: usize| {
            (value + 1) as f64 + 0.7 * ((variant as f64 + 0.5) / variants as f64 - 0.5)
        };
        for (index, variant) in summary.variants.iter().enumerate() {
            let point = |(at, value): (usize, &OfValue)| {
                let Measured { value, interval } = measure(value.variants.get(index)?)?;
                Some(Point { x: x(at, index), y: value, interval })
            };
            let points: Vec<Point> = self.values.iter().enumerate().filter_map(point).collect();
            if !points.is_empty() {
                let name = format!("{} {}", index + 1, variant.name);
                chart.push(Some(&name), Ink::Series(index), Mark::MEASURED, points);
            }
        }
        let name = |(at, value): (usize, &OfValue)| ((at + 1) as f64, value.value.clone());
        chart.categories = Some(self.values.iter().enumerate().map(name).collect());
        Figure {
            file: file.to_owned(),
            section: Section::Comparison,
            chart,
            caption: "Mean over seeds with its 95 % interval, each for itself; claims use the \
                      adjusted p values of the table."
                .to_owned(),
        }
    }
}
