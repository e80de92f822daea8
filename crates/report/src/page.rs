//! The page: one self-contained HTML file.
//!
//! The template escapes every value except the charts, whose text is escaped when they are drawn.
//! Rollouts are untrusted text, so the page also forbids scripts and requests by a content
//! security policy.

use std::collections::BTreeMap;

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment};
use serde::Serialize;
use serde_json::Value;

use crate::chart::Chart;
use crate::error::ReportError;
use crate::experiment::{RunGroup, flatten};
use crate::figures::{Figure, Section, smoothing_words};
use crate::rollouts::Samples;
use crate::run::Run;
use crate::svg::{SERIES, Theme, render};
use crate::table::{INTERVALS, Row, change_words, words};
use crate::text::visible;
use crate::transcript::{self, SampleView};
use crate::write::Options;

/// The templates by name; the pages share the head, its style, and the layout of a figure.
const TEMPLATES: [(&str, &str); 6] = [
    ("head.html", include_str!("../templates/head.html")),
    ("style.html", include_str!("../templates/style.html")),
    ("parts.html", include_str!("../templates/parts.html")),
    ("page.html", include_str!("../templates/page.html")),
    ("kernels.html", include_str!("../templates/kernels.html")),
    ("sweep.html", include_str!("../templates/sweep.html")),
];
/// The palette for dark backgrounds: the same hues, lighter.
pub(crate) const DARK: [&str; 8] =
    ["#56b4ff", "#ff8c42", "#2fc99a", "#e8a3cb", "#f2b632", "#9bd3f5", "#b79bd0", "#b0b0b0"];
/// Size of the main chart on narrow screens; the text stays as large as on wide ones.
const NARROW: (f64, f64) = (430.0, 330.0);

/// The page as HTML.
pub(crate) fn page(
    experiments: &[RunGroup],
    figures: &[Figure],
    rows: &[Row],
    notes: &[String],
    options: &Options,
) -> Result<String, ReportError> {
    let mut names: Vec<&str> =
        experiments.iter().flat_map(|e| &e.runs).map(|run| run.name.as_str()).collect();
    names.dedup();
    let runs: Vec<&Run> = experiments.iter().flat_map(|e| e.runs.iter().copied()).collect();
    let several = experiments.len() > 1;
    let averaged = rows.iter().any(|row| row.averaged);
    let view = PageView {
        title: options.title.clone().unwrap_or_else(|| names.join(", ")),
        light: SERIES,
        dark: DARK,
        headlines: headlines(rows),
        run_words: run_words(experiments),
        sections: sections(figures, options.files),
        several,
        smoothing: smoothing_words(experiments),
        brief: row_views(rows.iter().filter(|row| is_brief(row, rows)), several),
        every: averaged.then(|| row_views(rows.iter().filter(|row| !row.averaged), several)),
        intervals: INTERVALS,
        samples: samples(&runs, options.samples),
        settings: settings(&runs),
        configurations: runs.iter().map(|run| run_view(run, experiments)).collect(),
        timings: timings(&runs),
        notes,
    };
    fill_in("page.html", view)
}

/// Renders a template; everything except charts is escaped.
pub(crate) fn fill_in(template: &str, view: impl Serialize) -> Result<String, ReportError> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_filter("visible", |text: &str| visible(text));
    for (name, text) in TEMPLATES {
        environment.add_template(name, text)?;
    }
    Ok(environment.get_template(template)?.render(Serde(view))?)
}

