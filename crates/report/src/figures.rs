//! Selection of the charts in a report.
//!
//! One experiment: rewards of training and of both evaluation modes in one chart. Several
//! experiments: one chart per kind of reward with a colour per experiment, so that a legend
//! never needs two dimensions.

use std::collections::HashSet;

use leyden_core::record::StepRecord;

use crate::chart::{Chart, Ink, Level, Mark, Point, Scale, smooth};
use crate::experiment::{RunGroup, across};
use crate::metric;
use crate::text::significant;

/// A chart with its file name and caption.
#[derive(Debug, Clone)]
pub struct Figure {
    /// Name of the files, without extension.
    pub file: String,
    pub section: Section,
    pub chart: Chart,
    pub caption: String,
}

/// The section of the page that shows a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// Comparison of a sweep's variants.
    Comparison,
    Reward,
    /// The reward of one of several agents, shown side by side.
    Panels,
    Labels,
    Rollouts,
    Health,
}

/// All figures of a report that have data.
pub fn figures(experiments: &[RunGroup]) -> Vec<Figure> {
    let agents = by_agent(experiments);
    let mut found = match &agents[..] {
        [] | [_] => rewards(experiments),
        agents => agents.iter().filter_map(|(agent, members)| panel(agent, members)).collect(),
    };
    found.extend(labels(experiments));
    found.extend(experiments.iter().enumerate().map(|(index, e)| histogram(e, index, experiments)));
    found.extend(metric::figures(experiments));
    found.extend(experiments.iter().enumerate().map(|(index, e)| signals(e, index, experiments)));
    found.retain(|figure| !figure.chart.is_empty());
    // Names that differ only in their special characters must not share a file.
    let mut taken = HashSet::new();
    for figure in &mut found {
        while !taken.insert(figure.file.clone()) {
            figure.file.push('_');
        }
    }
    found
}

