//! The language-model head at action tokens: log-probabilities, and their backward pass.
//!
//! Logits of a whole batch are the first thing that exhausts memory (4,096 tokens of Llama 3.2 take
//! 2.1 GB in f32), so they exist only for parents of action tokens and only one chunk at a time.
//! The gradient through the log-softmax is known in closed form, so no graph is kept either:
//! forward returns the numbers, backward recomputes each chunk (or reuses it if there was only one)
//! and writes the gradients of hidden states and head.

use tch::{Kind, Tensor, no_grad_guard};

use crate::error::LmError;
use crate::policy::forest::Pack;

/// Logits in memory at once, as a number of elements: 256 MB of f32.
pub(crate) const CHUNK_NUMBERS: i64 = 64 << 20;

/// The head applied to a pack's actions.
pub struct Head<'a> {
    /// [vocabulary, width], compute type.
    weight: Tensor,
    /// [actions]: node whose hidden state predicts the action.
    parents: Tensor,
    /// [actions]: token id.
    targets: Tensor,
    temperature: f64,
    /// Actions per chunk.
    chunk: i64,
    pack: &'a Pack,
    /// Log-probabilities of the vocabulary for a single chunk, kept from forward to backward.
    kept: Option<Tensor>,
}

/// d loss / d result of [`Head::forward`], per action.
pub struct HeadCotangent<'a> {
    pub logp: &'a [f64],
    pub entropy: Option<&'a [f64]>,
}

impl<'a> Head<'a> {
    /// The head `weight` [vocabulary, width] for the actions of `pack`; logits are divided by
    /// `temperature`.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn new(pack: &'a Pack, weight: &Tensor, temperature: f64) -> Result<Self, LmError> {
        let device = weight.device();
        let parents: Vec<i64> = pack.actions.iter().map(|a| a.parent as i64).collect();
        let targets: Vec<i64> = pack.actions.iter().map(|a| i64::from(pack.ids[a.node])).collect();
        Ok(Self {
            weight: weight.detach(),
            parents: Tensor::f_from_slice(&parents)?.to_device(device),
            targets: Tensor::f_from_slice(&targets)?.to_device(device),
            temperature,
            chunk: (CHUNK_NUMBERS / weight.size()[0]).max(1),
            pack,
            kept: None,
        })
    }

    /// Limits a chunk to `actions` actions.
    pub fn set_chunk(&mut self, actions: usize) {
        self.chunk = (actions as i64).max(1);
    }

    /// Log-probability and entropy (nats) of each action's distribution given `hidden` [n, width],
    /// each `[actions]`, in f32 for every compute type.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn forward(&mut self, hidden: &Tensor) -> Result<(Vec<f64>, Vec<f64>), LmError> {
        let _guard = no_grad_guard();
        let (mut logp, mut entropy) = (Vec::new(), Vec::new());
        for (start, length) in self.chunks() {
            let logs = self.log_probabilities(hidden, start, length)?;
            let targets = self.targets.narrow(0, start, length);
            logp.extend(numbers(&logs.f_gather(1, &targets.unsqueeze(1), false)?.squeeze_dim(1))?);
            entropy.extend(numbers(&entropies(&logs)?)?);
            if length == self.pack.actions.len() as i64 {
                self.kept = Some(logs);
            }
        }
        Ok((logp, entropy))
    }

    /// d loss / d hidden [n, width] in f32. Adds d loss / d weight to `weight_grad`, in its own
    /// type, if given.
    ///
    /// With z = logits / T, p = softmax(z), H the entropy: d logp / dz = onehot − p and
    /// dH / dz = −p (log p + H).
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn backward(
        &mut self,
        hidden: &Tensor,
        cotangent: &HeadCotangent<'_>,
        weight_grad: Option<&Tensor>,
    ) -> Result<Tensor, LmError> {
        let _guard = no_grad_guard();
        let hidden = hidden.detach();
        let mut grad = Tensor::f_zeros(hidden.size().as_slice(), (Kind::Float, hidden.device()))?;
        for (start, length) in self.chunks() {
            let logs = match self.kept.take() {
                Some(logs) => logs,
                None => self.log_probabilities(&hidden, start, length)?,
            };
            let logits = self.logit_gradient(&logs, cotangent, start, length)?;
            drop(logs);
            let logits = logits.to_kind(self.weight.kind());
            let parents = self.parents.narrow(0, start, length);
            let back = logits.f_matmul(&self.weight)?.to_kind(Kind::Float);
            let _ = grad.f_index_add_(0, &parents, &back)?;
            if let Some(weight_grad) = weight_grad {
                let outer = logits.tr().f_matmul(&hidden.f_index_select(0, &parents)?)?;
                let _ = weight_grad.shallow_clone().f_add_(&outer.to_kind(weight_grad.kind()))?;
            }
        }
        Ok(grad)
    }

    /// d loss / d logits [length, vocabulary], f32.
    fn logit_gradient(
        &self,
        logs: &Tensor,
        cotangent: &HeadCotangent<'_>,
        start: i64,
        length: i64,
    ) -> Result<Tensor, LmError> {
        let column = |values: &[f64]| {
            let part: Vec<f32> = values[start as usize..(start + length) as usize]
                .iter()
                .map(|x| (x / self.temperature) as f32)
                .collect();
            Ok::<_, LmError>(Tensor::f_from_slice(&part)?.to_device(logs.device()).unsqueeze(1))
        };
        let probabilities = logs.f_exp()?;
        let of_logp = column(cotangent.logp)?;
        let mut grad = match cotangent.entropy {
            None => probabilities.f_mul(&of_logp.neg())?,
            Some(values) => {
                let entropy = entropies(logs)?.unsqueeze(1);
                let slope = (logs + entropy).f_mul(&column(values)?)? + &of_logp;
                probabilities.f_mul(&slope)?.neg()
            }
        };
        let targets = self.targets.narrow(0, start, length).unsqueeze(1);
        let _ = grad.f_scatter_add_(1, &targets, &of_logp)?;
        Ok(grad)
    }

    /// Starts and lengths of the chunks.
    fn chunks(&self) -> Vec<(i64, i64)> {
        let n = self.pack.actions.len() as i64;
        (0..n).step_by(self.chunk as usize).map(|s| (s, self.chunk.min(n - s))).collect()
    }

    /// log softmax(logits / T) [length, vocabulary], f32.
    fn log_probabilities(
        &self,
        hidden: &Tensor,
        start: i64,
        length: i64,
    ) -> Result<Tensor, LmError> {
        let parents = self.parents.narrow(0, start, length);
        let x = hidden.detach().f_index_select(0, &parents)?;
        let mut logits = x.f_linear(&self.weight, None::<&Tensor>)?.to_kind(Kind::Float);
        if self.temperature != 1.0 {
            let _ = logits.f_div_scalar_(self.temperature)?;
        }
        Ok(logits.f_log_softmax(-1, Kind::Float)?)
    }
}

/// −Σ p log p of each row of log-probabilities.
fn entropies(logs: &Tensor) -> Result<Tensor, LmError> {
    Ok((logs.f_exp()? * logs).f_sum_dim_intlist(-1, false, Kind::Float)?.neg())
}

fn numbers(values: &Tensor) -> Result<Vec<f64>, LmError> {
    let values = values.to_kind(Kind::Double).to_device(tch::Device::Cpu);
    Ok(Vec::<f64>::try_from(values)?)
}
