//! Sums over calls, and the moments of credit and truth that follow from them.

use super::CreditedCall;

/// Sums over calls, of credit and truth measured from a common centre; sums of disjoint calls add
/// up.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Sums {
    pub calls: f64,
    pub credit: f64,
    pub truth: f64,
    pub credit_squared: f64,
    pub truth_squared: f64,
    pub product: f64,
    pub noise: f64,
}

impl Sums {
    /// Adds a call, measured from `centre` (credit, truth).
    pub fn push(&mut self, call: &CreditedCall, centre: (f64, f64)) {
        let (credit, truth) = (call.credit - centre.0, call.truth - centre.1);
        self.add(&Self {
            calls: 1.0,
            credit,
            truth,
            credit_squared: credit * credit,
            truth_squared: truth * truth,
            product: credit * truth,
            noise: call.noise,
        });
    }

    pub fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.credit += other.credit;
        self.truth += other.truth;
        self.credit_squared += other.credit_squared;
        self.truth_squared += other.truth_squared;
        self.product += other.product;
        self.noise += other.noise;
    }

    /// The moments; `None` for fewer than two calls.
    pub fn moments(&self) -> Option<Moments> {
        (self.calls > 1.0).then_some(())?;
        let central = |product: f64, x: f64, y: f64| {
            let sum = product - x * y / self.calls;
            // A remainder of rounding is no variance.
            if sum.abs() <= 1e-13 * product.abs() { 0.0 } else { sum / (self.calls - 1.0) }
        };
        Some(Moments {
            credit: central(self.credit_squared, self.credit, self.credit).max(0.0),
            truth: central(self.truth_squared, self.truth, self.truth).max(0.0),
            covariance: central(self.product, self.credit, self.truth),
            noise: self.noise / self.calls,
        })
    }
}

/// Sample variances and covariance with divisor n − 1, and the mean variance of the truth's noise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Moments {
    pub credit: f64,
    pub truth: f64,
    pub covariance: f64,
    pub noise: f64,
}

impl Moments {
    /// Pearson's correlation; `None` if credit or truth is constant.
    pub fn correlation(&self) -> Option<f64> {
        let product = self.credit * self.truth;
        (product > 0.0).then(|| (self.covariance / product.sqrt()).clamp(-1.0, 1.0))
    }

    /// The correlation with the truth without its noise. Not clamped, so beyond ±1 for few calls;
    /// `None` if credit is constant or the truth differs by no more than its noise.
    pub fn corrected(&self) -> Option<f64> {
        let product = self.credit * (self.truth - self.noise);
        (product > 0.0).then(|| self.covariance / product.sqrt())
    }

    /// Share of the truth's variance that is not noise, at least 0; `None` if it is constant.
    pub fn reliability(&self) -> Option<f64> {
        (self.truth > 0.0).then(|| (1.0 - self.noise / self.truth).max(0.0))
    }

    /// Slope of the truth's regression on credit; `None` if credit is constant.
    pub fn slope(&self) -> Option<f64> {
        (self.credit > 0.0).then(|| self.covariance / self.credit)
    }

    /// Variance of `scale × credit − truth`, without the truth's noise.
    pub fn deviation(&self, scale: f64) -> f64 {
        scale * scale * self.credit - 2.0 * scale * self.covariance + self.truth - self.noise
    }
}
