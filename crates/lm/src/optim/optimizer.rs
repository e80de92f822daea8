//! AdamW and Muon on the flat parameter buffer.
//!
//! libtorch's bindings offer neither a fused AdamW nor a way to save an optimiser's state, so both
//! are implemented here. Parameters, gradients and moments share one layout, which a fused kernel
//! traverses once if available; otherwise a step is a few tensor operations.
//!
//! Moments are f32. Parameters of a narrower type may have an f32 master copy, stored here.

use leyden_fused::AdamW;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, no_grad_guard};

use crate::error::LmError;
use crate::kernels;
use crate::model::parameters::Parameters;
use crate::optim::muon::{self, MuonConfig};

/// Elements per block of a norm.
const BLOCK: i64 = 1 << 18;

/// AdamW (Loshchilov and Hutter 2019) and, optionally, Muon for the matrices of the layers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// Base learning rate.
    pub lr: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    /// Decoupled: each step multiplies the parameters by 1 − lr · weight_decay.
    pub weight_decay: f64,
    /// Whether norms and other one-dimensional parameters decay too, as in PyTorch.
    pub decay_norms: bool,
    /// Keep an f32 copy of narrower parameters and apply the steps to it.
    pub master: bool,
    pub muon: Option<MuonConfig>,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.01,
            decay_norms: true,
            master: false,
            muon: None,
        }
    }
}

/// A range of the flat buffer with one update rule.
#[derive(Debug, Clone, PartialEq)]
struct Segment {
    start: i64,
    length: i64,
    rule: Rule,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Rule {
    Adam {
        decay: bool,
    },
    /// A matrix of the given rows and columns.
    Muon {
        rows: i64,
        columns: i64,
    },
}

/// An optimiser and its state for one [`Parameters`].
pub struct Optimizer {
    config: OptimizerConfig,
    segments: Vec<Segment>,
    steps: i64,
    /// First moment, or Muon's momentum for its matrices. [parameters], f32.
    exp_avg: Tensor,
    /// Second moment, [parameters], f32.
    exp_avg_sq: Tensor,
    /// f32 copies of narrower parameters.
    master: Option<Tensor>,
}

impl Optimizer {
    /// An optimiser at step 0 for `parameters`.
    ///
    /// # Errors
    /// Frozen parameters, constants out of range, too little memory.
    pub fn new(parameters: &Parameters, config: OptimizerConfig) -> Result<Self, LmError> {
        check(&config)?;
        if parameters.grad().is_none() {
            return Err(LmError::Invalid("frozen parameters cannot be optimised".to_owned()));
        }
        let flat = parameters.flat();
        let zeros = || Tensor::f_zeros(flat.size().as_slice(), (Kind::Float, flat.device()));
        let master = (config.master && flat.kind() != Kind::Float)
            .then(|| flat.detach().to_kind(Kind::Float));
        let segments = segments(parameters, &config);
        Ok(Self { config, segments, steps: 0, exp_avg: zeros()?, exp_avg_sq: zeros()?, master })
    }

    pub fn config(&self) -> &OptimizerConfig {
        &self.config
    }

    /// Number of steps taken.
    pub fn steps(&self) -> i64 {
        self.steps
    }

