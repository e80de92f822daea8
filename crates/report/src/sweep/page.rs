//! The page of a sweep.

use leyden_sweep::State;
use serde::Serialize;

use super::comparison::{Comparison, DIFFERENCE_OF_INTEREST};
use super::load::SweepRuns;
use super::outcome::has_ended;
use super::summary::{Measured, Summary};
use super::tuning::{GridPoint, Tuning};
use super::tuning_tables::{self, point_words};
use super::verdict::VerdictKind;
use super::words::{
    COST, arrival, collapsed_words, cost_words, difference_words, method_words, needed_words,
    p_cell, seeds_words, state_words, threshold_words, words,
};
use crate::error::ReportError;
use crate::figures::{Figure, Section};
use crate::page::{DARK, FigureView, figure_view, fill_in};
use crate::svg::SERIES;
use crate::write::Options;

#[derive(Serialize)]
struct View<'a> {
    title: &'a str,
    light: [&'static str; 8],
    dark: [&'static str; 8],
    about: String,
    variants: Vec<VariantView<'a>>,
    method: String,
    protocol: &'a str,
    by_label: Option<ByLabelView<'a>>,
    threshold: String,
    cost: &'static str,
    difference_of_interest: f64,
    tuning: Option<TuningView>,
    sections: Vec<SectionView>,
    cells: Vec<CellView<'a>>,
    notes: &'a [String],
}

#[derive(Serialize)]
struct VariantView<'a> {
    name: &'a str,
    verdict: &'a str,
    /// CSS class of the verdict: `good`, `bad` or empty.
    mark: &'static str,
    word: String,
    seeds: String,
    collapsed: String,
    final_reward: String,
    iqm: String,
    area: String,
    difference: String,
    p: String,
    adjusted_p: String,
    improvement: String,
    needed: String,
    arrival: String,
    cost: [String; 6],
    overrides: &'a [String],
}

/// The tuning; absent in a sweep without one.
#[derive(Serialize)]
struct TuningView {
    rows: Vec<PointView>,
    words: String,
}

#[derive(Serialize)]
struct PointView {
    variant: String,
    point: String,
    figures: [String; 6],
}

#[derive(Serialize)]
struct ByLabelView<'a> {
    label: &'a str,
    rows: Vec<[String; 7]>,
    method: String,
}

#[derive(Serialize)]
struct SectionView {
    name: &'static str,
    /// Class of the container: `large` or `small`.
    kind: &'static str,
    charts: Vec<FigureView>,
}

#[derive(Serialize)]
struct CellView<'a> {
    id: &'a str,
    state: String,
    steps: Option<u64>,
}

/// The page as HTML.
pub(super) fn page(
    sweep: &SweepRuns,
    (summary, tuning): (&Summary, Option<&Tuning>),
    figures: &[Figure],
    notes: &[String],
    options: &Options,
) -> Result<String, ReportError> {
    let cells = || sweep.variants.iter().flat_map(|variant| &variant.cells);
    let finished = cells().filter(|cell| cell.state == State::Finished).count();
    let failed = cells().filter(|cell| matches!(cell.state, State::Failed(_))).count();
    let open = cells().filter(|cell| !has_ended(cell)).count();
    let preliminary = if open > 0 {
        format!(", {open} not ended, so that all verdicts are preliminary")
    } else {
        String::new()
    };
    let about = format!(
        "{} variants, {} cells: {finished} finished, {failed} failed{preliminary}. Baseline: {}.{}",
        sweep.variants.len(),
        cells().count(),
        sweep.baseline,
        tuning_about(sweep)
    );
    let tuning_cells = sweep.tuning.iter().flat_map(|variant| &variant.cells);
    let view = View {
        title: options.title.as_deref().unwrap_or(&sweep.name),
        light: SERIES,
        dark: DARK,
        about,
        variants: variants(sweep, summary),
        method: method_words(summary),
        protocol: &summary.protocol,
        by_label: summary.by_label.as_ref().map(|by| ByLabelView {
            label: &by.label,
            rows: by.rows(),
            method: by.method(),
        }),
        threshold: threshold_words(summary),
        cost: COST,
        difference_of_interest: DIFFERENCE_OF_INTEREST,
        tuning: tuning.map(|tuning| tuning_view(sweep, tuning)),
        sections: sections(figures, options.files),
        cells: cells()
            .chain(tuning_cells)
            .map(|cell| CellView {
                id: &cell.cell.id,
                state: state_words(&cell.state),
                steps: cell.run.as_ref().and_then(|run| run.steps.last()).map(|step| step.step),
            })
            .collect(),
        notes,
    };
    fill_in("sweep.html", view)
}

