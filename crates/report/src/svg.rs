//! Charts as SVG text.
//!
//! Written by hand rather than by a plotting library for three reasons: the page needs
//! colours that follow the reader's light or dark setting (CSS variables), lines need
//! fractional coordinates to be smooth when enlarged, and names must stand outside the data.
//! One drawing serves the page, the SVG file and, through [`crate::raster`], the PNG.

use std::fmt::Write;

use crate::axis::Axis;
use crate::chart::{Chart, Ink, Level, Mark, Point, Scale, Series};
use crate::text::{escape, significant, text_width};

/// What inks look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Theme {
    /// CSS variables that the page defines: `--s0` … `--s7`, `--text`, `--muted`, `--grid`, `--card`.
    Page,
    /// Fixed colours on white, for files.
    Paper,
}

/// Okabe and Ito's palette (2008), told apart with every common colour vision.
pub(crate) const SERIES: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#4d4d4d"];

impl Theme {
    fn colour(self, ink: Ink) -> String {
        match (self, ink) {
            (Self::Page, Ink::Series(index)) => format!("var(--s{})", index % SERIES.len()),
            (Self::Page, Ink::Text) => "var(--text)".to_owned(),
            (Self::Page, Ink::Muted) => "var(--muted)".to_owned(),
            (Self::Page, Ink::Grid) => "var(--grid)".to_owned(),
            (Self::Page, Ink::Background) => "var(--card)".to_owned(),
            (Self::Paper, Ink::Series(index)) => SERIES[index % SERIES.len()].to_owned(),
            (Self::Paper, Ink::Text) => "#1a1a1a".to_owned(),
            (Self::Paper, Ink::Muted) => "#6b7280".to_owned(),
            (Self::Paper, Ink::Grid) => "#e5e7eb".to_owned(),
            (Self::Paper, Ink::Background) => "#ffffff".to_owned(),
        }
    }

    fn fill(self, ink: Ink) -> String {
        format!("style=\"fill:{}\"", self.colour(ink))
    }

    fn stroke(self, ink: Ink) -> String {
        format!("style=\"fill:none;stroke:{}\"", self.colour(ink))
    }
}

const FONT: &str = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif";
const TITLE: f64 = 14.0;
const LABEL: f64 = 11.5;
const LEGEND_ROW: f64 = 18.0;

/// One or several charts in rows of `columns`, as one SVG document.
///
/// `id` must be unique within an HTML page.
pub fn render(charts: &[Chart], columns: usize, theme: Theme, id: &str) -> String {
    let columns = columns.clamp(1, charts.len().max(1));
    let cell = charts
        .iter()
        .fold((0.0f64, 0.0f64), |cell, chart| (cell.0.max(chart.size.0), cell.1.max(chart.size.1)));
    let (width, height) = (cell.0 * columns as f64, cell.1 * charts.len().div_ceil(columns) as f64);
    let titles: Vec<&str> = charts.iter().map(|chart| chart.title.as_str()).collect();
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" role=\"img\" aria-label=\"{}\" \
         font-family=\"{FONT}\" font-size=\"{LABEL}\">\n",
        escape(&titles.join("; "))
    );
    if theme == Theme::Paper {
        line(
            &mut out,
            format_args!("<rect width=\"100%\" height=\"100%\" {}/>", theme.fill(Ink::Background)),
        );
    }
    for (index, chart) in charts.iter().enumerate() {
        let (x, y) = (cell.0 * (index % columns) as f64, cell.1 * (index / columns) as f64);
        line(&mut out, format_args!("<g transform=\"translate({x} {y})\">"));
        Drawing::new(chart, theme, format!("{id}-{index}")).draw(&mut out);
        line(&mut out, format_args!("</g>"));
    }
    out.push_str("</svg>\n");
    out
}

/// One chart being drawn: its plot area and axes.
struct Drawing<'a> {
    chart: &'a Chart,
    theme: Theme,
    id: String,
    legend: Vec<Vec<&'a Series>>,
    x: Axis,
    y: Axis,
    /// Bands end here.
    limits: (f64, f64),
    /// Left, top, right, bottom of the plot area.
    area: (f64, f64, f64, f64),
}

