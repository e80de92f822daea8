//! Every key of an experiment file, described once: `leyden run --help` is printed from here.

use leyden_rl::advantage::AdvantageConfig;
use leyden_rl::credit::CreditConfig;
use leyden_rl::loss::LossConfig;

use super::own::OwnKey;
use super::schema::Schema;

/// One key of an experiment: its path and description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    pub path: &'static str,
    pub what: String,
}

/// Every key of an experiment file, including those of the benchmarks of `schema`.
pub fn reference(schema: &dyn Schema) -> Vec<Key> {
    let own = schema.keys();
    let mut keys = Vec::with_capacity(REFERENCE.len() + own.len());
    let in_table = |path: &str, table: &str| path.starts_with(table);
    for &(path, what) in REFERENCE {
        let what = match schema.choices(path) {
            Some(choices) => format!("{what}: {choices}"),
            None => what.to_owned(),
        };
        keys.push(Key { path, what });
        let here = |key: &&OwnKey| match path {
            "agent.max_turns" => in_table(key.path, "agent."),
            "data.test" => in_table(key.path, "data."),
            "data.seed" => !in_table(key.path, "agent.") && !in_table(key.path, "data."),
            _ => false,
        };
        let further = own.iter().filter(here);
        keys.extend(further.map(|key| Key { path: key.path, what: key.what.to_owned() }));
    }
    keys
}

/// The paths of the trainer's keys.
pub(super) fn own() -> impl Iterator<Item = &'static str> {
    REFERENCE.iter().map(|(path, _)| *path)
}

const fn key(path: &'static str, what: &'static str) -> (&'static str, &'static str) {
    (path, what)
}

