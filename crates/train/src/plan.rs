//! Memory planning of an experiment before loading, and changes that make it fit.
//!
//! A plan needs only the model's shape. Advice is found by search: the changes are applied in order
//! of cost until the plan fits, then those that turn out unnecessary are reverted.

use leyden_lm::LmError;
use leyden_lm::device::parse_kind;
use leyden_lm::memory::{MemoryPlan, MemoryRequest, Training};
use leyden_lm::model::{LlamaConfig, LoraConfig};

use crate::Experiment;

/// The memory request of `experiment` with a model of this shape.
///
/// # Errors
/// Unknown number types.
pub fn request(experiment: &Experiment, shape: &LlamaConfig) -> Result<MemoryRequest, LmError> {
    let model = &experiment.model;
    let train = &experiment.train;
    let rollout = &experiment.rollout;
    let training = match &model.lora {
        None => Training::Full { master: false },
        Some(lora) => Training::Lora(lora.with_full_names()),
    };
    let context = context(experiment, shape);
    let requested = (rollout.tasks * rollout.samples).max(experiment.eval.tasks);
    Ok(MemoryRequest {
        config: shape.clone(),
        parameters: parse_kind(&model.master_dtype)?,
        compute: parse_kind(&model.dtype)?,
        training,
        reference: experiment.algorithm.kl.is_on(),
        trunk: experiment.has_own_trunk(),
        earlier: train.staleness as usize,
        pack_tokens: train.micro_batch_tokens,
        replicas: experiment.replicas(),
        checkpointing: train.activation_checkpointing,
        head_chunk: None,
        // Rollouts that exceed the cache run in waves.
        rollouts: requested.min(rollout.cache_tokens / context.max(1)).max(1),
        context,
    })
}

/// Maximum length of prompt and response together.
fn context(experiment: &Experiment, shape: &LlamaConfig) -> usize {
    let limit = shape.context(experiment.model.context);
    limit.min(experiment.train.max_prompt_tokens.saturating_add(experiment.rollout.max_tokens))
}

/// The plan of `experiment`.
///
/// # Errors
/// As [`request`]; adapters that do not fit the model.
pub fn plan(experiment: &Experiment, shape: &LlamaConfig) -> Result<MemoryPlan, LmError> {
    request(experiment, shape)?.plan()
}

/// Advice for a plan that is too large.
#[derive(Debug, Clone, PartialEq)]
pub enum Advice {
    /// These overrides together make it fit.
    Change { overrides: Vec<String>, total: u64 },
    /// No change suffices; the minimum that is needed.
    TooSmall { least: u64 },
}

/// A change to an experiment: applies it and returns it as overrides, empty if there is nothing
/// left to change.
struct Change {
    apply: fn(&mut Experiment) -> Vec<String>,
    /// Whether it can be applied repeatedly.
    again: bool,
}

/// Changes in order of cost: first time, then precision, then the trained parameters.
const CHANGES: [Change; 6] = [
    Change { apply: checkpoint_activations, again: false },
    Change { apply: halve_micro_batches, again: true },
    Change { apply: halve_cache, again: true },
    Change { apply: keep_base_narrow, again: false },
    Change { apply: compute_in_bf16, again: false },
    Change { apply: train_adapters, again: false },
];

/// Smallest proposed micro-batch and cache, in tokens.
const SMALLEST: usize = 2048;

fn checkpoint_activations(experiment: &mut Experiment) -> Vec<String> {
    let on = std::mem::replace(&mut experiment.train.activation_checkpointing, true);
    if on { Vec::new() } else { vec!["train.activation_checkpointing=true".to_owned()] }
}

fn halve_micro_batches(experiment: &mut Experiment) -> Vec<String> {
    halve("train.micro_batch_tokens", &mut experiment.train.micro_batch_tokens, SMALLEST)
}

fn halve_cache(experiment: &mut Experiment) -> Vec<String> {
    // One complete rollout must always fit.
    let longest = experiment.train.max_prompt_tokens.saturating_add(experiment.rollout.max_tokens);
    let tokens = &mut experiment.rollout.cache_tokens;
    halve("rollout.cache_tokens", tokens, SMALLEST.max(longest))
}

fn halve(key: &str, tokens: &mut usize, smallest: usize) -> Vec<String> {
    if *tokens / 2 < smallest {
        return Vec::new();
    }
    *tokens /= 2;
    vec![format!("{key}={tokens}")]
}

/// A frozen base gains nothing from higher precision.
fn keep_base_narrow(experiment: &mut Experiment) -> Vec<String> {
    let model = &mut experiment.model;
    if model.lora.is_none() || model.dtype == model.master_dtype {
        return Vec::new();
    }
    model.master_dtype.clone_from(&model.dtype);
    vec![format!("model.master_dtype={}", model.dtype)]
}

fn compute_in_bf16(experiment: &mut Experiment) -> Vec<String> {
    if parse_kind(&experiment.model.dtype).is_ok_and(|kind| kind != tch::Kind::Float) {
        return Vec::new();
    }
    experiment.model.dtype = "bf16".to_owned();
    let mut overrides = vec!["model.dtype=bf16".to_owned()];
    overrides.extend(keep_base_narrow(experiment));
    overrides
}

fn train_adapters(experiment: &mut Experiment) -> Vec<String> {
    if experiment.model.lora.is_some() {
        return Vec::new();
    }
    let lora = adapters();
    let mut overrides = vec![
        format!("model.lora.rank={}", lora.rank),
        format!("model.lora.alpha={}", lora.alpha),
        format!("model.lora.targets={:?}", lora.targets),
    ];
    experiment.model.lora = Some(lora);
    overrides.extend(keep_base_narrow(experiment));
    overrides
}

