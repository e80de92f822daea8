//! Charts as SVG text.
//!
//! No plotting library, for three reasons: the page needs colours that follow the reader's light
//! or dark setting (CSS variables), lines need fractional coordinates to be smooth when enlarged,
//! and names must be placed outside the data. One drawing serves the page, the SVG file and,
//! through [`crate::png`], the PNG.
//!
//! This module draws document, frame and legend; `marks` draws the data.

use std::fmt::Write;

use crate::axis::Axis;
use crate::chart::{Chart, Ink, Mark, Scale, Series};
use crate::text::{escape, fit, text_width};

/// Mapping from inks to colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Theme {
    /// CSS variables of the page: `--s0` … `--s7`, `--text`, `--muted`, `--grid`, `--card`.
    Page,
    /// Fixed colours on white, for files.
    Paper,
}

/// Okabe and Ito's palette (2008), distinguishable with all common types of colour vision.
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
}

const FONT: &str = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif";
const TITLE: f64 = 14.0;
const LABEL: f64 = 11.5;
/// Height of a row of the legend, and of the subtitle.
const ROW: f64 = 18.0;

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
        let white = theme.colour(Ink::Background);
        out.push_str(&format!("<rect width=\"100%\" height=\"100%\" fill=\"{white}\"/>\n"));
    }
    for (index, chart) in charts.iter().enumerate() {
        let (x, y) = (cell.0 * (index % columns) as f64, cell.1 * (index / columns) as f64);
        out.push_str(&format!("<g transform=\"translate({x} {y})\">\n"));
        out.push_str(&Drawing::new(chart, theme, format!("{id}-{index}")).draw());
        out.push_str("</g>\n");
    }
    out.push_str("</svg>\n");
    out
}

/// One chart being drawn: its plot area, its axes, and the SVG so far.
pub(crate) struct Drawing<'a> {
    pub chart: &'a Chart,
    theme: Theme,
    id: String,
    legend: Vec<Vec<&'a Series>>,
    x: Axis,
    y: Axis,
    /// Bands are clipped to this range.
    pub limits: (f64, f64),
    /// Left, top, right, bottom of the plot area.
    pub area: (f64, f64, f64, f64),
    out: String,
}

impl<'a> Drawing<'a> {
    fn new(chart: &'a Chart, theme: Theme, id: String) -> Self {
        let points = || chart.series.iter().flat_map(|series| &series.points);
        let x = match &chart.categories {
            Some(names) => Axis::categories(names),
            None => {
                let xs = || points().map(|point| point.x);
                let quantity = Scale::Linear { zero: false, ceiling: None };
                if chart.x_is_quantity {
                    Axis::over(xs(), quantity)
                } else {
                    Axis::steps(xs().fold(0.0, f64::min), xs().fold(0.0, f64::max))
                }
            }
        };
        let limits = limits(chart);
        let bands = points()
            .filter_map(|point| point.interval)
            .flat_map(|(low, high)| [low.max(limits.0), high.min(limits.1)]);
        let levels = chart.levels.iter().map(|level| level.value);
        let y = Axis::over(points().map(|point| point.y).chain(bands).chain(levels), chart.scale);
        let widest = |labels: &mut dyn Iterator<Item = &str>| {
            labels.map(|label| text_width(label, LABEL)).fold(0.0, f64::max)
        };
        let left = 30.0 + widest(&mut y.ticks.iter().map(|(_, label)| label.as_str()));
        let names = widest(&mut chart.levels.iter().map(|level| level.label.as_str()));
        let right = if names > 0.0 { names.min(0.3 * chart.size.0) + 16.0 } else { 16.0 };
        let legend = legend_rows(chart, chart.size.0 - left - 8.0);
        let rows = legend.len() + usize::from(chart.subtitle.is_some());
        let area = (left, 34.0 + ROW * rows as f64, chart.size.0 - right, chart.size.1 - 42.0);
        Self { chart, theme, id, legend, x, y, limits, area, out: String::new() }
    }

    fn draw(mut self) -> String {
        self.titles();
        self.frame();
        self.draw_legend();
        // Dots at the edge may extend slightly beyond the plot area, lines may not.
        let (left, top, right, bottom) = self.area;
        let (width, height) = (right - left + 8.0, bottom - top + 8.0);
        let id = self.id.clone();
        self.put(format_args!(
            "<clipPath id=\"{id}\"><rect x=\"{:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/></clipPath>",
            left - 4.0,
            top - 4.0,
        ));
        self.put(format_args!("<g clip-path=\"url(#{id})\">"));
        self.data();
        self.put(format_args!("</g>"));
        self.levels();
        self.out
    }

