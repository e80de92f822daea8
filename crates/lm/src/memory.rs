//! Estimates a run's memory before anything is loaded, by arithmetic on shapes.
//!
//! Each line follows what this crate allocates: the flat buffers of [`crate::model::Parameters`]
//! and of the optimiser, the joined matrices of [`crate::model::Weights`], the tensors that
//! autograd keeps of one [`crate::model::transform`], a chunk of logits, the KV cache. Lines are
//! summed as if all existed at once, so the total is an upper bound except for allocator overhead
//! and libtorch itself (about 0.3 GB).

use std::fmt;

use tch::{Device, Kind};

use crate::error::LmError;
use crate::model::adapter::LoraConfig;
use crate::model::config::LlamaConfig;
use crate::model::parameters::projection_shapes;
use crate::policy::head::CHUNK_NUMBERS;

/// Resident memory of this process in bytes, where the system reports it.
pub fn resident_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(kilobytes.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Bytes of the two f32 moments of AdamW per trained parameter.
const ADAMW_BYTES: u64 = 8;

/// The trained parameters.
#[derive(Debug, Clone, PartialEq)]
pub enum Training {
    /// None: generation and evaluation only.
    Frozen,
    /// All; `master`: the optimiser keeps f32 copies of narrower parameters.
    Full { master: bool },
    /// f32 adapters on a frozen base.
    Lora(LoraConfig),
}

/// The parameters of a run that determine its memory.
#[derive(Debug, Clone, PartialEq)]
pub struct MemoryRequest {
    pub config: LlamaConfig,
    /// Type in which the model's parameters are stored.
    pub parameters: Kind,
    /// Type of activations, of the compute weights and of the KV cache.
    pub compute: Kind,
    pub training: Training,
    /// Whether full fine-tuning keeps a frozen copy of the model, for a KL penalty.
    pub reference: bool,
    /// Whether a critic trains a copy of the layers, or adapters of its own on the frozen base. Its
    /// passes come before those of the policy and need the same memory.
    pub trunk: bool,
    /// Number of earlier versions of the trained parameters that are kept for sampling.
    pub earlier: usize,
    /// Tokens of one micro-batch, prefixes merged.
    pub pack_tokens: usize,
    /// Replicas that share a micro-batch, each with its own gradients.
    pub replicas: usize,
    /// Whether each layer is recomputed in the backward pass.
    pub checkpointing: bool,
    /// Maximum number of actions whose logits exist at once; by default as in
    /// [`crate::policy::PolicyOptions`].
    pub head_chunk: Option<usize>,
    /// Rollouts that generate concurrently; 0 for training alone.
    pub rollouts: usize,
    /// Longest context of a rollout, prompt and response.
    pub context: usize,
}

/// One use of memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryLine {
    pub name: &'static str,
    pub bytes: u64,
    /// How the value is computed.
    pub detail: String,
}

/// All uses of memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPlan {
    pub lines: Vec<MemoryLine>,
}

impl MemoryPlan {
    /// Bytes of all lines.
    pub fn total(&self) -> u64 {
        self.lines.iter().map(|line| line.bytes).sum()
    }

    /// Whether `available` bytes are enough.
    pub fn fits(&self, available: u64) -> bool {
        self.total() <= available
    }

    /// Bytes of the line called `name`; 0 if there is none.
    pub fn bytes(&self, name: &str) -> u64 {
        self.lines.iter().find(|line| line.name == name).map_or(0, |line| line.bytes)
    }
}

