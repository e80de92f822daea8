//! The engine's state of one request.

use leyden_core::FinishReason;

use crate::error::LmError;
use crate::generate::request::{Completion, Request, Sampled, Ticket, TokenLogprob};
use crate::generate::sampler::{Draw, Drawn};

pub(super) struct Job {
    pub ticket: Ticket,
    /// The prompt and the generated tokens.
    pub tokens: Vec<u32>,
    /// Length of the prompt.
    pub prompt: usize,
    /// Key of the conversation that it continues or begins, and whether it is kept under that key.
    pub key: u64,
    pub named: bool,
    /// Maximum number of tokens to generate: the request's own limit or the end of the context.
    pub limit: usize,
    /// Number of prompt tokens that were already cached; known once it has been admitted.
    pub cached: Option<usize>,
    /// Its prompt has been moved to `tokens`.
    request: Request,
    logprobs: Vec<f32>,
    top: Vec<Vec<TokenLogprob>>,
}

impl Job {
    pub fn new(ticket: Ticket, mut request: Request, limit: usize, named: bool) -> Self {
        let tokens = std::mem::take(&mut request.prompt);
        Self {
            ticket,
            prompt: tokens.len(),
            tokens,
            key: request.key,
            named,
            limit,
            cached: None,
            request,
            logprobs: Vec::new(),
            top: Vec::new(),
        }
    }

    /// Number of generated tokens.
    pub fn generated(&self) -> usize {
        self.tokens.len() - self.prompt
    }

    /// The trunk of a conversation that begins with this prompt.
    pub fn trunk(&self) -> &[u32] {
        &self.tokens[..self.prompt - 1]
    }

    /// Sampling parameters of the next token, from a vocabulary of `size`.
    ///
    /// # Errors
    /// Errors of the constraint, or an empty set of allowed tokens.
    pub fn draw(&mut self, size: usize) -> Result<Draw<'_>, LmError> {
        let number = (self.tokens.len() - self.prompt) as u64;
        let allowed = match &mut self.request.constraint {
            Some(constraint) => Some(constraint.allowed().map_err(|why| refused(&why))?),
            None => None,
        };
        if allowed.is_some_and(|allowed| !any_allowed(allowed, size)) {
            return Err(refused("it allows no token"));
        }
        Ok(Draw {
            sampling: &self.request.sampling,
            uniform: self.request.seed.index(number).uniform(),
            allowed,
            top: self.request.top_logprobs,
        })
    }

    /// Adds a sampled token. Returns the finish reason if the response ends.
    ///
    /// # Errors
    /// Errors of the constraint.
    pub fn accept(&mut self, drawn: Drawn) -> Result<Option<FinishReason>, LmError> {
        let Drawn { id, logprob, top } = drawn;
        self.tokens.push(id);
        self.logprobs.push(logprob);
        if self.request.top_logprobs > 0 {
            self.top.push(top);
        }
        if self.request.stop_ids.contains(&id) {
            return Ok(Some(FinishReason::Stop));
        }
        let mut stopped = self.request.stop.as_mut().is_some_and(|stop| stop.stops(id));
        if let Some(constraint) = &mut self.request.constraint {
            constraint.accept(id).map_err(|why| refused(&why))?;
            stopped |= constraint.ended();
        }
        if stopped {
            return Ok(Some(FinishReason::Stop));
        }
        Ok((self.generated() >= self.limit).then_some(FinishReason::Length))
    }

    /// The last sampled token.
    pub fn last(&self) -> Option<Sampled> {
        let (&id, &logprob) = (self.tokens.last()?, self.logprobs.last()?);
        let top = self.top.last().cloned().unwrap_or_default();
        Some(Sampled { ticket: self.ticket, id, logprob, top })
    }

    /// The response so far. Its tokens also remain here: a finished row stays in the batch for a
    /// while.
    pub fn complete(&mut self, finish: FinishReason) -> Completion {
        Completion {
            ids: self.tokens[self.prompt..].to_vec(),
            logprobs: std::mem::take(&mut self.logprobs),
            top: std::mem::take(&mut self.top),
            finish,
            cached_tokens: self.cached.unwrap_or(0),
        }
    }
}

fn refused(why: &str) -> LmError {
    LmError::Invalid(format!("the constraint on the response failed: {why}"))
}

/// Whether any of the first `size` bits is set.
fn any_allowed(bits: &[u32], size: usize) -> bool {
    let (whole, rest) = (size / 32, size % 32);
    let within = bits.iter().take(whole).any(|&word| word != 0);
    within || bits.get(whole).is_some_and(|word| word & ((1u32 << rest) - 1) != 0)
}

#[cfg(test)]
mod tests {
    use super::any_allowed;

    #[test]
    fn only_bits_of_the_vocabulary_count() {
        assert!(any_allowed(&[0, 1], 33));
        assert!(!any_allowed(&[0, 2], 33), "bit 33 is outside");
        assert!(!any_allowed(&[0, 1], 32));
        assert!(!any_allowed(&[], 100));
        assert!(any_allowed(&[1 << 31], 100));
    }
}
