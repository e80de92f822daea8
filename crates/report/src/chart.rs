//! A chart as data: what is drawn, not how.
//!
//! Separate from the drawing, so that curves of runs, sweeps and several agents are built from
//! the same parts and tested as numbers.

/// A colour by its role in the chart; the theme maps it to a concrete colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    /// Colour of the n-th series compared, from a palette safe for colour-blind readers.
    Series(usize),
    Text,
    /// Secondary elements: axes, reference levels, background curves.
    Muted,
    Grid,
    Background,
}

/// How the points of a series are shown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mark {
    Line {
        width: f64,
        opacity: f64,
        dashed: bool,
        /// A dot on each point, for evaluations, which have few points.
        dots: bool,
    },
    /// Bars centred on x, `width` in units of x.
    Bars { width: f64 },
}

impl Mark {
    /// A curve of many points.
    pub const CURVE: Self = Self::Line { width: 1.8, opacity: 1.0, dashed: false, dots: false };
    /// A curve of few points, each expensive to measure.
    pub const MEASURED: Self = Self::Line { width: 2.0, opacity: 1.0, dashed: false, dots: true };
    /// One seed of several, or values before smoothing.
    pub const THIN: Self = Self::Line { width: 0.9, opacity: 0.42, dashed: false, dots: false };
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    pub x: f64,
    /// Not finite: a gap in the curve.
    pub y: f64,
    /// Bounds of the band around y.
    pub interval: Option<(f64, f64)>,
}

impl Point {
    pub fn new(x: f64, y: f64) -> Self {
        Self { x, y, interval: None }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Name in the legend; a series without one is not listed.
    pub name: Option<String>,
    pub ink: Ink,
    pub mark: Mark,
    pub points: Vec<Point>,
}

/// A dashed horizontal line with its name at the right edge.
#[derive(Debug, Clone, PartialEq)]
pub struct Level {
    pub label: String,
    pub value: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scale {
    /// Covers the data; `zero` includes 0; a `ceiling` is not exceeded by the axis.
    Linear { zero: bool, ceiling: Option<f64> },
    /// Decades; values that are not positive are left out.
    Log,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    pub title: String,
    /// Text below the title, such as the experiment's name.
    pub subtitle: Option<String>,
    pub x_label: String,
    pub y_label: String,
    pub scale: Scale,
    /// Whether x is a quantity rather than a step number starting at 0.
    pub x_is_quantity: bool,
    /// Names instead of numbers below the x axis, at these positions.
    pub categories: Option<Vec<(f64, String)>>,
    pub series: Vec<Series>,
    pub levels: Vec<Level>,
    /// Width and height in CSS pixels.
    pub size: (f64, f64),
}

impl Chart {
    /// Size of one of several charts side by side; the text stays readable on a phone.
    pub const SMALL: (f64, f64) = (390.0, 258.0);
    /// Size of one of several charts of equal rank in a row.
    pub const PANEL: (f64, f64) = (430.0, 330.0);
    /// Size of a page's main chart.
    pub const LARGE: (f64, f64) = (860.0, 430.0);

    pub fn new(title: &str, x_label: &str, y_label: &str) -> Self {
        Self {
            title: title.to_owned(),
            subtitle: None,
            x_label: x_label.to_owned(),
            y_label: y_label.to_owned(),
            scale: Scale::Linear { zero: true, ceiling: None },
            x_is_quantity: false,
            categories: None,
            series: Vec::new(),
            levels: Vec::new(),
            size: Self::SMALL,
        }
    }

    /// The same chart in another size.
    #[must_use]
    pub fn sized(&self, size: (f64, f64)) -> Self {
        Self { size, ..self.clone() }
    }

    pub fn push(&mut self, name: Option<&str>, ink: Ink, mark: Mark, points: Vec<Point>) {
        self.series.push(Series { name: name.map(str::to_owned), ink, mark, points });
    }

    /// True if no series has a point that can be shown.
    pub fn is_empty(&self) -> bool {
        self.series.iter().all(|series| series.points.iter().all(|point| !point.y.is_finite()))
    }
}

/// Mean over each point and up to `reach` neighbours on both sides, ignoring gaps. Centred,
/// because a trailing mean shows a rise too late.
pub fn smooth(points: &[Point], reach: usize) -> Vec<Point> {
    points
        .iter()
        .enumerate()
        .map(|(index, point)| {
            let last = (index + reach).min(points.len() - 1);
            let values: Vec<f64> = points[index.saturating_sub(reach)..=last]
                .iter()
                .map(|point| point.y)
                .filter(|value| value.is_finite())
                .collect();
            Point::new(point.x, leyden_stats::mean(&values).unwrap_or(f64::NAN))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing_is_centred_and_skips_gaps() {
        let points: Vec<Point> =
            [1.0, 3.0, f64::NAN, 5.0].iter().map(|y| Point::new(0.0, *y)).collect();
        let ys: Vec<f64> = smooth(&points, 1).iter().map(|point| point.y).collect();
        assert_eq!(ys, [2.0, 2.0, 4.0, 5.0]);
    }
}
