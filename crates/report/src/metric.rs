//! The metrics of training steps that are charted, with units.
//!
//! A new metric is a new table entry. Charts of metrics that are 0 throughout are omitted, except
//! where 0 is informative.

use leyden_core::record::StepRecord;

use crate::chart::{Chart, Ink, Scale};
use crate::experiment::RunGroup;
use crate::figures::{Figure, Section, draw_smoothed, share, slug, title};

/// All charts of training metrics, including algorithm-specific ones.
pub(crate) fn figures(experiments: &[RunGroup]) -> Vec<Figure> {
    let mut found: Vec<Figure> =
        METRICS.iter().flat_map(|metric| metric.figures(experiments)).collect();
    found.extend(extras(experiments));
    found
}

type Part = (&'static str, fn(&StepRecord) -> f64);

/// One chart of training metrics: one to three curves of the same unit.
struct Metric {
    file: &'static str,
    section: Section,
    title: &'static str,
    y_label: &'static str,
    scale: Scale,
    parts: &'static [Part],
    /// Shown even if it is 0 throughout, because 0 is informative.
    always: bool,
    caption: &'static str,
}

const FROM_ZERO: Scale = Scale::Linear { zero: true, ceiling: None };
const SHARE: Scale = Scale::Linear { zero: true, ceiling: Some(1.0) };
const FREE: Scale = Scale::Linear { zero: false, ceiling: None };

#[rustfmt::skip]
const METRICS: &[Metric] = &[
    Metric { file: "response_length", section: Section::Rollouts, title: "Response length", y_label: "tokens", scale: FROM_ZERO, always: true,
        parts: &[("tokens of a response", |s| s.response_length)], caption: "Mean tokens of one model call." },
    Metric { file: "calls_per_rollout", section: Section::Rollouts, title: "Model calls of a rollout", y_label: "calls", scale: FROM_ZERO, always: true,
        parts: &[("calls", |s| s.calls_per_rollout)], caption: "" },
    Metric { file: "groups", section: Section::Rollouts, title: "Groups without a learning signal", y_label: "share of groups", scale: SHARE, always: true,
        parts: &[("all rewards equal", |s| share(s.groups_without_variance, s.tasks)), ("one rollout only", |s| share(s.groups_of_one, s.tasks))],
        caption: "Groups without variance have advantage 0." },
    Metric { file: "left_out", section: Section::Rollouts, title: "Excluded and truncated", y_label: "share", scale: SHARE, always: false,
        parts: &[("rollouts without reward", |s| share(s.rollouts_without_reward, s.rollouts)), ("responses truncated", |s| s.truncated)],
        caption: "Rollouts without a reward are excluded from training." },
    Metric { file: "entropy", section: Section::Health, title: "Entropy", y_label: "nats per token", scale: FROM_ZERO, always: true,
        parts: &[("entropy", |s| s.entropy)], caption: "Mean over action tokens." },
    Metric { file: "sampler", section: Section::Health, title: "Sampler versus trainer", y_label: "KL in nats; largest gap", scale: Scale::Log, always: true,
        parts: &[("KL, k3 estimate", |s| s.sampler_kl), ("largest log-probability gap", |s| s.sampler_gap)],
        caption: "Should stay at rounding level. Values of 0 cannot be shown on this axis." },
    Metric { file: "sampler_outside", section: Section::Health, title: "Ratio to sampler outside [0.9, 1.1]", y_label: "share of tokens", scale: SHARE, always: false,
        parts: &[("tokens outside", |s| s.sampler_outside)], caption: "" },
    Metric { file: "grad_norm", section: Section::Health, title: "Gradient norm", y_label: "norm before clipping", scale: FROM_ZERO, always: true,
        parts: &[("gradient norm", |s| s.grad_norm)], caption: "" },
    Metric { file: "clip_fraction", section: Section::Health, title: "Clipped tokens", y_label: "share of tokens", scale: SHARE, always: false,
        parts: &[("ratio clipped", |s| s.clip_fraction)], caption: "" },
    Metric { file: "loss", section: Section::Health, title: "Policy loss", y_label: "loss", scale: FREE, always: false,
        parts: &[("loss", |s| s.loss)], caption: "Not a measure of progress: its scale changes with the advantages." },
    Metric { file: "learning_rate", section: Section::Health, title: "Learning rate", y_label: "learning rate", scale: FROM_ZERO, always: false,
        parts: &[("learning rate", |s| s.learning_rate)], caption: "" },
    Metric { file: "tokens", section: Section::Health, title: "Tokens of a training step", y_label: "tokens", scale: FROM_ZERO, always: false,
        parts: &[("one row per call", |s| s.row_tokens as f64), ("prefixes merged", |s| s.packed_tokens as f64), ("with a gradient", |s| s.action_tokens as f64)], caption: "" },
];

/// Title and unit of algorithm-specific metrics; those not listed here are titled by their keys.
#[rustfmt::skip]
const EXTRAS: &[(&str, &str, &str)] = &[
    ("prompts_extended", "Prompts extended", "prompts"),
    ("prompts_rewritten", "Prompts rewritten", "prompts"),
    ("groups_left_out", "Groups excluded", "groups"),
    ("skipped_updates", "Updates skipped for lack of rows", "updates"),
    ("sampler_chi2", "χ² of trainer to sampler, by token", "χ² divergence"),
    ("sampler_chi2_sequence", "χ² of trainer to sampler, by response", "χ² divergence"),
    ("sampler_perplexity_ratio", "Perplexity, trainer over sampler", "ratio"),
    ("sampler_effective_share", "Effective sample size", "share of tokens"),
    ("correction_beyond", "Weights beyond the correction's bounds", "share"),
    ("correction_rejected", "Tokens that the correction rejects", "share"),
    ("staleness_mean", "Staleness of the samples, mean", "updates"),
    ("staleness_max", "Staleness of the samples, maximum", "updates"),
    ("groups_replayed", "Groups of earlier steps", "groups"),
    ("critic_loss", "Critic loss", "loss"),
    ("critic_explained_variance", "Explained variance of the critic", "share of variance"),
    ("critic_grad_norm", "Gradient norm of the critic", "norm before clipping"),
    ("critic_warmup", "Warm-up of the critic, without updates of the policy", "steps"),
    ("reward_seen_mean", "Reward used in training", "mean reward"),
    ("reference_kl", "KL to the reference policy", "nats per token"),
    ("kl_coefficient", "KL coefficient", "coefficient"),
    ("levels_open", "Open levels of the curriculum", "levels"),
    ("level_success", "Success on the highest open level", "mean reward"),
];

impl Metric {
    /// One chart; for several experiments one per part, with a colour per experiment.
    fn figures(&self, experiments: &[RunGroup]) -> Vec<Figure> {
        let has_data = |part: &Part| {
            experiments
                .iter()
                .flat_map(|e| e.step_curves(part.1))
                .flatten()
                .any(|p| p.y.is_finite() && p.y != 0.0)
        };
        let parts: Vec<&Part> = self.parts.iter().filter(|part| has_data(part)).collect();
        let rollouts = experiments
            .iter()
            .flat_map(|e| &e.runs)
            .any(|run| run.steps.iter().any(|s| s.rollouts > 0));
        let parts =
            if parts.is_empty() && self.always && rollouts { vec![&self.parts[0]] } else { parts };
        if experiments.len() == 1 {
            return (!parts.is_empty())
                .then(|| self.figure(self.file.to_owned(), experiments, &parts))
                .into_iter()
                .collect();
        }
        let single = self.parts.len() == 1;
        let figure = |part: &&Part| {
            let file = if single {
                self.file.to_owned()
            } else {
                format!("{}_{}", self.file, slug(part.0))
            };
            let mut figure = self.figure(file, experiments, &[part]);
            figure.chart.subtitle = (!single).then(|| part.0.to_owned());
            figure
        };
        parts.iter().map(figure).collect()
    }

    fn figure(&self, file: String, experiments: &[RunGroup], parts: &[&Part]) -> Figure {
        let mut chart = Chart::new(self.title, "step", self.y_label);
        chart.scale = self.scale;
        for (index, experiment) in experiments.iter().enumerate() {
            for (number, part) in parts.iter().enumerate() {
                let (name, ink) = if experiments.len() == 1 {
                    (part.0, Ink::Series(number))
                } else {
                    (experiment.name.as_str(), Ink::Series(index))
                };
                let curves = experiment.step_curves(part.1);
                draw_smoothed(&mut chart, name, ink, &curves);
            }
        }
        drop_redundant_legend(&mut chart);
        Figure { file, section: self.section, chart, caption: self.caption.to_owned() }
    }
}

/// A single curve needs no legend: the title names it.
fn drop_redundant_legend(chart: &mut Chart) {
    if chart.series.iter().filter(|series| series.name.is_some()).count() == 1 {
        chart.series.iter_mut().for_each(|series| series.name = None);
    }
}

/// One chart per algorithm-specific metric.
fn extras(experiments: &[RunGroup]) -> Vec<Figure> {
    let keys: std::collections::BTreeSet<&String> = experiments
        .iter()
        .flat_map(|e| &e.runs)
        .flat_map(|run| run.steps.iter().flat_map(|step| step.extra.keys()))
        .collect();
    let figure = |key: &String| {
        let known = EXTRAS.iter().find(|(name, _, _)| name == key);
        let named = known.map(|(_, name, unit)| ((*name).to_owned(), *unit));
        let (name, unit) = named.unwrap_or_else(|| (title(key), ""));
        let mut chart = Chart::new(&name, "step", unit);
        chart.scale = FREE;
        for (index, experiment) in experiments.iter().enumerate() {
            let curves =
                experiment.step_curves(|step| step.extra.get(key).copied().unwrap_or(f64::NAN));
            let ink = Ink::Series(index);
            draw_smoothed(&mut chart, &experiment.name, ink, &curves);
        }
        drop_redundant_legend(&mut chart);
        Figure {
            file: format!("extra_{}", slug(key)),
            section: Section::Health,
            chart,
            caption: String::new(),
        }
    };
    keys.into_iter().map(figure).collect()
}