/// The values that the template uses.
#[derive(Serialize)]
struct PageView<'a> {
    title: String,
    light: [&'static str; 8],
    dark: [&'static str; 8],
    headlines: Vec<Headline>,
    run_words: Vec<String>,
    sections: Vec<SectionView>,
    /// Whether there are several experiments; tables then name them.
    several: bool,
    /// Explains how training curves were drawn.
    smoothing: Option<String>,
    brief: Vec<RowView>,
    /// Rows per seed, only if they differ from the brief ones.
    every: Option<Vec<RowView>>,
    intervals: &'static str,
    samples: Vec<SamplesView>,
    settings: Vec<Setting>,
    configurations: Vec<RunView>,
    timings: Vec<TimingView>,
    notes: &'a [String],
}

#[derive(Serialize)]
struct SectionView {
    name: &'static str,
    /// Class of the container: `large` or `small`.
    kind: &'static str,
    charts: Vec<FigureView>,
}

/// The sections that have charts, in the order of the page.
fn sections(figures: &[Figure], files: bool) -> Vec<SectionView> {
    [
        (Section::Reward, "Reward", "large"),
        (Section::Panels, "Reward", "small"),
        (Section::Labels, "Reward by kind of task", "small"),
        (Section::Rollouts, "Rollouts", "small"),
        (Section::Health, "Optimisation", "small"),
    ]
    .into_iter()
    .map(|(section, name, kind)| SectionView {
        name,
        kind,
        charts: figures
            .iter()
            .filter(|figure| figure.section == section)
            .map(|figure| figure_view(figure, files))
            .collect(),
    })
    .filter(|section| !section.charts.is_empty())
    .collect()
}

#[derive(Serialize)]
struct RowView {
    /// Heading of this row and the following ones, where it changes.
    heading: Option<String>,
    slice: String,
    tasks: usize,
    start: String,
    start_step: u64,
    end: String,
    end_step: u64,
    change: String,
    whole: bool,
}

fn row_views<'a>(rows: impl Iterator<Item = &'a Row>, several: bool) -> Vec<RowView> {
    let mut last = String::new();
    rows.map(|row| {
        let name = if several { format!("{}: ", row.experiment) } else { String::new() };
        let heading = format!("{name}test, {}, {}", row.mode, row.seed);
        let changed = heading != last;
        last.clone_from(&heading);
        RowView {
            heading: changed.then_some(heading),
            slice: row.slice.clone(),
            tasks: row.tasks,
            start: words(&row.start),
            start_step: row.start_step,
            end: words(&row.end),
            end_step: row.end_step,
            change: change_words(row.change.as_ref()),
            whole: row.slice == "all",
        }
    })
    .collect()
}

/// The first table has rows of single seeds only where there is no mean over seeds.
fn is_brief(row: &Row, rows: &[Row]) -> bool {
    let key = |row: &Row| (row.experiment.clone(), row.mode.clone(), row.slice.clone());
    row.averaged || !rows.iter().any(|other| other.averaged && key(other) == key(row))
}

#[derive(Serialize)]
struct Headline {
    experiment: String,
    mode: String,
    /// Absent if there is only one evaluation.
    start: Option<String>,
    end: String,
    interval: String,
    detail: String,
}

/// Start and end of each experiment, sampled and greedy.
fn headlines(rows: &[Row]) -> Vec<Headline> {
    rows.iter()
        .filter(|row| row.slice == "all" && is_brief(row, rows))
        .map(|row| Headline {
            experiment: row.experiment.clone(),
            mode: row.mode.clone(),
            start: (row.start_step != row.end_step).then(|| format!("{:.2}", row.start.mean)),
            end: format!("{:.2}", row.end.mean),
            interval: row.end.interval.map_or_else(String::new, |(low, high)| {
                format!("95 % interval {low:.2} to {high:.2}")
            }),
            detail: format!(
                "{} tasks, step {} to {}, {}",
                row.tasks, row.start_step, row.end_step, row.seed
            ),
        })
        .collect()
}

/// One sentence per experiment: its seeds, steps and rollouts.
fn run_words(experiments: &[RunGroup]) -> Vec<String> {
    experiments
        .iter()
        .map(|experiment| {
            let seeds: Vec<String> = experiment.runs.iter().map(|run| run.seed_label()).collect();
            let steps =
                experiment.runs.iter().filter_map(|run| run.steps.last()).map(|s| s.step).max();
            let rollouts: usize =
                experiment.runs.iter().flat_map(|run| &run.steps).map(|step| step.rollouts).sum();
            format!(
                "{}: {}; {} training steps, {rollouts} training rollouts in all.",
                experiment.name,
                seeds.join(", "),
                steps.unwrap_or(0),
            )
        })
        .collect()
}

#[derive(Serialize)]
pub(crate) struct FigureView {
    wide: String,
    narrow: Option<String>,
    caption: String,
    file: Option<String>,
}

pub(crate) fn figure_view(figure: &Figure, files: bool) -> FigureView {
    let draw = |chart: &Chart, id: &str| render(std::slice::from_ref(chart), 1, Theme::Page, id);
    let large = matches!(figure.section, Section::Reward | Section::Comparison);
    FigureView {
        wide: draw(&figure.chart, &figure.file),
        narrow: large
            .then(|| draw(&figure.chart.sized(NARROW), &format!("{}-narrow", figure.file))),
        caption: figure.caption.clone(),
        file: files.then(|| figure.file.clone()),
    }
}

#[derive(Serialize)]
struct SamplesView {
    run: String,
    #[serde(flatten)]
    view: SampleView,
}

/// Sample rollouts of every run that kept some, in order; the page expands the first.
fn samples(runs: &[&Run], limit: usize) -> Vec<SamplesView> {
    let kept = |run: &&Run| -> Option<(String, Samples)> {
        Some((format!("{}, {}", run.name, run.seed_label()), run.samples.clone()?))
    };
    runs.iter()
        .filter_map(kept)
        .map(|(run, samples)| SamplesView { run, view: transcript::view(&samples, limit) })
        .collect()
}