impl MemoryRequest {
    /// The plan. Lines of 0 bytes are left out.
    ///
    /// # Errors
    /// LoRA targets that the model does not have; number types that weights cannot have.
    pub fn plan(&self) -> Result<MemoryPlan, LmError> {
        let (stored, compute) = (width(self.parameters)?, width(self.compute)?);
        let parameters = self.config.parameters() as u64;
        let (trained, trained_width) = match &self.training {
            Training::Frozen => (0, stored),
            Training::Full { .. } => (parameters, stored),
            Training::Lora(lora) => (adapter_parameters(&self.config, lora)?, 4),
        };
        let master = match self.training {
            Training::Full { master: true } if self.parameters != Kind::Float => parameters * 4,
            _ => 0,
        };
        let adapters = if matches!(self.training, Training::Lora(_)) { trained * 4 } else { 0 };
        let mut lines = Vec::new();
        let mut line = |name, bytes, detail: String| {
            if bytes > 0 {
                lines.push(MemoryLine { name, bytes, detail });
            }
        };
        let kind = self.parameters;
        line("weights", parameters * stored, format!("{parameters} parameters in {kind:?}"));
        line("adapters", adapters, format!("{trained} parameters in f32"));
        let training = trained > 0;
        let joined = self.joined_weights(stored, compute);
        let of_joined = if self.parameters == self.compute {
            "q, k, v and gate, up joined".to_owned()
        } else {
            format!("all weights in {:?}", self.compute)
        };
        if training {
            line("compute weights", joined, of_joined.clone());
        }
        let copies = self.replicas as u64;
        let of_whom = match copies {
            1 => format!("of {trained} parameters"),
            _ => format!("of {trained} parameters, {copies} replicas"),
        };
        line("gradients", copies * trained * trained_width, of_whom);
        line("optimiser state", trained * ADAMW_BYTES, "two f32 moments".to_owned());
        line("master weights", master, "f32".to_owned());
        if self.reference && matches!(self.training, Training::Full { .. }) {
            let copy = parameters * compute;
            line("reference model", copy, format!("the first policy in {:?}", self.compute));
        }
        if self.trunk {
            let trained = trained - self.separate_head();
            let kind = if adapters > 0 { Kind::Float } else { self.parameters };
            let detail = format!("{trained} parameters in {kind:?}");
            line("critic's trunk", trained * trained_width, detail);
            let detail = format!("of {trained} parameters");
            line("critic's gradients", trained * trained_width, detail);
            let moments = "two f32 moments".to_owned();
            line("critic's optimiser state", trained * ADAMW_BYTES, moments);
        }
        if self.earlier > 0 {
            // While the newest is kept, the engine still has the one before the oldest.
            let versions = self.earlier as u64 + 1;
            let bytes = versions * trained * trained_width;
            line("earlier weights", bytes, format!("{versions} versions of {trained} parameters"));
        }
        if training {
            let tokens = self.pack_tokens;
            let how = if self.checkpointing { "layer inputs and one layer" } else { "all layers" };
            let whose = if self.trunk { "; of critic and policy in turn" } else { "" };
            let detail = format!("{tokens} tokens, {how}{whose}");
            line("activations", self.activations(compute), detail);
            line("logits chunk", self.logits(), format!("{} actions", self.chunk()));
        }
        if matches!(self.training, Training::Full { .. }) {
            let head = (self.config.vocab_size * self.config.hidden_size) as u64;
            line("head gradient", head * compute, "passing, before it is added".to_owned());
        }
        let (rollouts, context) = (self.rollouts, self.context);
        line("KV cache", self.kv_cache(compute), format!("{rollouts} × {context} tokens"));
        if rollouts > 0 {
            line("engine's weights", joined + self.merged(stored), of_joined);
        }
        Ok(MemoryPlan { lines })
    }

    /// Trained parameters of a language-model head of its own, which a critic's trunk lacks.
    fn separate_head(&self) -> u64 {
        match self.training {
            Training::Full { .. } if !self.config.tied => {
                (self.config.vocab_size * self.config.hidden_size) as u64
            }
            _ => 0,
        }
    }

    /// Bytes of a [`crate::model::Weights`] beyond the parameters it shares.
    fn joined_weights(&self, stored: u64, compute: u64) -> u64 {
        if self.parameters == self.compute {
            self.projections(|p| !matches!(p, "o_proj" | "down_proj")) * stored
        } else {
            self.config.parameters() as u64 * compute
        }
    }