/// The proposed adapters: all projections, as in the LoRA reports that match full fine-tuning.
pub fn adapters() -> LoraConfig {
    let targets = ["q", "k", "v", "o", "gate", "up", "down"].map(|name| format!("{name}_proj"));
    LoraConfig { rank: 16, alpha: 32.0, targets: targets.to_vec() }
}

/// Changes that make `experiment` fit into `available` bytes.
///
/// # Errors
/// As [`plan`].
pub fn advise(
    experiment: &Experiment,
    shape: &LlamaConfig,
    available: u64,
) -> Result<Advice, LmError> {
    // How often each change is applied.
    let mut times = [0; CHANGES.len()];
    let total_with = |times: &[usize]| -> Result<(u64, Vec<String>), LmError> {
        let mut changed = experiment.clone();
        let mut overrides = Vec::new();
        for (change, &times) in CHANGES.iter().zip(times) {
            // The last override of a repeated change supersedes the earlier ones.
            let last = (0..times).map(|_| (change.apply)(&mut changed)).last();
            overrides.extend(last.unwrap_or_default());
        }
        Ok((plan(&changed, shape)?.total(), overrides))
    };
    let mut total = total_with(&times)?.0;
    for (index, change) in CHANGES.iter().enumerate() {
        while total > available {
            let mut further = times;
            further[index] += 1;
            let (less, _) = total_with(&further)?;
            if less >= total {
                break;
            }
            (times, total) = (further, less);
            if !change.again {
                break;
            }
        }
    }
    if total > available {
        return Ok(Advice::TooSmall { least: total });
    }
    for index in 0..times.len() {
        while times[index] > 0 {
            let mut fewer = times;
            fewer[index] -= 1;
            if total_with(&fewer)?.0 > available {
                break;
            }
            times = fewer;
        }
    }
    let (total, overrides) = total_with(&times)?;
    Ok(Advice::Change { overrides, total })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::CriticTrunk;

    fn experiment(model: &str, extra: &str) -> (Experiment, LlamaConfig) {
        let text = format!(
            "name = 'x'\n[model]\nsource = '{model}'\ndtype = 'bf16'\n{extra}\n\
             [agent]\nname = 'a'\n[data]\ntrain = []\ntest = []\n\
             [train]\nsteps = 1\n"
        );
        let experiment = Experiment::parse(&text, Path::new("x.toml"), &[], &()).unwrap();
        (experiment, LlamaConfig::named(model).unwrap())
    }

    #[test]
    fn the_cache_bounds_the_rollouts_of_a_plan() {
        let (mut experiment, shape) = experiment("Llama-3.2-1B", "");
        (experiment.rollout.tasks, experiment.rollout.samples) = (64, 8);
        experiment.eval.tasks = 0;
        experiment.rollout.cache_tokens = 100 * 6144;
        let requested = request(&experiment, &shape).unwrap();
        // 4096 tokens of a prompt and 2048 of a response.
        assert_eq!((requested.context, requested.rollouts), (6144, 100));
        experiment.rollout.cache_tokens = 1 << 40;
        assert_eq!(request(&experiment, &shape).unwrap().rollouts, 512);
        experiment.model.context = 1024;
        assert_eq!(request(&experiment, &shape).unwrap().context, 1024);
    }

    #[test]
    fn a_critic_s_own_trunk_is_part_of_the_plan() {
        let (mut experiment, shape) = experiment("Llama-3.2-1B", "");
        experiment.critic.trunk = CriticTrunk::Own;
        let bytes = |experiment: &Experiment| {
            plan(experiment, &shape).unwrap().bytes("critic's optimiser state")
        };
        assert_eq!(bytes(&experiment), 0, "this algorithm has no critic");
        experiment.algorithm = toml::from_str("advantage = { name = 'gae' }").unwrap();
        assert_eq!(bytes(&experiment), 8 * shape.parameters() as u64);
        experiment.critic.trunk = CriticTrunk::Shared;
        assert_eq!(bytes(&experiment), 0);
    }

    #[test]
    fn advice_fits_and_is_minimal() {
        let (experiment, shape) = experiment("Llama-3.2-1B", "");
        let need = plan(&experiment, &shape).unwrap().total();
        for share in [95, 80, 60, 40, 25] {
            let available = need / 100 * share;
            let Advice::Change { overrides, total } =
                advise(&experiment, &shape, available).unwrap()
            else {
                panic!("{share} % cannot be reached");
            };
            assert!(total <= available && !overrides.is_empty(), "{share} %: {overrides:?}");
            // The proposed overrides can be applied as they are.
            let text = experiment.to_toml();
            let changed = Experiment::parse(&text, Path::new("x.toml"), &overrides, &()).unwrap();
            assert_eq!(plan(&changed, &shape).unwrap().total(), total, "{share} %");
        }
    }

    #[test]
    fn the_cheapest_change_comes_first_and_impossible_plans_are_reported() {
        let (experiment, shape) = experiment("Llama-3.2-1B", "");
        let need = plan(&experiment, &shape).unwrap().total();
        let Advice::Change { overrides, .. } = advise(&experiment, &shape, need - 1).unwrap()
        else {
            panic!("a byte can be saved");
        };
        assert_eq!(overrides, ["train.activation_checkpointing=true"]);
        let Advice::TooSmall { least } = advise(&experiment, &shape, 1_000_000_000).unwrap() else {
            panic!("a billion parameters do not fit into a gigabyte");
        };
        assert!(least > 2_000_000_000 && least < need);
    }
}