#[derive(Serialize)]
struct RunView {
    name: String,
    folder: String,
    config: String,
    provenance: Vec<(String, String)>,
}

fn run_view(run: &Run, experiments: &[RunGroup]) -> RunView {
    let mut provenance = Vec::new();
    for (key, value) in &run.provenance {
        walk(key, value, &mut provenance);
    }
    let experiment = experiments
        .iter()
        .find(|e| e.runs.iter().any(|other| std::ptr::eq(*other, run)))
        .map_or(run.name.as_str(), |e| e.name.as_str());
    RunView {
        name: format!("{experiment}, {}", run.seed_label()),
        folder: run.folder.display().to_string(),
        config: run.config_text.clone(),
        provenance,
    }
}

/// JSON as dotted keys and values.
fn walk(prefix: &str, value: &Value, out: &mut Vec<(String, String)>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                walk(&format!("{prefix}.{key}"), value, out);
            }
        }
        Value::String(text) => out.push((prefix.to_owned(), text.clone())),
        other => out.push((prefix.to_owned(), other.to_string())),
    }
}

#[derive(Serialize)]
struct Setting {
    key: String,
    values: Vec<String>,
}

/// Configuration keys in which the runs differ, with each run's value.
fn settings(runs: &[&Run]) -> Vec<Setting> {
    let tables: Vec<BTreeMap<String, String>> =
        runs.iter().map(|run| flatten(&run.config)).collect();
    let keys: std::collections::BTreeSet<&String> =
        tables.iter().flat_map(BTreeMap::keys).collect();
    keys.into_iter()
        .map(|key| Setting {
            key: key.clone(),
            values: tables
                .iter()
                .map(|table| table.get(key).cloned().unwrap_or_else(|| "–".to_owned()))
                .collect(),
        })
        .filter(|setting| setting.values.iter().any(|value| *value != setting.values[0]))
        .collect()
}

#[derive(Serialize)]
struct TimingView {
    run: String,
    total: String,
    parts: Vec<(String, String)>,
    /// Parts of a mean rollout's time, with the median over steps in seconds.
    per_rollout: Vec<(String, String)>,
}

/// Descriptions of the parts of [`Timing::per_rollout`](leyden_core::record::Timing).
const ROLLOUT_PARTS: [(&str, &str); 3] = [
    ("agent", "running the agent and its tools"),
    ("model", "running in the engine, or waiting for it"),
    ("queue", "waiting for a process or a worker"),
];

/// Median over a run's steps of each part of a rollout's time.
fn per_rollout(run: &Run) -> Vec<(String, String)> {
    let median = |part: &str| {
        let mut all: Vec<f64> =
            run.timings.iter().filter_map(|t| t.per_rollout.get(part).copied()).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied()
    };
    ROLLOUT_PARTS
        .iter()
        .filter_map(|(part, what)| Some(((*what).to_owned(), format!("{:.3} s", median(part)?))))
        .collect()
}

/// Time per phase and part of each run, largest first.
fn timings(runs: &[&Run]) -> Vec<TimingView> {
    runs.iter()
        .filter(|run| !run.timings.is_empty())
        .map(|run| {
            let mut sums: BTreeMap<String, f64> = BTreeMap::new();
            for timing in &run.timings {
                for (part, seconds) in &timing.seconds {
                    *sums
                        .entry(format!("{}: {}", timing.phase, part.replace('_', " ")))
                        .or_default() += seconds;
                }
            }
            let total: f64 = sums.values().sum();
            let mut parts: Vec<(String, f64)> = sums.into_iter().collect();
            parts.sort_by(|a, b| b.1.total_cmp(&a.1));
            TimingView {
                run: format!("{}, {}", run.name, run.seed_label()),
                total: duration(total),
                per_rollout: per_rollout(run),
                parts: parts
                    .into_iter()
                    .map(|(part, seconds)| {
                        (
                            part,
                            format!(
                                "{} ({:.0} %)",
                                duration(seconds),
                                100.0 * seconds / total.max(1e-9)
                            ),
                        )
                    })
                    .collect(),
            }
        })
        .collect()
}

pub(crate) fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else if whole < 3600 {
        format!("{} min {:02} s", whole / 60, whole % 60)
    } else {
        format!("{} h {:02} min", whole / 3600, whole / 60 % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_in_two_units() {
        assert_eq!(duration(12.34), "12.3 s");
        assert_eq!(duration(125.0), "2 min 05 s");
        assert_eq!(duration(3725.0), "1 h 02 min");
    }
}