    /// One line of SVG. Writing to a `String` cannot fail.
    pub fn put(&mut self, text: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.out, "{text}");
    }

    pub fn fill(&self, ink: Ink) -> String {
        format!("style=\"fill:{}\"", self.theme.colour(ink))
    }

    /// A path without fill; `attributes` in addition to the colour.
    pub fn stroke(&mut self, path: &str, ink: Ink, attributes: &str) {
        let colour = self.theme.colour(ink);
        self.put(format_args!(
            "<path d=\"{path}\"{attributes} style=\"fill:none;stroke:{colour}\"/>"
        ));
    }

    /// Text on one line; `anchor` is start, middle or end.
    pub fn text(&mut self, (x, y): (f64, f64), anchor: &str, ink: Ink, text: &str) {
        let (fill, text) = (self.fill(ink), escape(text));
        self.put(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {fill}>{text}</text>"
        ));
    }

    fn titles(&mut self) {
        let (left, fill) = (self.area.0, self.fill(Ink::Text));
        let available = self.chart.size.0 - left - 8.0;
        // The title is bold; the width estimate is for regular text.
        let title = escape(&fit(&self.chart.title, TITLE * 1.08, available));
        self.put(format_args!(
            "<text x=\"{left:.1}\" y=\"20\" font-size=\"{TITLE}\" font-weight=\"600\" {fill}>{title}</text>"
        ));
        if let Some(subtitle) = &self.chart.subtitle {
            self.text((left, 20.0 + ROW), "start", Ink::Muted, &fit(subtitle, LABEL, available));
        }
    }

    /// Grid, axes and their names.
    fn frame(&mut self) {
        let (left, top, right, bottom) = self.area;
        for (value, label) in self.y.ticks.clone() {
            let y = self.place_y(value).unwrap_or(bottom);
            self.stroke(&format!("M{left:.1} {y:.1}H{right:.1}"), Ink::Grid, "");
            self.text((left - 7.0, y + 4.0), "end", Ink::Muted, &label);
        }
        self.stroke(&format!("M{left:.1} {bottom:.1}H{right:.1}"), Ink::Muted, "");
        let available = (right - left) / self.x.ticks.len().max(1) as f64;
        for (value, label) in self.x.ticks.clone() {
            let x = self.place_x(value);
            if self.chart.categories.is_none() {
                self.stroke(&format!("M{x:.1} {bottom:.1}v4"), Ink::Muted, "");
            }
            self.text((x, bottom + 17.0), "middle", Ink::Muted, &fit(&label, LABEL, available));
        }
        let middle = ((left + right) / 2.0, self.chart.size.1 - 8.0);
        self.text(middle, "middle", Ink::Muted, &self.chart.x_label);
        let (fill, name) = (self.fill(Ink::Muted), escape(&self.chart.y_label));
        self.put(format_args!(
            "<text transform=\"translate(14 {:.1}) rotate(-90)\" text-anchor=\"middle\" {fill}>{name}</text>",
            (top + bottom) / 2.0
        ));
    }

    fn draw_legend(&mut self) {
        let first = if self.chart.subtitle.is_some() { 38.0 + ROW } else { 38.0 };
        for (row, entries) in self.legend.clone().into_iter().enumerate() {
            let (mut x, y) = (self.area.0, first + ROW * row as f64);
            for series in entries {
                let fill = self.fill(series.ink);
                match series.mark {
                    Mark::Line { width, dashed, dots, .. } => {
                        let dashed = dashed || is_repeated(series.ink);
                        let dash = if dashed { " stroke-dasharray=\"5 3\"" } else { "" };
                        let path = format!("M{x:.1} {y:.1}h20");
                        self.stroke(&path, series.ink, &format!(" stroke-width=\"{width}\"{dash}"));
                        if dots {
                            let middle = x + 10.0;
                            self.put(format_args!(
                                "<circle cx=\"{middle:.1}\" cy=\"{y:.1}\" r=\"2.8\" {fill}/>"
                            ));
                        }
                    }
                    Mark::Bars { .. } => self.put(format_args!(
                        "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"12\" height=\"10\" rx=\"1\" {fill}/>",
                        x + 6.0,
                        y - 5.0,
                    )),
                }
                let name = legend_name(series, self.chart.size.0 - self.area.0 - 8.0);
                self.text((x + SWATCH, y + 4.0), "start", Ink::Text, &name);
                x += legend_width(&name);
            }
        }
    }

    /// Width right of the plot area.
    pub fn margin(&self) -> f64 {
        self.chart.size.0 - self.area.2
    }

    pub fn place_x(&self, value: f64) -> f64 {
        let (left, _, right, _) = self.area;
        left + self.x.place(value).unwrap_or(0.0) * (right - left)
    }

    pub fn place_y(&self, value: f64) -> Option<f64> {
        let (_, top, _, bottom) = self.area;
        Some(bottom - self.y.place(value)? * (bottom - top))
    }
}

/// Whether the colour is a repetition; lines are then dashed to distinguish them.
pub(crate) fn is_repeated(ink: Ink) -> bool {
    matches!(ink, Ink::Series(index) if index >= SERIES.len())
}