impl<'a> Drawing<'a> {
    fn new(chart: &'a Chart, theme: Theme, id: String) -> Self {
        let points = || chart.series.iter().flat_map(|series| &series.points);
        let x = match &chart.categories {
            Some(names) => Axis::categories(names),
            None => {
                let xs = || points().map(|point| point.x);
                Axis::steps(xs().fold(0.0, f64::min), xs().fold(0.0, f64::max))
            }
        };
        let limits = limits(chart);
        let bounds = points().flat_map(|point| {
            let (low, high) = point.interval.unwrap_or((f64::NAN, f64::NAN));
            [point.y, low.max(limits.0), high.min(limits.1)]
        });
        let y = Axis::over(bounds.chain(chart.levels.iter().map(|level| level.value)), chart.scale);
        let widest = |labels: &mut dyn Iterator<Item = &str>| {
            labels.map(|label| text_width(label, LABEL)).fold(0.0, f64::max)
        };
        let left = 30.0 + widest(&mut y.ticks.iter().map(|(_, label)| label.as_str()));
        let names = widest(&mut chart.levels.iter().map(|level| level.label.as_str()));
        let right = if names > 0.0 { names + 16.0 } else { 16.0 };
        let legend = legend_rows(chart, chart.size.0 - left - 8.0);
        let top = 34.0 + LEGEND_ROW * legend.len() as f64;
        let area = (left, top, chart.size.0 - right, chart.size.1 - 42.0);
        Self { chart, theme, id, legend, x, y, limits, area }
    }

    fn draw(&self, out: &mut String) {
        self.frame(out);
        self.legend(out);
        let (left, top, right, bottom) = self.area;
        // Dots at the edge may stick out a little, lines outside the range may not.
        line(
            out,
            format_args!(
                "<clipPath id=\"{}\"><rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"/></clipPath>",
                self.id,
                left - 4.0,
                top - 4.0,
                right - left + 8.0,
                bottom - top + 8.0
            ),
        );
        line(out, format_args!("<g clip-path=\"url(#{})\">", self.id));
        for series in &self.chart.series {
            self.band(out, series);
        }
        for series in &self.chart.series {
            match series.mark {
                Mark::Bars { width } => self.bars(out, series, width),
                Mark::Line { .. } => self.curve(out, series),
            }
        }
        line(out, format_args!("</g>"));
        self.levels(out);
    }

    /// Title, grid, axes and their names.
    fn frame(&self, out: &mut String) {
        let (left, top, right, bottom) = self.area;
        let (text, muted) = (self.theme.fill(Ink::Text), self.theme.fill(Ink::Muted));
        let title = escape(&self.chart.title);
        line(
            out,
            format_args!(
                "<text x=\"{:.1}\" y=\"20\" font-size=\"{TITLE}\" font-weight=\"600\" {text}>{title}</text>",
                left
            ),
        );
        for (value, label) in &self.y.ticks {
            let y = self.place_y(*value).unwrap_or(bottom);
            line(
                out,
                format_args!(
                    "<path d=\"M{left:.1} {y:.1}H{right:.1}\" {}/>",
                    self.theme.stroke(Ink::Grid)
                ),
            );
            line(
                out,
                format_args!(
                    "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" {muted}>{}</text>",
                    left - 7.0,
                    y + 4.0,
                    escape(label)
                ),
            );
        }
        line(
            out,
            format_args!(
                "<path d=\"M{left:.1} {bottom:.1}H{right:.1}\" {}/>",
                self.theme.stroke(Ink::Muted)
            ),
        );
        for (value, label) in &self.x.ticks {
            let x = self.place_x(*value);
            if self.chart.categories.is_none() {
                line(
                    out,
                    format_args!(
                        "<path d=\"M{x:.1} {bottom:.1}v4\" {}/>",
                        self.theme.stroke(Ink::Muted)
                    ),
                );
            }
            line(
                out,
                format_args!(
                    "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" {muted}>{}</text>",
                    bottom + 17.0,
                    escape(label)
                ),
            );
        }
        let (middle_x, middle_y) = ((left + right) / 2.0, (top + bottom) / 2.0);
        line(
            out,
            format_args!(
                "<text x=\"{middle_x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" {muted}>{}</text>",
                self.chart.size.1 - 8.0,
                escape(&self.chart.x_label)
            ),
        );
        line(
            out,
            format_args!(
                "<text transform=\"translate(14 {middle_y:.1}) rotate(-90)\" text-anchor=\"middle\" {muted}>{}</text>",
                escape(&self.chart.y_label)
            ),
        );
    }