/// The trainer's keys.
const REFERENCE: &[(&str, &str)] = &[
    key("name", "name of the run and of its folder"),
    key("seed", "root of the seed tree: sampling, task order, initial adapters"),
    key("model.source", "`tiny` (embedded), a Hugging Face folder, a .gguf file, or a hub id"),
    key("model.device", "cpu, cuda or cuda:N"),
    key("model.dtype", "type of the forward pass and of generation: f32, bf16 or f16"),
    key("model.master_dtype", "type of the stored and updated parameters"),
    key("model.threads", "threads of libtorch and of the tools"),
    key("model.context", "context length in tokens; 0 is the model's own"),
    key(
        "model.control_tokens",
        "how the name of a control token inside a message is encoded: text, or template for the \
         control token itself",
    ),
    key(
        "model.lora.rank",
        "rank of the low-rank adapters; without [model.lora] all parameters train",
    ),
    key("model.lora.alpha", "scale of the adapters is alpha / rank"),
    key(
        "model.lora.targets",
        "projections with adapters: q, k, v, o, gate, up, down (or their _proj names)",
    ),
    key("agent.name", "the agent"),
    key("agent.prompt", "full: complete instructions, for any model; compact: one line"),
    key(
        "agent.max_turns",
        "maximum model calls per rollout; for an agent that checks its own work, maximum attempts",
    ),
    key(
        "agent.result_characters",
        "maximum length of a tool result, in characters; 0 is the agent's default",
    ),
    key(
        "agent.on_failure",
        "if an agent failed or timed out: drop (no reward), zero (reward 0) or retry",
    ),
    key("agent.retries", "maximum retries of such a rollout, with retry; then it is dropped"),
    key("data.train", "training tasks"),
    key(
        "data.weights",
        "relative frequency of each source of data.train among the tasks (reinforcement only); \
         without weights files are mixed by their size",
    ),
    key("data.test", "held-out tasks, likewise; file:10..20 selects those rows"),
    key("data.train_limit", "maximum training tasks of each source; 0 is all"),
    key(
        "data.train_exclude",
        "labels of training tasks that are left out, as name=value, such as gold_result=empty",
    ),
    key(
        "data.exercises",
        "copying exercises before the pretraining data of generated worlds, and one in every round \
         of it (supervised only)",
    ),
    key(
        "data.demonstrations",
        "of generated worlds: noisy (pretraining data of base models) or gold (the run's training \
         tasks, solved) (supervised only)",
    ),
    key("data.successes", "run folder whose successful rollouts are imitated (supervised only)"),
    key("data.success_reward", "minimum reward of imitated rollouts"),
    key("data.demonstration_tokens", "longer demonstrations are skipped (supervised only)"),
    key(
        "data.curriculum.label",
        "label whose levels open one after another (reinforcement only); without \
         [data.curriculum] all tasks are drawn from the beginning",
    ),
    key(
        "data.curriculum.levels",
        "values of the label from the first level to the last; [] is its numbers, ascending",
    ),
    key(
        "data.curriculum.by",
        "step, or success: the mean reward of rollouts of the highest open level",
    ),
    key("data.curriculum.first", "levels that are open at the beginning"),
    key("data.curriculum.steps", "training steps over which the others open, evenly (by step)"),
    key("data.curriculum.threshold", "mean reward that opens the next level (by success)"),
    key("data.curriculum.window", "last rollouts of the level that the mean is over (by success)"),
    key("data.seed", "seed of generated worlds and splits; shared by all seeds of an experiment"),
    key("reward.name", "reward function"),
    key(
        "reward.command",
        "program and arguments that compute rewards instead: one JSON line with the task and \
         the answer in, one number out; its processes are reused",
    ),
    key("reward.deadline", "timeout of the command in seconds (30); there is no reward after it"),
    key("reward.processes", "processes of the command (2)"),
    key("reward.flip", "probability that training sees 1 - r instead of the reward r"),
    key("reward.per_call", "added to the training reward for each call"),
    key("reward.per_token", "added to the training reward for each generated token"),
    key("reward.format_only", "training sees 1 for every well-formed rollout, right or wrong"),
    key("rollout.tasks", "tasks per step"),
    key("rollout.samples", "rollouts per task: the group size n"),
    key("rollout.temperature", "sampling temperature; the trainer divides its logits by it too"),
    key("rollout.top_p", "nucleus sampling; train with 1, other values bias the ratios"),
    key("rollout.top_k", "only the k most likely tokens; 0 is off"),
    key("rollout.max_tokens", "maximum tokens per response"),
    key("rollout.cache_tokens", "maximum tokens in the KV cache; further rollouts run in waves"),
    key(
        "rollout.engines",
        "engines that share the rollouts and model.threads, at most one per thread: for tiny \
         models on CPU cores; other devices have one",
    ),
    key(
        "rollout.refills",
        "maximum times that a step samples further tasks to replace those without reward variance \
         (dynamic sampling); 0 is off",
    ),
    key(
        "rollout.schedule",
        "lockstep (equal seeds give equal bytes) or continuous (rollouts do not wait for each \
         other's agents; for agents with slow tools)",
    ),
    key(
        "rollout.call_deadline",
        "timeout of one engine request in seconds (continuous schedule); 0 is unlimited",
    ),
    key(
        "rollout.turn_deadline",
        "seconds that an agent may take between a reply and its next request",
    ),
    key("rollout.rollout_deadline", "timeout of a rollout in seconds; 0 is unlimited"),
    key("rollout.step_deadline", "timeout of all rollouts of a step in seconds; 0 is unlimited"),
    key("rollout.at_least", "minimum rollouts with a reward per step; with fewer the run stops"),
    key("rollout.completions", "completions per state value estimate, if credit needs it"),
    key(
        "algorithm.aggregation",
        "token-mean, seq-mean-token-sum, seq-mean-token-mean, seq-mean-token-sum-norm (its gradient \
         is smaller by the mean length over the divisor: choose train.grad_clip for it), \
         per-rollout-mean, per-rollout-mean-over-rows; losses on whole rows have only one",
    ),
    key(
        "algorithm.aggregation_constant",
        "divisor of seq-mean-token-sum-norm for each row, in tokens (rollout.max_tokens); longest: \
         the longest row of the update for all rows together, as in verl",
    ),
    key("algorithm.entropy_coefficient", "factor of the entropy bonus; 0 is off"),
    key("algorithm.credit", CreditConfig::REFERENCE),
    key("algorithm.group_by", "calls are compared within a task, or within its role or turn"),
    key("algorithm.overlong", "max_tokens and buffer of a penalty near the token limit"),
    key("algorithm.advantage", AdvantageConfig::REFERENCE),
    key("algorithm.loss", LossConfig::REFERENCE),
    key("algorithm.kl", "estimator, coefficient (0 is off) and placement of a KL penalty"),
    key(
        "algorithm.correction",
        "weight = none, token or sequence with low, high, beyond; reject: rows or tokens with a \
         sampler-trainer mismatch",
    ),
    key("train.objective", "reinforcement or supervised"),
    key("train.steps", "number of steps"),
    key("train.init_from", "run folder whose latest checkpoint the run starts from, or RUN@STEP"),
    key("train.init_moments", "also start from the state of that run's optimiser"),
    key("train.optimizer", "adamw or muon"),
    key("train.learning_rate", "learning rate of AdamW (with muon: of embeddings and norms)"),
    key("train.matrix_learning_rate", "learning rate of Muon for the layers' matrices"),
    key("train.schedule", "constant, linear or cosine (to 0 at the last step)"),
    key("train.warmup", "steps of linear warm-up"),
    key("train.weight_decay", "decoupled weight decay"),
    key("train.beta1", "AdamW's first moment"),
    key("train.beta2", "AdamW's second moment"),
    key("train.grad_clip", "maximum gradient norm; 0 is off"),
    key("train.epochs", "passes over the rollouts of a step"),
    key("train.mini_batches", "updates per pass"),
    key(
        "train.micro_batch_tokens",
        "tokens per forward and backward pass; affects memory, not the gradient",
    ),
    key(
        "train.replicas",
        "replicas of the policy that share an update and model.threads, at most one per thread: \
         for tiny models on CPU cores; other devices have one, and so has a policy with adapters",
    ),
    key(
        "train.layout",
        "forest, trajectories or rows: common prefixes are computed once among all rows, those \
         of a rollout, or never; affects time, not the gradient",
    ),
    key("train.activation_checkpointing", "recompute activations in the backward pass"),
    key("train.roles", "agent roles that are trained; empty is all"),
    key("train.max_prompt_tokens", "calls with a longer prompt are excluded from training"),
    key(
        "train.truncated",
        "responses cut off by the token limit: train, or mask to leave them out",
    ),
    key(
        "train.patience_without_variance",
        "stop after this many consecutive steps without reward variance",
    ),
    key("train.batch", "demonstrations per step (supervised only)"),
    key(
        "train.staleness",
        "updates by which the weights that sample a step are behind those that it trains: 0 to 8; \
         needs algorithm.correction and a copy of the trained parameters for each",
    ),
    key(
        "train.replay.steps",
        "latest steps whose groups of rollouts are trained on again: 0 (off) to 64; needs \
         algorithm.correction",
    ),
    key("train.replay.share", "share of a step's rollout.tasks groups that come from them"),
    key("critic.width", "hidden units of the value head; 0 is the model's width"),
    key("critic.learning_rate", "learning rate of the value head, for algorithms with a critic"),
    key("critic.epochs", "passes of the critic over the rollouts of a step"),
    key("critic.clip", "clip range of value predictions around their old values"),
    key(
        "critic.trunk",
        "shared: the value head reads the policy's hidden states; own: those of a copy of the \
         policy's initial weights (with model.lora, of its adapters), which is trained with it",
    ),
    key("critic.trunk_learning_rate", "learning rate of the critic's own trunk"),
    key(
        "critic.warmup",
        "first steps of the run in which only the critic is fitted; train.warmup and \
         train.schedule begin after them",
    ),
    key("eval.every", "steps between evaluations; 0 evaluates at start and end only"),
    key("eval.tasks", "held-out tasks per evaluation; 0 is all"),
    key("eval.selection", "stratified: a random sample of the files, by data.seed; first"),
    key(
        "eval.strata",
        "labels that a stratified sample is proportional to; [] is the dataset's own",
    ),
    key("eval.samples", "rollouts per task in sampled evaluations: mean@k, pass@k, majority@k"),
    key("eval.modes", "sampled, greedy"),
    key("eval.temperature", "temperature of the sampled evaluation"),
    key("eval.max_tokens", "maximum tokens per response"),
    key("checkpoint.every", "steps between checkpoints; 0 is only at the end"),
    key("checkpoint.keep", "checkpoints kept"),
    key("report.paper_start", "level drawn into the curve: the paper's first evaluation"),
    key("report.paper_end", "the paper's last evaluation"),
    key("report.paper_label", "label of these levels"),
];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use leyden_lm::model::LoraConfig;
    use leyden_rl::aggregate::AggregationConstant;
    use leyden_rl::shaping::OverlongConfig;

    use super::{REFERENCE, reference};
    use crate::config::schema::Schema;
    use crate::config::{CurriculumConfig, Experiment, OpenBy, OwnKey, Preset, ReportConfig};

    const SMALLEST: &str = "name = 'x'\n[model]\nsource = 'tiny'\n[agent]\nname = 'a'\n\
        [data]\ntrain = ['world']\ntest = ['world']\n[train]\nsteps = 3\n";

    #[test]
    fn the_reference_names_every_key() {
        let mut experiment = Experiment::parse(SMALLEST, Path::new("x.toml"), &[], &()).unwrap();
        experiment.model.lora = Some(LoraConfig { rank: 1, alpha: 1.0, targets: vec![] });
        experiment.algorithm.aggregation_constant = Some(AggregationConstant::Tokens(1.0));
        experiment.algorithm.overlong = Some(OverlongConfig { max_tokens: 2, buffer: 1 });
        experiment.data.weights = vec![1.0];
        experiment.data.curriculum = Some(CurriculumConfig {
            label: "steps".to_owned(),
            levels: vec!["1".to_owned()],
            by: OpenBy::Step,
            first: 1,
            steps: Some(1),
            threshold: Some(1.0),
            window: Some(1),
        });
        experiment.reward.command = vec!["score".to_owned()];
        experiment.reward.deadline = Some(1.0);
        experiment.reward.processes = Some(1);
        experiment.report = ReportConfig {
            paper_start: Some(0.0),
            paper_end: Some(1.0),
            paper_label: Some("paper".to_owned()),
        };
        let table: toml::Table = toml::from_str(&experiment.to_toml()).unwrap();
        let mut found = Vec::new();
        collect(&table, "", &mut found);
        let known: Vec<&str> = REFERENCE.iter().map(|(path, _)| *path).collect();
        for key in &found {
            assert!(known.contains(&key.as_str()), "{key} is not described");
        }
        for key in known {
            assert!(found.iter().any(|f| f == key), "{key} is described but does not exist");
        }
    }

    struct Own;

    impl Schema for Own {
        fn keys(&self) -> Vec<OwnKey> {
            let key = |path| OwnKey::new(path, Preset::Text(""), "own");
            vec![key("agent.depth"), key("search.method"), key("data.folder")]
        }

        fn choices(&self, path: &str) -> Option<String> {
            (path == "agent.name").then(|| "a or b".to_owned())
        }
    }

    #[test]
    fn keys_of_benchmarks_are_listed_with_their_tables() {
        let keys = reference(&Own);
        let place = |path: &str| keys.iter().position(|key| key.path == path).unwrap();
        assert_eq!(keys[place("agent.name")].what, "the agent: a or b");
        assert_eq!(place("agent.depth"), place("agent.max_turns") + 1);
        assert_eq!(place("data.folder"), place("data.test") + 1);
        assert_eq!(place("search.method"), place("data.seed") + 1);
        assert_eq!(place("reward.name"), place("search.method") + 1);
    }

    fn collect(table: &toml::Table, prefix: &str, found: &mut Vec<String>) {
        for (name, value) in table {
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            // The algorithm tables have one description each.
            let own = ["credit", "advantage", "loss", "kl", "overlong", "correction"]
                .map(|table| format!("algorithm.{table}"));
            match value {
                toml::Value::Table(inner) if !own.contains(&path) => {
                    collect(inner, &path, found);
                }
                _ => found.push(path),
            }
        }
    }
}
