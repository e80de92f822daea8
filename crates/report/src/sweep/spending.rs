//! Charts of the reward against what the runs have spent, rather than against steps.
//!
//! A step costs more for one variant than for another: a rule that completes rollouts for credit
//! generates several times the tokens of one that does not.

use super::measure::Measures;
use super::summary::{Summary, VariantSummary};
use crate::chart::{Chart, Ink, Mark, Point, Scale};
use crate::figures::{Figure, Section};
use crate::interval::over_seeds;

/// The charts against tokens and, if all runs have timings, against seconds; `shares` if all
/// rewards are between 0 and 1.
pub(super) fn figures(summary: &Summary, shares: bool, size: (f64, f64)) -> Vec<Figure> {
    // As the chart of the reward by step; bands of shares end at 0 and 1.
    let scale = Scale::Linear { zero: true, ceiling: shares.then_some(1.0) };
    let thousands = |measures: &Measures, step| Some(measures.tokens_at(step) / 1e3);
    let tokens = Spent {
        file: "reward_by_tokens",
        title: "Test reward by tokens generated",
        x_label: "thousand tokens generated",
        caption: "Tokens of responses and of completions for credit, up to each evaluation; supervised \
                  steps generate none.",
        amount: &thousands,
    };
    let seconds = Spent {
        file: "reward_by_seconds",
        title: "Test reward by training time",
        x_label: "seconds of training",
        caption: "Seconds of the training steps up to each evaluation. They compare only if the \
                  runs were timed alone on the machine.",
        amount: &Measures::seconds_at,
    };
    let mut found = vec![tokens.figure(summary, scale, size)];
    let measures = || summary.variants.iter().flat_map(|variant| &variant.measures);
    if measures().all(|(_, measures)| measures.seconds_at(summary.end).is_some()) {
        found.push(seconds.figure(summary, scale, size));
    }
    found
}

/// One chart: the reward against an amount.
struct Spent<'a> {
    file: &'a str,
    title: &'a str,
    x_label: &'a str,
    caption: &'a str,
    /// The amount that a run has spent up to a step.
    amount: &'a dyn Fn(&Measures, f64) -> Option<f64>,
}

impl Spent<'_> {
    fn figure(&self, summary: &Summary, scale: Scale, size: (f64, f64)) -> Figure {
        let title = format!("{}, {}", self.title, summary.mode);
        let mut chart = Chart::new(&title, self.x_label, "mean reward");
        (chart.scale, chart.size, chart.x_is_quantity) = (scale, size, true);
        for (index, variant) in summary.variants.iter().enumerate() {
            let name = format!("{} {}", index + 1, variant.name);
            let points = self.curve(variant, summary.end);
            chart.push(Some(&name), Ink::Series(index), Mark::MEASURED, points);
        }
        let caption = format!(
            "{} Both axes: means over seeds at the same evaluation, collapsed runs carried forward \
             at no further cost. Band: 95 % interval of the mean reward (Student's t).",
            self.caption
        );
        let (file, section) = (self.file.to_owned(), Section::Comparison);
        Figure { file, section, chart, caption }
    }

    /// Mean reward against mean amount, at each step that a run was evaluated at, and at the end
    /// if a run did not get there.
    fn curve(&self, variant: &VariantSummary, end: f64) -> Vec<Point> {
        let runs = || variant.measures.iter().map(|(_, measures)| measures);
        let mut steps: Vec<f64> =
            runs().flat_map(|run| run.curve.iter().map(|(step, _)| *step)).collect();
        if runs().any(Measures::is_cut_short) {
            steps.push(end);
        }
        steps.sort_by(f64::total_cmp);
        steps.dedup();
        let point = |step: f64| {
            let spent: Option<Vec<f64>> = runs().map(|run| (self.amount)(run, step)).collect();
            let rewards: Vec<f64> = runs().map(|run| run.reward_at(step)).collect();
            let reward = over_seeds(&rewards);
            // Tooltips show the number as it is.
            let x = (1e3 * leyden_stats::mean(&spent?)?).round() / 1e3;
            Some(Point { x, y: reward.mean, interval: reward.interval })
        };
        steps.into_iter().filter_map(point).collect()
    }
}
