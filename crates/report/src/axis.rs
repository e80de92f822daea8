//! Axes: a range of values, round ticks, and the mapping from a value to a position.

use crate::chart::Scale;

/// A range with its ticks.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Axis {
    low: f64,
    high: f64,
    log: bool,
    pub ticks: Vec<(f64, String)>,
}

impl Axis {
    /// The axis over `values` by `scale`; numbers that are not finite are ignored.
    pub fn over(values: impl Iterator<Item = f64>, scale: Scale) -> Self {
        let positive = scale == Scale::Log;
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|value| value.is_finite() && !(positive && *value <= 0.0)) {
            low = low.min(value);
            high = high.max(value);
        }
        if low > high {
            (low, high) = if positive { (0.1, 1.0) } else { (0.0, 1.0) };
        }
        match scale {
            Scale::Log => Self::log(low, high),
            Scale::Linear { zero, ceiling } => {
                if zero {
                    (low, high) = (low.min(0.0), high.max(0.0));
                }
                let ceiling = ceiling.filter(|ceiling| high <= *ceiling);
                Self::linear(low, high, ceiling)
            }
        }
    }

    /// Steps from `low` to `high`, exactly, with ticks at whole numbers.
    pub fn steps(low: f64, high: f64) -> Self {
        let high = if high > low { high } else { low + 1.0 };
        let step = round_step((high - low) / 6.0).max(1.0);
        Self { low, high, log: false, ticks: ticks(low, high, step) }
    }

    /// Named positions, with a margin of half a unit at both ends.
    pub fn categories(names: &[(f64, String)]) -> Self {
        let low = names.iter().map(|(x, _)| *x).fold(f64::INFINITY, f64::min);
        let high = names.iter().map(|(x, _)| *x).fold(f64::NEG_INFINITY, f64::max);
        Self { low: low - 0.5, high: high + 0.5, log: false, ticks: names.to_vec() }
    }

    fn linear(low: f64, high: f64, ceiling: Option<f64>) -> Self {
        // Values that differ only in their last digits look equal to a reader, and there would be
        // millions of ticks between them.
        let (low, high) = if high - low > 1e-6 * low.abs().max(high.abs()) {
            (low, high)
        } else {
            let margin = if low == 0.0 { 1.0 } else { low.abs() * 0.1 };
            (low - margin, high + margin)
        };
        let step = round_step((high - low) / 5.0);
        let low = (low / step).floor() * step;
        let mut top = (high / step).ceil() * step;
        if let Some(ceiling) = ceiling {
            top = top.min(ceiling);
        }
        Self { low, high: top, log: false, ticks: ticks(low, top, step) }
    }

    fn log(low: f64, high: f64) -> Self {
        let first = low.log10().floor();
        let last = high.log10().ceil().max(first + 1.0);
        let stride = ((last - first) / 6.0).ceil().max(1.0);
        let count = ((last - first) / stride).floor() as i32;
        let ticks = (0..=count)
            .map(|index| {
                let exponent = first + f64::from(index) * stride;
                (10f64.powf(exponent), format!("1e{exponent}"))
            })
            .collect();
        Self { low: first, high: last, log: true, ticks }
    }

    /// Position of a value: 0 at the low end, 1 at the high end. `None` if the axis cannot show it.
    pub fn place(&self, value: f64) -> Option<f64> {
        let value = if self.log { value.log10() } else { value };
        value.is_finite().then(|| (value - self.low) / (self.high - self.low))
    }
}

/// The smallest of 1, 2, 5 × a power of ten that is not below `minimum`.
fn round_step(minimum: f64) -> f64 {
    let power = 10f64.powf(minimum.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|f| f * power >= minimum * 0.999_999);
    factor.unwrap_or(10.0) * power
}

fn ticks(low: f64, high: f64, step: f64) -> Vec<(f64, String)> {
    let decimals = (-step.log10().floor()).max(0.0) as usize;
    let first = (low / step).ceil() as i64;
    let last = (high / step + 1e-6).floor() as i64;
    (first..=last)
        .map(|index| {
            let value = index as f64 * step;
            (value, tick_label(value, decimals))
        })
        .collect()
}

fn tick_label(value: f64, decimals: usize) -> String {
    if value == 0.0 {
        "0".to_owned()
    } else if decimals > 4 || value.abs() >= 1e6 {
        format!("{:e}", (value * 1e12).round() / 1e12)
    } else {
        format!("{value:.decimals$}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_differ_in_their_last_digits_have_few_ticks() {
        for (low, high) in
            [(1.0 - 1e-13, 1.0), (0.999_99, 1.0), (-3e9, -3e9 + 1.0), (1e-300, 2e-300)]
        {
            let axis =
                Axis::over([low, high].into_iter(), Scale::Linear { zero: false, ceiling: None });
            assert!((2..12).contains(&axis.ticks.len()), "{low} to {high}: {}", axis.ticks.len());
            let places = [low, high].map(|value| axis.place(value).unwrap());
            assert!(places.iter().all(|place| (0.0..=1.0).contains(place)), "{places:?}");
        }
    }

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, label)| label.as_str()).collect()
    }

    const PLAIN: Scale = Scale::Linear { zero: false, ceiling: None };

    #[test]
    fn linear_ticks_are_round_and_cover_the_data() {
        let axis =
            Axis::over([0.03, 0.84].into_iter(), Scale::Linear { zero: true, ceiling: Some(1.0) });
        assert_eq!(labels(&axis), ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(axis.place(0.5), Some(0.5));
        let axis = Axis::over([-3.0, 12.0, f64::NAN].into_iter(), PLAIN);
        assert_eq!(labels(&axis), ["-5", "0", "5", "10", "15"]);
        assert_eq!(axis.place(f64::NAN), None);
    }

    #[test]
    fn constant_and_missing_data_still_have_an_axis() {
        for values in [vec![], vec![3.0], vec![0.0, 0.0], vec![1e-7; 3], vec![-2e9]] {
            let axis = Axis::over(values.iter().copied(), PLAIN);
            assert!(axis.ticks.len() >= 2, "{values:?}: {axis:?}");
            assert!(values.iter().all(|v| (0.0..=1.0).contains(&axis.place(*v).unwrap())));
        }
    }

    #[test]
    fn log_ticks_are_decades_and_zero_has_no_position() {
        let axis = Axis::over([0.0, 2e-6, 3e-4].into_iter(), Scale::Log);
        assert_eq!(labels(&axis), ["1e-6", "1e-5", "1e-4", "1e-3"]);
        assert_eq!(axis.place(0.0), None);
        assert!((axis.place(1e-4).unwrap() - 2.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn step_ticks_are_whole_numbers() {
        assert_eq!(labels(&Axis::steps(0.0, 3.0)), ["0", "1", "2", "3"]);
        assert_eq!(labels(&Axis::steps(0.0, 120.0)), ["0", "20", "40", "60", "80", "100", "120"]);
        assert_eq!(labels(&Axis::steps(0.0, 0.0)), ["0", "1"]);
    }
}