    /// One step along the gradient buffer with the learning rates times `factor` (see
    /// [`crate::optim::Schedule`]).
    ///
    /// # Errors
    /// `parameters` of a different size than the optimiser was created for.
    pub fn step(&mut self, parameters: &Parameters, factor: f64) -> Result<(), LmError> {
        let _guard = no_grad_guard();
        let flat = parameters.flat();
        let Some(grad) = parameters.grad() else {
            return Err(LmError::Invalid("frozen parameters cannot be optimised".to_owned()));
        };
        if flat.size() != self.exp_avg.size() {
            return Err(LmError::Invalid(format!(
                "the optimiser was created for {:?} parameters, not {:?}",
                self.exp_avg.size(),
                flat.size()
            )));
        }
        self.steps += 1;
        let values = self.master.as_ref().unwrap_or(flat);
        for segment in &self.segments {
            match segment.rule {
                Rule::Adam { decay } if kernels::applies(values.kind(), flat.device()) => {
                    let weight_decay = if decay { self.config.weight_decay } else { 0.0 };
                    let OptimizerConfig { lr, beta1, beta2, eps, .. } = self.config;
                    let step = i32::try_from(self.steps).unwrap_or(i32::MAX);
                    let lr = factor * lr;
                    let rule = AdamW { lr, beta1, beta2, eps, weight_decay, step };
                    let part = |x: &Tensor| x.narrow(0, segment.start, segment.length);
                    let moments = (&part(&self.exp_avg), &part(&self.exp_avg_sq));
                    kernels::adamw(&rule, &part(values), &part(grad), moments);
                }
                Rule::Adam { decay } => {
                    let part = |x: &Tensor| x.narrow(0, segment.start, segment.length);
                    let decay = if decay { self.config.weight_decay } else { 0.0 };
                    self.adam(part, values, grad, factor * self.config.lr, decay)?;
                }
                Rule::Muon { rows, columns } => {
                    if let Some(config) = &self.config.muon {
                        let part = |x: &Tensor| {
                            x.narrow(0, segment.start, segment.length).view([rows, columns])
                        };
                        let grad = part(grad).to_kind(Kind::Float);
                        muon::step(config, factor, part(values), part(&self.exp_avg), &grad)?;
                    }
                }
            }
        }
        if let Some(master) = &self.master {
            flat.shallow_clone().f_copy_(master)?;
        }
        Ok(())
    }

    /// AdamW by tensor operations: p ← p · (1 − lr·wd) − lr · m̂ / (√v̂ + eps).
    fn adam(
        &self,
        part: impl Fn(&Tensor) -> Tensor,
        values: &Tensor,
        grad: &Tensor,
        lr: f64,
        weight_decay: f64,
    ) -> Result<(), LmError> {
        let OptimizerConfig { beta1, beta2, eps, .. } = self.config;
        let correction = |beta: f64| 1.0 - beta.powi(self.steps as i32);
        let (mut m, mut v) = (part(&self.exp_avg), part(&self.exp_avg_sq));
        let grad = part(grad).to_kind(Kind::Float);
        let _ = m.f_lerp_(&grad, 1.0 - beta1)?;
        let _ = v.f_mul_scalar_(beta2)?.f_addcmul_(&grad, &(&grad * (1.0 - beta2)))?;
        let mut denominator = v.f_sqrt()?;
        let _ = denominator.f_div_scalar_(correction(beta2).sqrt())?.f_add_scalar_(eps)?;
        let update = (m / denominator).f_mul_scalar_(lr / correction(beta1))?;
        let mut values = part(values);
        if weight_decay != 0.0 {
            let _ = values.f_mul_scalar_(1.0 - lr * weight_decay)?;
        }
        let _ = values.f_sub_(&update)?;
        Ok(())
    }

    /// The state for a checkpoint: `step` `[1]`, `exp_avg`, `exp_avg_sq` and, if present, `master`.
    /// The tensors share storage with the optimiser.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let mut state = vec![
            ("step".to_owned(), Tensor::from_slice(&[self.steps])),
            ("exp_avg".to_owned(), self.exp_avg.shallow_clone()),
            ("exp_avg_sq".to_owned(), self.exp_avg_sq.shallow_clone()),
        ];
        if let Some(master) = &self.master {
            state.push(("master".to_owned(), master.shallow_clone()));
        }
        state
    }

    /// Restores a state saved by [`Optimizer::state`].
    ///
    /// # Errors
    /// A tensor that is missing or has the wrong size, by its name; nothing is changed then.
    pub fn load_state(&mut self, state: &[(String, Tensor)]) -> Result<(), LmError> {
        let find = |name: &str, size: &[i64]| {
            let wrong = |what: String| LmError::Tensor { name: name.to_owned(), what };
            let found = state.iter().find(|(n, _)| n == name).map(|(_, t)| t);
            let tensor = found
                .ok_or_else(|| wrong("is missing from the optimiser's checkpoint".to_owned()))?;
            if tensor.size() != size {
                let (is, wanted) = (tensor.size(), size);
                return Err(wrong(format!("has shape {is:?} in the checkpoint, not {wanted:?}")));
            }
            Ok(tensor)
        };
        let size = self.exp_avg.size();
        let steps = find("step", &[1])?.f_int64_value(&[0])?;
        let (exp_avg, exp_avg_sq) = (find("exp_avg", &size)?, find("exp_avg_sq", &size)?);
        let master = self.master.is_some().then(|| find("master", &size)).transpose()?;
        let _guard = no_grad_guard();
        self.steps = steps;
        self.exp_avg.f_copy_(exp_avg)?;
        self.exp_avg_sq.f_copy_(exp_avg_sq)?;
        if let (Some(ours), Some(saved)) = (&mut self.master, master) {
            ours.f_copy_(saved)?;
        }
        Ok(())
    }
}