    fn legend(&self, out: &mut String) {
        for (row, entries) in self.legend.iter().enumerate() {
            let mut x = self.area.0;
            let y = 38.0 + LEGEND_ROW * row as f64;
            for series in entries {
                match series.mark {
                    Mark::Line { width, dashed, dots, .. } => {
                        let dash = if dashed { " stroke-dasharray=\"5 3\"" } else { "" };
                        line(
                            out,
                            format_args!(
                                "<path d=\"M{x:.1} {y:.1}h20\" stroke-width=\"{width}\"{dash} {}/>",
                                self.theme.stroke(series.ink)
                            ),
                        );
                        if dots {
                            line(
                                out,
                                format_args!(
                                    "<circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"2.8\" {}/>",
                                    x + 10.0,
                                    self.theme.fill(series.ink)
                                ),
                            );
                        }
                    }
                    Mark::Bars { .. } => line(
                        out,
                        format_args!(
                            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"12\" height=\"10\" rx=\"1\" {}/>",
                            x + 6.0,
                            y - 5.0,
                            self.theme.fill(series.ink)
                        ),
                    ),
                }
                let name = series.name.as_deref().unwrap_or_default();
                line(
                    out,
                    format_args!(
                        "<text x=\"{:.1}\" y=\"{:.1}\" {}>{}</text>",
                        x + 26.0,
                        y + 4.0,
                        self.theme.fill(Ink::Text),
                        escape(name)
                    ),
                );
                x += legend_width(name);
            }
        }
    }

    fn band(&self, out: &mut String, series: &Series) {
        for run in pieces(&series.points, |point| {
            let (low, high) = point.interval?;
            let (low, high) = (low.max(self.limits.0), high.min(self.limits.1));
            Some((self.place_x(point.x), self.place_y(low)?, self.place_y(high)?))
        }) {
            if run.len() < 2 {
                continue;
            }
            let mut path = String::new();
            for (x, _, high) in &run {
                let _ = write!(path, "{}{x:.1} {high:.1}", if path.is_empty() { 'M' } else { 'L' });
            }
            for (x, low, _) in run.iter().rev() {
                let _ = write!(path, "L{x:.1} {low:.1}");
            }
            line(
                out,
                format_args!(
                    "<path d=\"{path}Z\" fill-opacity=\"0.16\" {}/>",
                    self.theme.fill(series.ink)
                ),
            );
        }
    }

    fn curve(&self, out: &mut String, series: &Series) {
        let Mark::Line { width, opacity, dashed, dots } = series.mark else { return };
        let place = |point: &Point| Some((self.place_x(point.x), self.place_y(point.y)?, *point));
        for run in pieces(&series.points, place) {
            let mut path = String::new();
            for (x, y, _) in &run {
                let _ = write!(path, "{}{x:.1} {y:.1}", if path.is_empty() { 'M' } else { 'L' });
            }
            let dash = if dashed { " stroke-dasharray=\"6 4\"" } else { "" };
            if run.len() > 1 {
                line(
                    out,
                    format_args!(
                        "<path d=\"{path}\" stroke-width=\"{width}\" stroke-opacity=\"{opacity}\" \
                     stroke-linejoin=\"round\" stroke-linecap=\"round\"{dash} {}/>",
                        self.theme.stroke(series.ink)
                    ),
                );
            }
            // A lone point would be invisible as a line.
            if dots || run.len() == 1 {
                for (x, y, point) in &run {
                    line(
                        out,
                        format_args!(
                            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{}\" {}><title>{}</title></circle>",
                            if dots { 2.8 } else { 1.6 },
                            self.theme.fill(series.ink),
                            escape(&self.tip(series, point))
                        ),
                    );
                }
            }
        }
        if let (Some(point), [_]) = (series.points.first(), series.points.as_slice()) {
            self.whisker(out, series, point);
        }
    }

    /// The interval of a series of one point, which has no band.
    fn whisker(&self, out: &mut String, series: &Series, point: &Point) {
        let Some((low, high)) = point.interval else { return };
        let (Some(low), Some(high)) = (self.place_y(low), self.place_y(high)) else { return };
        let x = self.place_x(point.x);
        line(
            out,
            format_args!(
                "<path d=\"M{x:.1} {low:.1}V{high:.1}M{:.1} {low:.1}h8M{:.1} {high:.1}h8\" stroke-width=\"1.4\" {}/>",
                x - 4.0,
                x - 4.0,
                self.theme.stroke(series.ink)
            ),
        );
    }

