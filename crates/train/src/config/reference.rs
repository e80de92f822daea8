//! Every key of an experiment file, described once: `leyden run --help` is printed from here.

use leyden_rl::advantage::AdvantageConfig;
use leyden_rl::credit::CreditConfig;
use leyden_rl::loss::LossConfig;

/// One key of an experiment: where it stands and what it says.
pub struct Key {
    pub path: &'static str,
    pub what: &'static str,
}

const fn key(path: &'static str, what: &'static str) -> Key {
    Key { path, what }
}

/// Every key of an experiment file.
pub const REFERENCE: &[Key] = &[
    key("name", "name of the run and of its folder"),
    key("seed", "root of the seed tree: sampling, task order, initial adapters"),
    key("model.source", "`tiny` (embedded), a Hugging Face folder, a .gguf file, or a hub id"),
    key("model.device", "cpu, cuda or cuda:N"),
    key("model.dtype", "type of the forward pass and of generation: f32, bf16 or f16"),
    key("model.master_dtype", "type in which parameters are kept and updated"),
    key("model.threads", "threads of libtorch and of the tools"),
    key("model.context", "context length in tokens; 0 is what the model was made for"),
    key(
        "model.lora.rank",
        "rank of the low-rank adapters; without [model.lora] all parameters train",
    ),
    key("model.lora.alpha", "scale of the adapters is alpha / rank"),
    key(
        "model.lora.targets",
        "projections with adapters: q, k, v, o, gate, up, down (or their _proj names)",
    ),
    key(
        "agent.name",
        "the agent: calc (calculator), sql (text-to-SQL), rag (retrieval), or external (a program \
         in any language; see agent.external)",
    ),
    key("agent.prompt", "full: instructions for a strange model; compact: one line"),
    key("agent.max_turns", "most model calls of one rollout; of the agent sql: most queries"),
    key(
        "agent.check",
        "sql: who finds fault with a query: model, in a call of its own, or execution alone",
    ),
    key("agent.searches", "rag: most searches of one rollout"),
    key("agent.passages", "rag: passages that a search shows"),
    key(
        "agent.result_characters",
        "longest result of a query, or text of a passage, that is shown; 0 is the agent's own",
    ),
    key(
        "agent.on_failure",
        "of a rollout whose agent failed or was late: drop (no reward), zero (reward 0) or retry",
    ),
    key("agent.retries", "further attempts at such a rollout, with retry; then it is dropped"),
    key("agent.external.benchmark", "whose tasks and scorer an external agent has: calc, sql, rag"),
    key("agent.external.command", "program and arguments of a local agent"),
    key(
        "agent.external.workers",
        "local (a process for each rollout), pool (processes that each claim rollout after \
         rollout) or remote (workers that you start, anywhere, claim rollouts over HTTP)",
    ),
    key("agent.external.processes", "most processes of local agents, or of the pool, at once"),
    key(
        "agent.external.reward",
        "scorer (the benchmark's, of the agent's answer) or agent (it sends its own)",
    ),
    key("agent.external.host", "address of the run's Lightning Server"),
    key("agent.external.port", "its port; 0 is any free one"),
    key("agent.external.key", "key that agents must bring; drawn at random if empty"),
    key("agent.external.roles", "table of roles: a text that the system prompt of each contains"),
    key(
        "agent.external.environment",
        "environment variables that local agents inherit, besides PATH, HOME and LANG",
    ),
    key("agent.external.memory_megabytes", "address space of one local agent; 0 is unlimited"),
    key("agent.external.cpu_seconds", "processor time of one local agent; 0 is unlimited"),
    key(
        "agent.external.lease_seconds",
        "seconds after which a remote worker without heartbeat loses its rollouts to others",
    ),
    key(
        "agent.external.truncated_as_completed",
        "whether the Responses API reports a truncated answer as completed; the OpenAI Agents SDK \
         ends its agent otherwise",
    ),
    key(
        "data.train",
        "training tasks: the agent's generated world (mini-calc, mini-spider, mini-musique) or \
         files of Calc-X (JSONL, Parquet), Spider (JSON) or MuSiQue (JSONL)",
    ),
    key("data.test", "held-out tasks, likewise; file:10..20 takes those rows"),
    key(
        "data.databases",
        "sql: folder with tables.json and the databases; where the questions are if empty",
    ),
    key("data.train_limit", "most training tasks of each source; 0 is all"),
    key(
        "data.exercises",
        "exercises in copying before the lessons of generated worlds, and one in every round of \
         them (supervised only)",
    ),
    key(
        "data.demonstrations",
        "of generated worlds: noisy (what base models are raised on) or gold (the run's training \
         tasks, solved) (supervised only)",
    ),
    key("data.successes", "run folder whose successful rollouts are imitated (supervised only)"),
    key("data.success_reward", "least reward of a rollout that is imitated"),
    key("data.demonstration_tokens", "longer demonstrations are left out (supervised only)"),
    key("data.seed", "seed of generated worlds and splits; shared by all seeds of an experiment"),
    key("retrieval.method", "rag: bm25, dense or hybrid (both, fused by reciprocal rank)"),
    key("retrieval.corpus", "rag: JSONL file of passages; the paragraphs of the tasks if empty"),
    key("retrieval.index", "rag: folder in which the index is kept; in memory if empty"),
    key("retrieval.encoder", "rag: folder of a sentence encoder, for dense and hybrid"),
    key(
        "reward.name",
        "default (calc: right answer; sql: execution match; rag: F1), or of rag f1_format",
    ),
    key("reward.flip", "probability with which training sees 1 - r instead of the reward r"),
    key("reward.per_call", "added to the reward that training sees, for each call"),
    key("reward.per_token", "added to the reward that training sees, for each written token"),
    key("reward.format_only", "training sees 1 for all that kept to the form, right or wrong"),
    key("rollout.tasks", "tasks of one step"),
    key("rollout.samples", "rollouts of each task: the group size n"),
    key("rollout.temperature", "sampling temperature; the trainer divides its logits by it too"),
    key("rollout.top_p", "nucleus; train with 1, anything else biases the ratios"),
    key("rollout.top_k", "only the k likeliest tokens; 0 is off"),
    key("rollout.max_tokens", "most tokens of one response"),
    key("rollout.cache_tokens", "most tokens in the KV cache; more rollouts run in waves"),
    key(
        "rollout.engines",
        "engines that share the rollouts, each with its part of model.threads and at most as \
         many: for tiny models on CPU cores; another device has one",
    ),
    key(
        "rollout.refills",
        "most times that a step samples further tasks in place of those whose rollouts all \
         earned the same (dynamic sampling); 0 is off",
    ),
    key(
        "rollout.schedule",
        "lockstep (equal seeds give equal bytes) or continuous (nobody waits for another \
         rollout's agent; for agents whose tools take their time)",
    ),
    key(
        "rollout.call_deadline",
        "seconds of one request of the engine (continuous schedule); 0 is without end",
    ),
    key("rollout.turn_deadline", "seconds of an agent between an answer and its next question"),
    key("rollout.rollout_deadline", "seconds of a rollout; 0 is without end"),
    key("rollout.step_deadline", "seconds of all rollouts of a step; 0 is without end"),
    key("rollout.at_least", "least rollouts of a step with a reward; with fewer the run stops"),
    key("rollout.completions", "completions that estimate a state's value, where credit needs it"),
    key(
        "algorithm.aggregation",
        "token-mean, seq-mean-token-sum, seq-mean-token-mean, seq-mean-token-sum-norm, \
         per-rollout-mean, per-rollout-mean-over-rows",
    ),
    key(
        "algorithm.aggregation_constant",
        "divisor of seq-mean-token-sum-norm; the longest row if absent",
    ),
    key("algorithm.entropy_coefficient", "factor of the entropy bonus; 0 is off"),
    key("algorithm.credit", CreditConfig::REFERENCE),
    key("algorithm.group_by", "calls are compared within a task, or its role or turn"),
    key("algorithm.overlong", "max_tokens and buffer of a punishment near the token limit"),
    key("algorithm.advantage", AdvantageConfig::REFERENCE),
    key("algorithm.loss", LossConfig::REFERENCE),
    key("algorithm.kl", "estimator, coefficient (0 is off) and placement of a KL penalty"),
    key(
        "algorithm.correction",
        "weight = none, token or sequence with low, high, beyond; reject: rows or tokens of a \
         sampler that is not quite the trainer's policy",
    ),
    key("train.objective", "reinforcement or supervised"),
    key("train.steps", "number of steps"),
    key("train.optimizer", "adamw or muon"),
    key("train.learning_rate", "learning rate of AdamW (with muon: of embeddings and norms)"),
    key("train.matrix_learning_rate", "learning rate of Muon for the layers' matrices"),
    key("train.schedule", "constant, linear or cosine (to 0 at the last step)"),
    key("train.warmup", "steps of linear warm-up"),
    key("train.weight_decay", "decoupled weight decay"),
    key("train.beta1", "AdamW's first moment"),
    key("train.beta2", "AdamW's second moment"),
    key("train.grad_clip", "largest norm of the gradient; 0 is off"),
    key("train.epochs", "passes over the rollouts of a step"),
    key("train.mini_batches", "updates of one pass"),
    key(
        "train.micro_batch_tokens",
        "tokens of one forward and backward pass; changes memory, not the gradient",
    ),
    key(
        "train.replicas",
        "replicas of the policy that share a micro-batch, each with its part of model.threads \
         and at most as many: for tiny models on CPU cores; another device has one, and so has a \
         policy with adapters",
    ),
    key(
        "train.layout",
        "forest, trajectories or rows: common beginnings are computed once among all rows, those \
         of a rollout, or never; changes time, not the gradient",
    ),
    key("train.activation_checkpointing", "recompute activations in the backward pass"),
    key("train.roles", "agent roles that are trained; empty is all"),
    key("train.max_prompt_tokens", "calls with a longer prompt are left out of training"),
    key(
        "train.patience_without_variance",
        "stop after this many steps in a row without any variance of reward",
    ),
    key("train.batch", "demonstrations of one step (supervised only)"),
    key("critic.width", "units between state and value; 0 is the model's width"),
    key("critic.learning_rate", "learning rate of the critic, of algorithms that need one"),
    key("critic.epochs", "passes of the critic over the rollouts of a step"),
    key("critic.clip", "a value is not pulled further than this from what it was"),
    key("eval.every", "steps between evaluations; 0 evaluates at start and end only"),
    key("eval.tasks", "held-out tasks of one evaluation; 0 is all"),
    key("eval.modes", "sampled, greedy"),
    key("eval.temperature", "temperature of the sampled evaluation"),
    key("eval.max_tokens", "most tokens of one response"),
    key("checkpoint.every", "steps between checkpoints"),
    key("checkpoint.keep", "checkpoints kept"),
    key("report.paper_start", "level drawn into the curve: the paper's first evaluation"),
    key("report.paper_end", "the paper's last evaluation"),
    key("report.paper_label", "what these levels are called"),
];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use leyden_lm::model::LoraConfig;
    use leyden_rl::shaping::OverlongConfig;

    use super::REFERENCE;
    use crate::config::{Experiment, ReportConfig};

    const SMALLEST: &str = "name = 'x'\n[model]\nsource = 'tiny'\n[agent]\nname = 'calc'\n\
        [data]\ntrain = ['mini-calc']\ntest = ['mini-calc']\n[train]\nsteps = 3\n";

    #[test]
    fn the_reference_names_every_key() {
        let mut experiment = Experiment::parse(SMALLEST, Path::new("x.toml"), &[]).unwrap();
        experiment.model.lora = Some(LoraConfig { rank: 1, alpha: 1.0, targets: vec![] });
        experiment.algorithm.aggregation_constant = Some(1.0);
        experiment.algorithm.overlong = Some(OverlongConfig { max_tokens: 2, buffer: 1 });
        experiment.report = ReportConfig {
            paper_start: Some(0.0),
            paper_end: Some(1.0),
            paper_label: Some("paper".to_owned()),
        };
        experiment.agent.external = Some(toml::from_str("benchmark = 'calc'").unwrap());
        let table: toml::Table = toml::from_str(&experiment.to_toml()).unwrap();
        let mut found = Vec::new();
        collect(&table, "", &mut found);
        let known: Vec<&str> = REFERENCE.iter().map(|k| k.path).collect();
        for key in &found {
            assert!(known.contains(&key.as_str()), "{key} is not described");
        }
        for key in known {
            assert!(found.iter().any(|f| f == key), "{key} is described and does not exist");
        }
    }

    fn collect(table: &toml::Table, prefix: &str, found: &mut Vec<String>) {
        for (name, value) in table {
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            // The tables of the algorithms describe themselves.
            let own = ["credit", "advantage", "loss", "kl", "overlong", "correction"]
                .map(|table| format!("algorithm.{table}"))
                .into_iter()
                .chain(["agent.external.roles".to_owned()])
                .collect::<Vec<_>>();
            match value {
                toml::Value::Table(inner) if !own.contains(&path) => {
                    collect(inner, &path, found);
                }
                _ => found.push(path),
            }
        }
    }
}