/// Experiments by their agent, in order of first appearance: rewards of different agents are
/// different quantities and do not share a chart.
fn by_agent<'a>(experiments: &[RunGroup<'a>]) -> Vec<(String, Vec<RunGroup<'a>>)> {
    let mut agents: Vec<(String, Vec<RunGroup<'a>>)> = Vec::new();
    for experiment in experiments {
        let agent = experiment.agent().to_owned();
        match agents.iter_mut().find(|(known, _)| *known == agent) {
            Some((_, members)) => members.push(experiment.clone()),
            None => agents.push((agent, vec![experiment.clone()])),
        }
    }
    agents
}

/// The reward of one agent among others.
fn panel(agent: &str, members: &[RunGroup]) -> Option<Figure> {
    let mut figure = rewards(members).into_iter().next()?;
    figure.file = format!("reward_{}", slug(agent));
    figure.section = Section::Panels;
    figure.chart.size = Chart::PANEL;
    if members.len() > 1 {
        figure.chart.title = format!("{agent}: {}", figure.chart.title);
    }
    Some(figure)
}

/// Draws the curves of one quantity: each seed thin, their mean with its band.
///
/// Every line chart uses this; sweeps and pages of several agents with a colour per cell.
pub fn draw(chart: &mut Chart, name: &str, ink: Ink, mark: Mark, curves: &[Vec<Point>]) {
    if curves.len() > 1 {
        for curve in curves {
            let bare = curve.iter().map(|point| Point::new(point.x, point.y)).collect();
            chart.push(None, ink, Mark::THIN, bare);
        }
    }
    chart.push(Some(name), ink, mark, across(curves));
}

/// Draws training curves: single steps faint, with a centred mean if there are many steps.
pub(crate) fn draw_smoothed(chart: &mut Chart, name: &str, ink: Ink, curves: &[Vec<Point>]) {
    let reach = reach(curves.iter().map(Vec::len).max().unwrap_or(0));
    let smoothed: Vec<Vec<Point>> = curves.iter().map(|curve| smooth(curve, reach)).collect();
    match curves {
        [only] if reach > 0 => {
            chart.push(None, ink, Mark::THIN, only.clone());
            chart.push(Some(name), ink, Mark::CURVE, smoothed.concat());
        }
        _ => draw(chart, name, ink, Mark::CURVE, &smoothed),
    }
}

/// Neighbours on each side in the smoothed training curve: a fortieth of the run, none in short
/// runs.
fn reach(steps: usize) -> usize {
    if steps < 30 { 0 } else { (steps / 40).clamp(1, 25) }
}

/// Explains on the page how training curves are drawn.
pub(crate) fn smoothing_words(experiments: &[RunGroup]) -> Option<String> {
    let steps = experiments.iter().flat_map(|e| &e.runs).map(|run| run.steps.len()).max()?;
    let window = 2 * reach(steps) + 1;
    let many = experiments.iter().any(|e| e.runs.len() > 1);
    match (window, many) {
        (1, false) => None,
        (1, true) => {
            Some("Thin lines: seeds; thick line: their mean, with its 95 % band.".to_owned())
        }
        (_, false) => Some(format!("Faint: single steps; line: centred mean over {window} steps.")),
        (_, true) => Some(format!(
            "Centred means over {window} steps. Thin lines: seeds; thick line: their mean, with its 95 % band."
        )),
    }
}

/// Caption for charts that draw every seed.
pub(crate) const SEED_LINES: &str = "Thin lines: seeds. Thick line: their mean.";

/// Caption that explains the bands.
pub(crate) fn band_words(experiments: &[RunGroup]) -> String {
    let most = experiments.iter().map(|e| e.runs.len()).max().unwrap_or(0);
    if most > 1 {
        let seeds: Vec<String> = experiments.iter().map(|e| e.runs.len().to_string()).collect();
        let equal = seeds.iter().all(|n| *n == seeds[0]);
        let n = if equal { seeds[0].clone() } else { seeds.join(", ") };
        format!("{SEED_LINES} Band: 95 % interval of the mean over seeds (Student's t, n = {n}).")
    } else {
        "Band: 95 % interval over test items.".to_owned()
    }
}

fn rewards(experiments: &[RunGroup]) -> Vec<Figure> {
    let kinds = [
        ("reward", "Test reward, sampled", "sampled"),
        ("reward_greedy", "Test reward, greedy", "greedy"),
        ("reward_train", "Train reward", "train"),
    ];
    let levels = levels(experiments);
    let figure = |file: &str, mut chart: Chart, caption: String| {
        chart.scale = Scale::Linear { zero: true, ceiling: Some(1.0) };
        chart.size = Chart::LARGE;
        chart.levels.clone_from(&levels);
        Figure { file: file.to_owned(), section: Section::Reward, chart, caption }
    };
    let band = band_words(experiments);
    if let [experiment] = experiments {
        let mut chart = Chart::new(&format!("{}: reward", experiment.name), "step", "mean reward");
        draw_smoothed(&mut chart, "train", Ink::Muted, &experiment.step_curves(train_reward));
        // A third band would obscure those of the evaluations.
        for point in chart.series.iter_mut().flat_map(|series| &mut series.points) {
            point.interval = None;
        }
        let greedy = experiment.reward_curves("greedy");
        draw(&mut chart, "test, greedy", Ink::Series(1), Mark::MEASURED, &greedy);
        let sampled = experiment.reward_curves("sampled");
        draw(&mut chart, "test, sampled", Ink::Series(0), Mark::MEASURED, &sampled);
        chart.series.retain(|series| series.points.iter().any(|point| point.y.is_finite()));
        return vec![figure("reward", chart, band)];
    }
    kinds
        .into_iter()
        .map(|(file, title, kind)| {
            let mut chart = Chart::new(title, "step", "mean reward");
            for (index, experiment) in experiments.iter().enumerate() {
                let ink = Ink::Series(index);
                if kind == "train" {
                    let curves = experiment.step_curves(train_reward);
                    draw_smoothed(&mut chart, &experiment.name, ink, &curves);
                } else {
                    let curves = experiment.reward_curves(kind);
                    draw(&mut chart, &experiment.name, ink, Mark::MEASURED, &curves);
                }
            }
            let caption = if kind == "train" { String::new() } else { band.clone() };
            figure(file, chart, caption)
        })
        .collect()
}

/// Mean reward of a step's rollouts; a gap if there are none, as in supervised steps.
fn train_reward(step: &StepRecord) -> f64 {
    if step.rollouts > step.rollouts_without_reward { step.reward_mean } else { f64::NAN }
}

/// The distinct reference levels of all configurations.
fn levels(experiments: &[RunGroup]) -> Vec<Level> {
    let mut found: Vec<Level> = Vec::new();
    for level in experiments.iter().flat_map(|e| e.runs.iter().flat_map(|run| run.levels())) {
        let label = format!("{}: {}", level.label, significant(level.value));
        if !found.iter().any(|known| known.label == label) {
            found.push(Level { label, value: level.value });
        }
    }
    found
}

/// Maximum number of curves in one chart; labels with more values are in the table only.
const MOST_CURVES: usize = 12;

/// One chart per label, from the sampled evaluations if there are any.
fn labels(experiments: &[RunGroup]) -> Vec<Figure> {
    let mut found = Vec::new();
    for (index, experiment) in experiments.iter().enumerate() {
        let sampled = experiment.runs.iter().any(|run| run.evals("sampled").next().is_some());
        let mode = if sampled { "sampled" } else { "greedy" };
        let few = experiment.labels().into_iter().filter(|(_, values)| values.len() <= MOST_CURVES);
        for (label, values) in few {
            let title = format!("Test reward ({mode}) by {}", words(&label));
            let mut chart = Chart::new(&title, "step", "mean reward");
            chart.subtitle = subtitle(experiment, experiments);
            chart.scale = Scale::Linear { zero: true, ceiling: Some(1.0) };
            for (colour, value) in values.iter().enumerate() {
                let curves = experiment.label_curves(mode, &label, value);
                draw(&mut chart, &words(value), Ink::Series(colour), Mark::MEASURED, &curves);
            }
            found.push(Figure {
                file: numbered(&format!("by_{}", slug(&label)), index, experiments),
                section: Section::Labels,
                chart,
                caption: band_words(std::slice::from_ref(experiment)),
            });
        }
    }
    found
}

/// Share of rollouts by reward, first versus last training steps.
fn histogram(experiment: &RunGroup, index: usize, experiments: &[RunGroup]) -> Figure {
    let steps = experiment.runs.iter().map(|run| run.steps.len()).max().unwrap_or(0);
    let span = (steps / 10).clamp(1, 10).min(steps.max(1));
    let pooled = |last: bool| -> Vec<(f64, usize)> {
        experiment
            .runs
            .iter()
            .flat_map(|run| {
                let span = span.min(run.steps.len());
                if last { &run.steps[run.steps.len() - span..] } else { &run.steps[..span] }
            })
            .flat_map(|step| step.reward_histogram.iter().copied())
            .collect()
    };
    let (first, last) = (pooled(false), pooled(true));
    let bins = Bins::over(first.iter().chain(&last).map(|(reward, _)| *reward));
    let mut chart = Chart::new("Rewards of training rollouts", "reward", "share of rollouts");
    chart.subtitle = subtitle(experiment, experiments);
    chart.scale = Scale::Linear { zero: true, ceiling: Some(1.0) };
    chart.categories = Some(bins.names());
    let few = |word: &str| match span {
        1 => format!("{word} step"),
        span => format!("{word} {span} steps"),
    };
    let sides = [(first, "first", -0.2, Ink::Muted), (last, "last", 0.2, Ink::Series(0))];
    for (counts, word, offset, ink) in sides {
        let points = bins.shares(&counts, offset);
        chart.push(Some(&few(word)), ink, Mark::Bars { width: 0.4 }, points);
    }
    Figure {
        file: numbered("reward_histogram", index, experiments),
        section: Section::Rollouts,
        chart,
        caption: String::new(),
    }
}

/// Bins of a reward histogram: the values themselves if there are few, otherwise ten intervals.
enum Bins {
    Values(Vec<f64>),
    Intervals { low: f64, width: f64 },
}

impl Bins {
    fn over(rewards: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = rewards.filter(|reward| reward.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        values.dedup();
        match (values.first(), values.last()) {
            (Some(low), Some(high)) if values.len() > 8 => {
                Self::Intervals { low: *low, width: (high - low) / 10.0 }
            }
            _ => Self::Values(values),
        }
    }

    fn names(&self) -> Vec<(f64, String)> {
        match self {
            Self::Values(values) => values
                .iter()
                .enumerate()
                .map(|(index, value)| (index as f64, significant(*value)))
                .collect(),
            Self::Intervals { low, width } => (0..10u32)
                .map(|index| {
                    let from = low + width * f64::from(index);
                    (f64::from(index), format!("{from:.1}–"))
                })
                .collect(),
        }
    }

    fn shares(&self, counts: &[(f64, usize)], offset: f64) -> Vec<Point> {
        let total: usize = counts.iter().map(|(_, count)| count).sum();
        let mut sums = vec![0usize; self.names().len()];
        for (reward, count) in counts {
            let index = match self {
                Self::Values(values) => values.iter().position(|value| value == reward),
                Self::Intervals { low, width } => {
                    Some((((reward - low) / width) as usize).min(sums.len() - 1))
                }
            };
            if let Some(sum) = index.and_then(|index| sums.get_mut(index)) {
                *sum += count;
            }
        }
        sums.into_iter()
            .enumerate()
            .map(|(index, count)| {
                Point::new(index as f64 + offset, count as f64 / total.max(1) as f64)
            })
            .collect()
    }
}

/// Signals of training rollouts by kind, the eight most frequent.
fn signals(experiment: &RunGroup, index: usize, experiments: &[RunGroup]) -> Figure {
    let mut totals: std::collections::BTreeMap<&str, usize> = std::collections::BTreeMap::new();
    for step in experiment.runs.iter().flat_map(|run| &run.steps) {
        for (kind, count) in &step.signals {
            *totals.entry(kind).or_default() += count;
        }
    }
    let mut kinds: Vec<(&str, usize)> = totals.into_iter().filter(|(_, n)| *n > 0).collect();
    kinds.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    let mut chart = Chart::new("Signals", "step", "per rollout");
    chart.subtitle = subtitle(experiment, experiments);
    for (colour, (kind, _)) in kinds.into_iter().take(8).enumerate() {
        let curves = experiment
            .step_curves(|step| share(step.signals.get(kind).copied().unwrap_or(0), step.rollouts));
        draw_smoothed(&mut chart, &words(kind), Ink::Series(colour), &curves);
    }
    Figure {
        file: numbered("signals", index, experiments),
        section: Section::Rollouts,
        chart,
        caption: "Events of training rollouts that are available without the reward.".to_owned(),
    }
}

pub(crate) fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { f64::NAN } else { part as f64 / whole as f64 }
}

/// The experiment's name if several share a page.
fn subtitle(experiment: &RunGroup, experiments: &[RunGroup]) -> Option<String> {
    (experiments.len() > 1).then(|| experiment.name.clone())
}

/// File name of a per-experiment figure, numbered if there are several experiments.
fn numbered(file: &str, index: usize, experiments: &[RunGroup]) -> String {
    if experiments.len() == 1 { file.to_owned() } else { format!("{file}_{}", index + 1) }
}

/// An identifier as words.
pub(crate) fn words(name: &str) -> String {
    name.replace('_', " ")
}

/// An identifier as a title: its words, the first capitalised.
pub(crate) fn title(name: &str) -> String {
    let words = words(name);
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// A safe file name, short enough for every file system.
pub(crate) fn slug(name: &str) -> String {
    let safe = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '_' };
    name.chars().take(60).map(safe).collect::<String>().to_lowercase()
}