    fn bars(&self, out: &mut String, series: &Series, width: f64) {
        let zero = self.place_y(0.0).unwrap_or(self.area.3);
        for point in &series.points {
            let Some(y) = self.place_y(point.y) else { continue };
            let (from, to) =
                (self.place_x(point.x - width / 2.0), self.place_x(point.x + width / 2.0));
            line(
                out,
                format_args!(
                    "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" {}><title>{}</title></rect>",
                    from + 0.5,
                    y.min(zero),
                    (to - from - 1.0).max(0.5),
                    (zero - y).abs(),
                    self.theme.fill(series.ink),
                    escape(&self.tip(series, point))
                ),
            );
        }
    }

    /// Reference levels; their names stand right of the data and are pushed apart.
    fn levels(&self, out: &mut String) {
        let mut levels: Vec<(f64, &Level)> = self
            .chart
            .levels
            .iter()
            .filter_map(|level| Some((self.place_y(level.value)?, level)))
            .collect();
        levels.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut free = f64::INFINITY;
        let (left, _, right, _) = self.area;
        for (y, level) in levels {
            line(
                out,
                format_args!(
                    "<path d=\"M{left:.1} {y:.1}H{right:.1}\" stroke-width=\"1.2\" stroke-dasharray=\"7 4\" {}/>",
                    self.theme.stroke(Ink::Muted)
                ),
            );
            let at = (y + 4.0).min(free);
            free = at - 14.0;
            line(
                out,
                format_args!(
                    "<text x=\"{:.1}\" y=\"{at:.1}\" {}>{}</text>",
                    right + 7.0,
                    self.theme.fill(Ink::Muted),
                    escape(&level.label)
                ),
            );
        }
    }

    fn tip(&self, series: &Series, point: &Point) -> String {
        let at = match &self.chart.categories {
            Some(names) => names
                .iter()
                .min_by(|a, b| (a.0 - point.x).abs().total_cmp(&(b.0 - point.x).abs()))
                .map_or_else(String::new, |(_, name)| name.clone()),
            None => format!("{} {}", self.chart.x_label, point.x),
        };
        let name = series.name.as_deref().map_or_else(String::new, |name| format!("{name}, "));
        let value = significant(point.y);
        match point.interval {
            Some((low, high)) => {
                format!("{name}{at}: {value} [{}, {}]", significant(low), significant(high))
            }
            None => format!("{name}{at}: {value}"),
        }
    }

    fn place_x(&self, value: f64) -> f64 {
        let (left, _, right, _) = self.area;
        left + self.x.place(value).unwrap_or(0.0) * (right - left)
    }

    fn place_y(&self, value: f64) -> Option<f64> {
        let (_, top, _, bottom) = self.area;
        Some(bottom - self.y.place(value)? * (bottom - top))
    }
}

/// Where bands end: at 0 and at the ceiling if no value lies beyond, because an interval
/// over few seeds knows nothing of what a share can be.
fn limits(chart: &Chart) -> (f64, f64) {
    let Scale::Linear { zero, ceiling } = chart.scale else {
        return (f64::MIN_POSITIVE, f64::INFINITY);
    };
    let all = |holds: &dyn Fn(f64) -> bool| {
        let values = chart.series.iter().flat_map(|series| &series.points).map(|point| point.y);
        values.filter(|y| y.is_finite()).all(holds)
    };
    let low = if zero && all(&|y| y >= 0.0) { 0.0 } else { f64::NEG_INFINITY };
    let high = ceiling.filter(|top| all(&|y| y <= *top)).unwrap_or(f64::INFINITY);
    (low, high)
}

/// Runs of neighbouring points that have a place; what has none is a gap.
fn pieces<T>(points: &[Point], place: impl Fn(&Point) -> Option<T>) -> Vec<Vec<T>> {
    let (mut runs, mut current) = (Vec::new(), Vec::new());
    for point in points {
        match place(point) {
            Some(placed) => current.push(placed),
            None => runs.push(std::mem::take(&mut current)),
        }
    }
    runs.push(current);
    runs.retain(|run| !run.is_empty());
    runs
}

fn legend_rows(chart: &Chart, width: f64) -> Vec<Vec<&Series>> {
    let mut rows: Vec<Vec<&Series>> = Vec::new();
    let mut used = f64::INFINITY;
    for series in &chart.series {
        let Some(name) = &series.name else { continue };
        let wanted = legend_width(name);
        if used + wanted > width {
            rows.push(Vec::new());
            used = 0.0;
        }
        used += wanted;
        if let Some(row) = rows.last_mut() {
            row.push(series);
        }
    }
    rows
}

fn legend_width(name: &str) -> f64 {
    26.0 + text_width(name, LABEL) + 16.0
}

/// Writing to a `String` cannot fail.
fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = writeln!(out, "{text}");
}