/// How far the tuning is; empty in a sweep without one.
fn tuning_about(sweep: &SweepRuns) -> String {
    let cells = || sweep.tuning.iter().flat_map(|variant| &variant.cells);
    let chosen = sweep.tuning.iter().filter(|variant| variant.choice.is_some()).count();
    match cells().count() {
        0 => String::new(),
        all => format!(
            " Tuning: {} of {all} cells ended, points chosen for {chosen} of {} variants.",
            cells().filter(|cell| has_ended(cell)).count(),
            sweep.tuning.len()
        ),
    }
}

fn tuning_view(sweep: &SweepRuns, tuning: &Tuning) -> TuningView {
    let row = |variant: &str, point: &GridPoint| PointView {
        variant: variant.to_owned(),
        point: point_words(point),
        figures: tuning_tables::figures(point),
    };
    let rows = tuning.variants.iter().flat_map(|variant| {
        variant.points.iter().map(|point| row(&variant.name, point)).collect::<Vec<_>>()
    });
    TuningView { rows: rows.collect(), words: tuning_tables::words(sweep, tuning) }
}

fn variants<'a>(sweep: &'a SweepRuns, summary: &'a Summary) -> Vec<VariantView<'a>> {
    let of = |(variant, runs): (&'a super::VariantSummary, &'a super::VariantRuns)| {
        let (mark, word) = match variant.verdict.kind {
            VerdictKind::Baseline => ("", "baseline"),
            VerdictKind::Better => ("good", "better"),
            VerdictKind::Worse => ("bad", "worse"),
            VerdictKind::Undecided => ("", "no difference shown"),
            VerdictKind::Identical => ("", "identical"),
            VerdictKind::TooFew => ("", "too few seeds"),
            VerdictKind::Nothing => ("", "nothing to compare"),
        };
        let preliminary = if variant.verdict.preliminary { "preliminary: " } else { "" };
        let comparison = variant.comparison.as_ref();
        VariantView {
            name: &variant.name,
            verdict: &variant.verdict.words,
            mark,
            word: format!("{preliminary}{word}"),
            seeds: seeds_words(variant),
            collapsed: collapsed_words(variant),
            final_reward: words(variant.final_reward),
            iqm: words(variant.final_iqm.map(Measured::bare)),
            area: words(variant.area),
            difference: difference_words(comparison),
            p: p_cell(comparison.and_then(Comparison::p_value)),
            adjusted_p: p_cell(comparison.and_then(|c| c.adjusted_p)),
            improvement: words(variant.improvement),
            needed: needed_words(comparison),
            arrival: arrival(variant),
            cost: cost_words(variant.cost.as_ref()),
            overrides: &runs.overrides,
        }
    };
    summary.variants.iter().zip(&sweep.variants).map(of).collect()
}

fn sections(figures: &[Figure], files: bool) -> Vec<SectionView> {
    [
        (Section::Comparison, "Comparison", "large"),
        (Section::Reward, "Curves", "large"),
        (Section::Rollouts, "Rollouts", "small"),
        (Section::Health, "Optimisation", "small"),
    ]
    .into_iter()
    .map(|(section, name, kind)| {
        let own = figures.iter().filter(|figure| figure.section == section);
        SectionView { name, kind, charts: own.map(|figure| figure_view(figure, files)).collect() }
    })
    .filter(|section| !section.charts.is_empty())
    .collect()
}