    /// Bytes of the projections copied when the engine merges adapters, beyond those that are
    /// joined anyway.
    fn merged(&self, stored: u64) -> u64 {
        let Training::Lora(lora) = &self.training else { return 0 };
        if self.parameters != self.compute {
            return 0;
        }
        let targeted = |p: &str| lora.targets.iter().any(|target| target == p);
        self.projections(|p| matches!(p, "o_proj" | "down_proj") && targeted(p)) * stored
    }

    /// Parameters of the layers' projections that `choose` selects.
    fn projections(&self, choose: impl Fn(&str) -> bool) -> u64 {
        projections(&self.config)
            .into_iter()
            .filter(|(name, ..)| choose(name))
            .map(|(_, out, input)| out * input)
            .sum::<u64>()
            * self.config.layers as u64
    }

    /// Bytes that autograd keeps of a layer, per token: both norms' f32 inputs, scaled values
    /// and results; q, k, v before and after rotation; attention's result per tree and joined;
    /// gate and up, silu(gate), their product.
    fn layer_activations(&self, compute: u64) -> u64 {
        let c = &self.config;
        let (d, f) = (c.hidden_size as u64, c.intermediate_size as u64);
        let (q, kv) = ((c.heads * c.head_dim) as u64, (c.kv_heads * c.head_dim) as u64);
        8 * d + compute * (4 * d + (q + 2 * kv) + (q + kv) + 2 * q + 4 * f)
    }

    fn activations(&self, compute: u64) -> u64 {
        let c = &self.config;
        let (d, f) = (c.hidden_size as u64, c.intermediate_size as u64);
        let layers = c.layers as u64;
        let kept = if self.checkpointing {
            layers * d * compute + self.layer_activations(compute)
        } else {
            layers * self.layer_activations(compute)
        };
        // The final norm, the gradient of the backward pass (f32), and one layer's gradients.
        let passing = 4 * d + 2 * compute * d + 4 * d + compute * (4 * d + 4 * f);
        (kept + passing) * self.pack_tokens as u64
    }

    fn chunk(&self) -> u64 {
        let default = (CHUNK_NUMBERS as usize / self.config.vocab_size.max(1)).max(1);
        self.head_chunk.unwrap_or(default).min(self.pack_tokens) as u64
    }

    /// Log-probabilities, probabilities and gradient of a chunk, f32.
    fn logits(&self) -> u64 {
        self.chunk() * self.config.vocab_size as u64 * 12
    }

    fn kv_cache(&self, compute: u64) -> u64 {
        let c = &self.config;
        let per_token = 2 * c.layers * c.kv_heads * c.head_dim;
        per_token as u64 * compute * self.context as u64 * self.rollouts as u64
    }
}

fn width(kind: Kind) -> Result<u64, LmError> {
    crate::formats::tensors::kind_name(kind)?;
    Ok(kind.elt_size_in_bytes() as u64)
}

/// Name, rows and columns of the projections of one layer.
fn projections(config: &LlamaConfig) -> Vec<(String, u64, u64)> {
    let one_layer = LlamaConfig { layers: 1, ..config.clone() };
    let matrix = |(name, shape): (String, Vec<i64>)| {
        let projection = name.strip_suffix(".weight")?.rsplit('.').next()?.to_owned();
        match shape.as_slice() {
            [out, input] if projection.ends_with("_proj") => {
                Some((projection, *out as u64, *input as u64))
            }
            _ => None,
        }
    };
    projection_shapes(&one_layer).into_iter().filter_map(matrix).collect()
}

/// Number of parameters of the adapters: rank · (in + out) for each adapted projection.
fn adapter_parameters(config: &LlamaConfig, lora: &LoraConfig) -> Result<u64, LmError> {
    let known = projections(config);
    let mut total = 0;
    for target in &lora.targets {
        let Some((_, out, input)) = known.iter().find(|(name, ..)| name == target) else {
            let names: Vec<&str> = known.iter().map(|(name, ..)| name.as_str()).collect();
            return Err(LmError::Invalid(format!(
                "LoRA target `{target}` is not a projection; there are {}",
                names.join(", ")
            )));
        };
        total += lora.rank as u64 * (out + input);
    }
    Ok(total * config.layers as u64)
}