/// Clipping range of bands. Intervals over few seeds can exceed the range of the quantity: they
/// are clipped at 0 and at the ceiling if no value is beyond; on a log axis at the smallest value.
fn limits(chart: &Chart) -> (f64, f64) {
    let values: Vec<f64> = chart
        .series
        .iter()
        .flat_map(|series| series.points.iter().map(|point| point.y))
        .filter(|y| y.is_finite())
        .collect();
    match chart.scale {
        Scale::Log => {
            let positive = values.iter().copied().filter(|y| *y > 0.0);
            (positive.fold(f64::INFINITY, f64::min), f64::INFINITY)
        }
        Scale::Linear { zero, ceiling } => {
            let floor =
                if zero && values.iter().all(|y| *y >= 0.0) { 0.0 } else { f64::NEG_INFINITY };
            let top = ceiling.filter(|top| values.iter().all(|y| y <= top));
            (floor, top.unwrap_or(f64::INFINITY))
        }
    }
}

/// Width of an entry's line or box.
const SWATCH: f64 = 26.0;

fn legend_rows(chart: &Chart, width: f64) -> Vec<Vec<&Series>> {
    let mut rows: Vec<Vec<&Series>> = Vec::new();
    let mut used = f64::INFINITY;
    for series in chart.series.iter().filter(|series| series.name.is_some()) {
        let needed = legend_width(&legend_name(series, width));
        if used + needed > width {
            rows.push(Vec::new());
            used = 0.0;
        }
        used += needed;
        if let Some(row) = rows.last_mut() {
            row.push(series);
        }
    }
    rows
}

fn legend_name(series: &Series, width: f64) -> String {
    fit(series.name.as_deref().unwrap_or_default(), LABEL, width - SWATCH)
}

fn legend_width(name: &str) -> f64 {
    SWATCH + text_width(name, LABEL) + 16.0
}

/// A level's name, shortened to fit right of the plot area.
pub(crate) fn level_name(label: &str, margin: f64) -> String {
    fit(label, LABEL, margin - 9.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chart::Point;

    /// Text elements of a drawing, in order.
    fn texts(svg: &str) -> Vec<&str> {
        svg.split("</text>")
            .filter_map(|piece| piece.rsplit_once('>').map(|(_, text)| text))
            .filter(|text| !text.trim().is_empty())
            .collect()
    }

    fn chart(scale: Scale, points: Vec<Point>) -> Chart {
        let mut chart = Chart::new("title", "step", "unit");
        chart.scale = scale;
        chart.push(Some("curve"), Ink::Series(0), Mark::CURVE, points);
        chart
    }

    #[test]
    fn a_log_axis_covers_only_the_data() {
        // Regression: a missing interval stretched the axis to 1e-308.
        let points = vec![Point::new(1.0, 2e-9), Point::new(2.0, 0.0), Point::new(3.0, 3e-8)];
        let svg = render(&[chart(Scale::Log, points)], 1, Theme::Paper, "x");
        let ticks: Vec<&str> = texts(&svg).into_iter().filter(|t| t.starts_with("1e-")).collect();
        assert_eq!(ticks, ["1e-9", "1e-8", "1e-7"]);
    }

    #[test]
    fn bands_of_shares_end_at_the_bounds_of_a_share() {
        let point = |x, y| Point { x, y, interval: Some((-0.4, 1.3)) };
        let scale = Scale::Linear { zero: true, ceiling: Some(1.0) };
        let svg =
            render(&[chart(scale, vec![point(0.0, 0.2), point(1.0, 0.9)])], 1, Theme::Paper, "x");
        assert!(texts(&svg).contains(&"1.0") && !svg.contains(">1.2<") && !svg.contains(">-0.2<"));
    }

    #[test]
    fn a_repeated_colour_is_dashed() {
        let mut chart = Chart::new("title", "step", "unit");
        let points = vec![Point::new(0.0, 1.0), Point::new(1.0, 2.0)];
        chart.push(Some("first"), Ink::Series(0), Mark::CURVE, points.clone());
        let dashes = |chart: &Chart| {
            let svg = render(std::slice::from_ref(chart), 1, Theme::Paper, "x");
            svg.matches("stroke-dasharray").count()
        };
        assert_eq!(dashes(&chart), 0);
        chart.push(Some("ninth"), Ink::Series(8), Mark::CURVE, points);
        assert_eq!(dashes(&chart), 2, "in the data and in the legend");
    }

    #[test]
    fn an_axis_of_a_quantity_has_its_own_ticks() {
        let mut chart = chart(Scale::Log, vec![Point::new(0.25, 1.0), Point::new(0.75, 2.0)]);
        chart.x_is_quantity = true;
        let svg = render(&[chart], 1, Theme::Paper, "x");
        assert!(texts(&svg).contains(&"0.5"), "{svg}");
    }

    #[test]
    fn several_charts_share_a_document() {
        let one = chart(Scale::Log, vec![Point::new(0.0, 1.0)]);
        let svg = render(&[one.clone(), one.clone(), one], 3, Theme::Paper, "x");
        assert!(svg.contains("viewBox=\"0 0 1170 258\""));
        assert_eq!(svg.matches("<clipPath").count(), 3);
        for id in ["x-0", "x-1", "x-2"] {
            assert!(svg.contains(&format!("url(#{id})")));
        }
        assert!(crate::png(&svg).unwrap().starts_with(b"\x89PNG"));
    }
}
