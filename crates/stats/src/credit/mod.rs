//! Agreement of credit rules with the true advantages of calls.
//!
//! The true advantage of call k is `A_k = r_k + V(s_{k+1}) − V(s_k)`, where s_k is what call k sees,
//! r_k what is earned between both states, and V the expected return from there with the current
//! policy; after the last call V = 0, and its r includes the reward of the outcome. V is estimated
//! by the mean return of fresh completions ([`StateValue`]), so the truth is known up to noise of
//! known variance, independent of the credit. Of a credit c and the estimated truth
//! `Â = A + e`:
//!
//! - the noise leaves `cov(c, Â)` unbiased and adds its mean variance to `Var(Â)`: correlations are
//!   reported as measured and corrected for attenuation (Spearman 1904),
//!   `cov(c, Â) / (sd(c) √(Var(Â) − mean Var(e)))`;
//! - mean and variance of `c − A` are those of `c − Â`, with the mean noise subtracted from the
//!   variance; rules differ in their units, so the same is reported for `a c` with the factor a
//!   that fits the truth best over all calls of the rule.
//!
//! Calls of one task are dependent (rollouts of a task share states and a baseline). Standard errors
//! are therefore those of the bootstrap over tasks, and intervals use Student's t with as many
//! degrees of freedom as tasks, less one. The noise variance is subtracted as if the noise of
//! different calls were independent; shared states change the result by the noise over the number of
//! tasks.

mod agreement;
mod calls;
mod difference;
mod moments;

pub use agreement::{Agreement, AgreementError, Deviation, RuleAgreement, agreement};
pub use calls::{CreditedCall, StateValue};
pub use difference::{CorrelationDifference, correlation_difference};
pub use moments::FEWEST_TASKS;