/// Bytes in a suitable unit: 1 GB = 10⁹ bytes.
pub fn readable_bytes(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

impl fmt::Display for MemoryPlan {
    /// An aligned table: name, size, how the value is computed; the total last.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.lines.iter().map(|line| line.name.len()).max().unwrap_or(0).max(5);
        for MemoryLine { name, bytes, detail } in &self.lines {
            writeln!(f, "{name:width$}  {:>9}  {detail}", readable_bytes(*bytes))?;
        }
        write!(f, "{:width$}  {:>9}", "total", readable_bytes(self.total()))
    }
}

/// Bytes still available on `device`; `None` if unknown.
///
/// For the CPU, Linux's available memory, or less if a control group limits it; for CUDA, the value
/// reported by `nvidia-smi`.
pub fn available_memory(device: Device) -> Option<u64> {
    match device {
        Device::Cpu => {
            let free = kilobytes(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")?;
            Some(control_group_available().map_or(free, |rest| rest.min(free)))
        }
        Device::Cuda(index) => {
            let output = std::process::Command::new("nvidia-smi")
                .args(["--query-gpu=memory.free", "--format=csv,noheader,nounits"])
                .arg(format!("--id={index}"))
                .output()
                .ok()
                .filter(|output| output.status.success())?;
            mebibytes(&String::from_utf8_lossy(&output.stdout))
        }
        _ => None,
    }
}

/// `MemAvailable:   1234 kB` → bytes.
fn kilobytes(meminfo: &str, key: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

fn mebibytes(answer: &str) -> Option<u64> {
    answer.trim().parse::<u64>().ok()?.checked_mul(1 << 20)
}

/// The remainder of a control group's limit (version 2); file cache is reclaimed on demand.
fn control_group_available() -> Option<u64> {
    let read = |name: &str| std::fs::read_to_string(format!("/sys/fs/cgroup/memory.{name}")).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let statistics = read("stat")?;
    let cache = statistics.lines().find_map(|line| line.strip_prefix("inactive_file "));
    let cache = cache.and_then(|n| n.trim().parse::<u64>().ok()).unwrap_or(0);
    Some(number("max")?.saturating_sub(number("current")?.saturating_sub(cache)))
}

#[cfg(test)]
mod tests {
    use super::{MemoryRequest, Training, available_memory, kilobytes, mebibytes, readable_bytes};
    use crate::model::adapter::LoraConfig;
    use crate::model::config::LlamaConfig;
    use tch::{Device, Kind};

    fn request(name: &str, training: Training) -> MemoryRequest {
        MemoryRequest {
            config: LlamaConfig::named(name).unwrap(),
            parameters: Kind::BFloat16,
            compute: Kind::BFloat16,
            training,
            reference: false,
            trunk: false,
            earlier: 0,
            pack_tokens: 4096,
            replicas: 1,
            checkpointing: true,
            head_chunk: Some(512),
            rollouts: 32,
            context: 4096,
        }
    }

    #[test]
    fn full_fine_tuning_of_llama_3b_by_hand() {
        let plan = request("Llama-3.2-3B", Training::Full { master: true }).plan().unwrap();
        let n = 3_212_749_824;
        assert_eq!(plan.bytes("weights"), 2 * n);
        assert_eq!(plan.bytes("gradients"), 2 * n);
        assert_eq!(plan.bytes("optimiser state"), 8 * n);
        assert_eq!(plan.bytes("master weights"), 4 * n);
        // 28 layers: (3072 + 2 · 1024 + 2 · 8192) rows of 3072, two bytes each.
        assert_eq!(plan.bytes("compute weights"), 28 * 21_504 * 3072 * 2);
        assert_eq!(plan.bytes("engine's weights"), 28 * 21_504 * 3072 * 2);
        // Keys and values of 28 layers × 8 heads × 128, two bytes: 114,688 a token.
        assert_eq!(plan.bytes("KV cache"), 114_688 * 4096 * 32);
        assert_eq!(plan.bytes("logits chunk"), 512 * 128_256 * 12);
        assert_eq!(plan.bytes("head gradient"), 128_256 * 3072 * 2);
        // A layer per token: 8 · 3072 + 2 · (4 · 3072 + 5120 + 4096 + 6144 + 32768) = 145,408;
        // inputs of 28 layers 172,032; final norm and gradients 36,864 + 90,112 = 126,976.
        assert_eq!(plan.bytes("activations"), 4096 * (145_408 + 172_032 + 126_976));
        assert_eq!(plan.total(), plan.lines.iter().map(|line| line.bytes).sum::<u64>());
        // 51.4 GB at 16 bytes a parameter, 15.0 of cache, 7.4 of joined weights, 3.4 the rest.
        assert!(!plan.fits(77_000_000_000) && plan.fits(78_000_000_000), "{plan}");
    }

    #[test]
    fn lora_trains_rank_times_the_sides_of_each_target() {
        let lora = LoraConfig {
            rank: 16,
            alpha: 32.0,
            targets: vec!["q_proj".into(), "down_proj".into()],
        };
        let plan = request("Llama-3.2-3B", Training::Lora(lora)).plan().unwrap();
        // q: 3072 + 3072, down: 8192 + 3072; 16 · 17,408 · 28 layers.
        let adapters = 16 * 17_408 * 28;
        assert_eq!(plan.bytes("adapters"), 4 * adapters);
        assert_eq!(plan.bytes("gradients"), 4 * adapters);
        assert_eq!(plan.bytes("optimiser state"), 8 * adapters);
        assert_eq!(plan.bytes("head gradient"), 0);
        assert_eq!(plan.bytes("weights"), 6_425_499_648);
        let merged = plan.bytes("engine's weights") - plan.bytes("compute weights");
        assert_eq!(merged, 28 * 3072 * 8192 * 2);

        let unknown = LoraConfig { rank: 1, alpha: 1.0, targets: vec!["qkv".into()] };
        let error = request("tiny", Training::Lora(unknown)).plan().unwrap_err().to_string();
        assert!(error.contains("`qkv`") && error.contains("q_proj, k_proj"), "{error}");
    }

    #[test]
    fn f32_parameters_under_bf16_compute_are_copied_and_need_no_master() {
        let mut request = request("SmolLM2-135M", Training::Full { master: true });
        request.parameters = Kind::Float;
        let plan = request.plan().unwrap();
        assert_eq!(plan.bytes("weights"), 4 * 134_515_008);
        assert_eq!(plan.bytes("compute weights"), 2 * 134_515_008);
        assert_eq!(plan.bytes("master weights"), 0);
        request.parameters = Kind::Int64;
        assert!(request.plan().is_err());
    }

    #[test]
    fn checkpointing_saves_activations_and_generation_alone_needs_no_training() {
        let with = request("Llama-3.2-1B", Training::Full { master: false });
        let without = MemoryRequest { checkpointing: false, ..with.clone() };
        let bytes = |request: &MemoryRequest| request.plan().unwrap().bytes("activations");
        assert!(bytes(&without) > 4 * bytes(&with));
        let frozen = MemoryRequest { training: Training::Frozen, ..with };
        let names: Vec<_> = frozen.plan().unwrap().lines.iter().map(|line| line.name).collect();
        assert_eq!(names, ["weights", "KV cache", "engine's weights"]);
    }

    #[test]
    fn a_reference_model_costs_a_copy_unless_adapters_can_be_left_out() {
        let alone = request("SmolLM2-135M", Training::Full { master: false });
        let with_reference = MemoryRequest { reference: true, ..alone.clone() };
        let total = |request: &MemoryRequest| request.plan().unwrap().total();
        assert_eq!(total(&with_reference) - total(&alone), 2 * 134_515_008);
        let lora = LoraConfig { rank: 4, alpha: 8.0, targets: vec!["q_proj".to_owned()] };
        let alone = request("SmolLM2-135M", Training::Lora(lora));
        let with_reference = MemoryRequest { reference: true, ..alone.clone() };
        assert_eq!(total(&with_reference), total(&alone));
    }

    #[test]
    fn a_critic_s_trunk_is_a_second_model_without_head_or_second_adapters() {
        let lines = |request: &MemoryRequest| {
            let with = MemoryRequest { trunk: true, ..request.clone() };
            let [alone, with] = [request, &with].map(|request| request.plan().unwrap());
            let parts = ["critic's trunk", "critic's gradients", "critic's optimiser state"]
                .map(|name| with.bytes(name));
            assert_eq!(with.total() - alone.total(), parts.iter().sum::<u64>());
            parts
        };
        let mut full = request("SmolLM2-135M", Training::Full { master: false });
        let n = 134_515_008;
        assert_eq!(lines(&full), [2 * n, 2 * n, 8 * n]);
        // An untied head is not copied.
        full.config.tied = false;
        assert_eq!(lines(&full), [2 * n, 2 * n, 8 * n]);
        // 16 · (3072 + 3072) · 28 layers, f32.
        let lora = LoraConfig { rank: 16, alpha: 32.0, targets: vec!["q_proj".to_owned()] };
        let adapters = 16 * 6144 * 28;
        let lora = request("Llama-3.2-3B", Training::Lora(lora));
        assert_eq!(lines(&lora), [4 * adapters, 4 * adapters, 8 * adapters]);
    }

    #[test]
    fn earlier_versions_are_copies_of_the_trained_parameters() {
        let lora = LoraConfig { rank: 4, alpha: 8.0, targets: vec!["q_proj".to_owned()] };
        for training in [Training::Full { master: false }, Training::Lora(lora)] {
            let alone = request("SmolLM2-135M", training);
            let two = MemoryRequest { earlier: 2, ..alone.clone() };
            let [alone, two] = [alone, two].map(|request| request.plan().unwrap());
            // Gradients have the size and the type of the trained parameters.
            assert_eq!(two.bytes("earlier weights"), 3 * two.bytes("gradients"));
            assert_eq!(two.total() - alone.total(), two.bytes("earlier weights"));
        }
    }

    #[test]
    fn every_replica_has_gradients() {
        let alone = request("SmolLM2-135M", Training::Full { master: false });
        let two = MemoryRequest { replicas: 2, ..alone.clone() };
        let [alone, two] = [alone, two].map(|request| request.plan().unwrap());
        assert_eq!(two.bytes("gradients"), 2 * alone.bytes("gradients"));
        assert_eq!(two.total() - alone.total(), alone.bytes("gradients"));
    }

    #[test]
    fn the_table_is_aligned() {
        let plan = request("tiny", Training::Frozen).plan().unwrap();
        let text = plan.to_string();
        let ends: Vec<_> = text.lines().map(|line| line.find("B").unwrap_or(0)).collect();
        assert_eq!(text.lines().count(), 4);
        assert!(text.lines().last().unwrap().starts_with("total"));
        assert!(ends.iter().all(|&end| end == ends[0]), "{text}");
        assert_eq!(readable_bytes(999), "999 B");
        assert_eq!(readable_bytes(6_425_499_648), "6.43 GB");
    }

    #[test]
    fn system_output_is_parsed() {
        let meminfo = "MemTotal:       24689764 kB\nMemAvailable:   23333992 kB\n";
        assert_eq!(kilobytes(meminfo, "MemAvailable:"), Some(23_333_992 * 1024));
        assert_eq!(mebibytes("81037\n"), Some(81_037 << 20));
        assert_eq!(mebibytes("[N/A]"), None);
        if cfg!(target_os = "linux") {
            assert!(available_memory(Device::Cpu).is_some_and(|bytes| bytes > 1 << 20));
        }
    }
}
