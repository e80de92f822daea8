//! The data of a chart: bands, curves, bars and reference levels.

use std::fmt::Write;

use crate::chart::{Ink, Level, Mark, Point, Series};
use crate::svg::{Drawing, is_repeated, level_name};
use crate::text::{escape, significant};

impl Drawing<'_> {
    /// All series, bands below everything else.
    pub fn data(&mut self) {
        let chart = self.chart;
        for series in &chart.series {
            self.band(series);
        }
        for series in &chart.series {
            match series.mark {
                Mark::Bars { width } => self.bars(series, width),
                Mark::Line { width, opacity, dashed, dots } => {
                    let dashed = dashed || is_repeated(series.ink);
                    let dash = if dashed { " stroke-dasharray=\"6 4\"" } else { "" };
                    let attributes = format!(
                        " stroke-width=\"{width}\" stroke-opacity=\"{opacity}\" \
                         stroke-linejoin=\"round\" stroke-linecap=\"round\"{dash}"
                    );
                    self.curve(series, &attributes, dots);
                }
            }
        }
    }

    fn band(&mut self, series: &Series) {
        let limits = self.limits;
        let place = |point: &Point| {
            let (low, high) = point.interval?;
            let (low, high) = (self.place_y(low.max(limits.0))?, self.place_y(high.min(limits.1))?);
            Some((self.place_x(point.x), low, high))
        };
        for run in pieces(&series.points, place).into_iter().filter(|run| run.len() > 1) {
            let upper = run.iter().map(|(x, _, high)| (*x, *high));
            let lower = run.iter().rev().map(|(x, low, _)| (*x, *low));
            let (path, fill) = (path(upper.chain(lower)), self.fill(series.ink));
            self.put(format_args!("<path d=\"{path}Z\" fill-opacity=\"0.16\" {fill}/>"));
        }
    }

    fn curve(&mut self, series: &Series, attributes: &str, dots: bool) {
        let place = |point: &Point| Some((self.place_x(point.x), self.place_y(point.y)?, *point));
        let fill = self.fill(series.ink);
        for run in pieces(&series.points, place) {
            if run.len() > 1 {
                let path = path(run.iter().map(|(x, y, _)| (*x, *y)));
                self.stroke(&path, series.ink, attributes);
            }
            // A single point would be invisible as a line.
            if dots || run.len() == 1 {
                let radius = if dots { 2.8 } else { 1.6 };
                for (x, y, point) in &run {
                    let tip = escape(&self.tip(series, point));
                    self.put(format_args!(
                        "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" {fill}><title>{tip}</title></circle>"
                    ));
                }
            }
        }
        if let [point] = series.points.as_slice() {
            self.whisker(series, point);
        }
    }

    /// The interval of a series of one point, which has no band.
    fn whisker(&mut self, series: &Series, point: &Point) {
        let Some((low, high)) = point.interval else { return };
        let (Some(low), Some(high)) =
            (self.place_y(low.max(self.limits.0)), self.place_y(high.min(self.limits.1)))
        else {
            return;
        };
        let x = self.place_x(point.x);
        let end = x - 4.0;
        let path = format!("M{x:.1} {low:.1}V{high:.1}M{end:.1} {low:.1}h8M{end:.1} {high:.1}h8");
        self.stroke(&path, series.ink, " stroke-width=\"1.4\"");
    }

    fn bars(&mut self, series: &Series, width: f64) {
        let zero = self.place_y(0.0).unwrap_or(self.area.3);
        let fill = self.fill(series.ink);
        for point in &series.points {
            let Some(y) = self.place_y(point.y) else { continue };
            let from = self.place_x(point.x - width / 2.0) + 0.5;
            let wide = (self.place_x(point.x + width / 2.0) - 0.5 - from).max(0.5);
            let (top, high) = (y.min(zero), (zero - y).abs());
            let tip = escape(&self.tip(series, point));
            self.put(format_args!(
                "<rect x=\"{from:.1}\" y=\"{top:.1}\" width=\"{wide:.1}\" height=\"{high:.1}\" {fill}><title>{tip}</title></rect>"
            ));
        }
    }

    /// Reference levels; their names are right of the data, moved apart to avoid overlap.
    pub fn levels(&mut self) {
        let chart = self.chart;
        let mut levels: Vec<(f64, &Level)> = chart
            .levels
            .iter()
            .filter_map(|level| Some((self.place_y(level.value)?, level)))
            .collect();
        levels.sort_by(|a, b| b.0.total_cmp(&a.0));
        let (left, _, right, _) = self.area;
        let mut free = f64::INFINITY;
        for (y, level) in levels {
            let path = format!("M{left:.1} {y:.1}H{right:.1}");
            self.stroke(&path, Ink::Muted, " stroke-width=\"1.2\" stroke-dasharray=\"7 4\"");
            let at = (y + 4.0).min(free);
            free = at - 14.0;
            let name = level_name(&level.label, self.margin());
            self.text((right + 7.0, at), "start", Ink::Muted, &name);
        }
    }

    /// Tooltip of a mark.
    fn tip(&self, series: &Series, point: &Point) -> String {
        let distance = |place: f64| (place - point.x).abs();
        let at = match &self.chart.categories {
            Some(names) => names
                .iter()
                .min_by(|a, b| distance(a.0).total_cmp(&distance(b.0)))
                .map_or_else(String::new, |(_, name)| name.clone()),
            None => format!("{} {}", self.chart.x_label, point.x),
        };
        let name = series.name.as_deref().map_or_else(String::new, |name| format!("{name}, "));
        let interval = point.interval.map_or_else(String::new, |(low, high)| {
            format!(" [{}, {}]", significant(low), significant(high))
        });
        format!("{name}{at}: {}{interval}", significant(point.y))
    }
}

/// SVG path of straight lines through positions.
fn path(places: impl Iterator<Item = (f64, f64)>) -> String {
    let mut path = String::new();
    for (x, y) in places {
        let _ = write!(path, "{}{x:.1} {y:.1}", if path.is_empty() { 'M' } else { 'L' });
    }
    path
}

/// Runs of adjacent points that have a position; points without one are gaps.
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