/// Norm of the whole gradient, before it is scaled down to `max_norm` if it is larger (Pascanu et
/// al. 2013, constants as in PyTorch). A non-finite norm is returned and the gradient left
/// unchanged: whether to skip the step is the caller's decision.
///
/// # Errors
/// Frozen parameters.
pub fn clip_grad_norm(parameters: &Parameters, max_norm: Option<f64>) -> Result<f64, LmError> {
    clip_grad_norms(&[parameters], max_norm)
}

/// As [`clip_grad_norm`], of several parts of a model on one device as one gradient.
///
/// # Errors
/// Frozen parameters.
pub fn clip_grad_norms(parts: &[&Parameters], max_norm: Option<f64>) -> Result<f64, LmError> {
    let _guard = no_grad_guard();
    let mut squares = Vec::new();
    for parameters in parts {
        let grad = gradient(parameters)?;
        // Block by block in f64: an f32 sum over millions of squares loses digits.
        let total = grad.size()[0];
        for start in (0..total).step_by(BLOCK as usize) {
            let block = grad.narrow(0, start, BLOCK.min(total - start)).to_kind(Kind::Float);
            squares.push(block.f_dot(&block)?.to_kind(Kind::Double));
        }
    }
    let norm = Tensor::f_stack(&squares, 0)?.f_sum(Kind::Double)?.f_double_value(&[])?.sqrt();
    if let Some(max_norm) = max_norm
        && norm.is_finite()
        && norm > max_norm
    {
        for parameters in parts {
            let grad = gradient(parameters)?;
            let _ = grad.shallow_clone().f_mul_scalar_(max_norm / (norm + 1e-6))?;
        }
    }
    Ok(norm)
}

fn gradient(parameters: &Parameters) -> Result<&Tensor, LmError> {
    let frozen = || LmError::Invalid("frozen parameters have no gradient".to_owned());
    parameters.grad().ok_or_else(frozen)
}

/// The update rule of each part of the buffer; adjacent parts with the same Adam rule are merged.
fn segments(parameters: &Parameters, config: &OptimizerConfig) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    for ((name, start, length), (_, tensor)) in parameters.layout().zip(parameters.iter()) {
        let shape = tensor.size();
        let rule = match shape.as_slice() {
            [rows, columns] if config.muon.is_some() && muon::applies(name) => {
                Rule::Muon { rows: *rows, columns: *columns }
            }
            _ => Rule::Adam { decay: config.decay_norms || shape.len() > 1 },
        };
        match segments.last_mut() {
            Some(last) if last.rule == rule && matches!(rule, Rule::Adam { .. }) => {
                last.length += length;
            }
            _ => segments.push(Segment { start, length, rule }),
        }
    }
    segments
}

fn check(config: &OptimizerConfig) -> Result<(), LmError> {
    let wrong = |key: &str, value: f64, range: &str| {
        Err(LmError::Invalid(format!("optimiser: {key} is {value}, but must be {range}")))
    };
    let not_negative = [
        ("lr", config.lr),
        ("eps", config.eps),
        ("weight_decay", config.weight_decay),
        ("muon.lr", config.muon.as_ref().map_or(0.0, |m| m.lr)),
        ("muon.weight_decay", config.muon.as_ref().map_or(0.0, |m| m.weight_decay)),
    ];
    for (key, value) in not_negative {
        if !(value >= 0.0 && value.is_finite()) {
            return wrong(key, value, "0 or more");
        }
    }
    let below_one = [
        ("beta1", config.beta1),
        ("beta2", config.beta2),
        ("muon.momentum", config.muon.as_ref().map_or(0.0, |m| m.momentum)),
    ];
    for (key, value) in below_one {
        if !(0.0..1.0).contains(&value) {
            return wrong(key, value, "at least 0 and below 1");
        }
    }
    Ok(())
}
