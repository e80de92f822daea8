//! Shapes of known models by name, for plans made before any file exists.

use crate::model::config::{Llama3Scaling, LlamaConfig};

impl LlamaConfig {
    /// Names that [`LlamaConfig::named`] accepts.
    pub const NAMES: [&str; 4] = ["tiny", "SmolLM2-135M", "Llama-3.2-1B", "Llama-3.2-3B"];

    /// The shape of a known model; hub ids and the suffix `-Instruct` are accepted.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.rsplit('/').next().unwrap_or(name);
        match name.to_lowercase().trim_end_matches("-instruct") {
            "tiny" => Some(tiny()),
            "smollm2-135m" => Some(smollm2_135m()),
            "llama-3.2-1b" => Some(llama_3_2(2048, 16, 32, 64)),
            "llama-3.2-3b" => Some(llama_3_2(3072, 28, 24, 128)),
            _ => None,
        }
    }
}

/// A model that trains on two CPU cores in minutes.
fn tiny() -> LlamaConfig {
    LlamaConfig {
        vocab_size: 1024,
        hidden_size: 64,
        intermediate_size: 192,
        layers: 3,
        heads: 4,
        kv_heads: 4,
        head_dim: 16,
        norm_eps: 1e-5,
        rope_theta: 500.0,
        rope_scaling: None,
        max_positions: 512,
        tied: true,
        bos: None,
        eos: Vec::new(),
    }
}

fn smollm2_135m() -> LlamaConfig {
    LlamaConfig {
        vocab_size: 49_152,
        hidden_size: 576,
        intermediate_size: 1536,
        layers: 30,
        heads: 9,
        kv_heads: 3,
        head_dim: 64,
        norm_eps: 1e-5,
        rope_theta: 100_000.0,
        rope_scaling: None,
        max_positions: 8192,
        tied: true,
        bos: Some(1),
        eos: vec![2],
    }
}

/// The values shared by the 1B and the 3B model.
fn llama_3_2(hidden_size: usize, layers: usize, heads: usize, head_dim: usize) -> LlamaConfig {
    LlamaConfig {
        vocab_size: 128_256,
        hidden_size,
        intermediate_size: 8192,
        layers,
        heads,
        kv_heads: 8,
        head_dim,
        norm_eps: 1e-5,
        rope_theta: 500_000.0,
        rope_scaling: Some(Llama3Scaling {
            factor: 32.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_positions: 8192.0,
        }),
        max_positions: 131_072,
        tied: true,
        bos: Some(128_000),
        eos: vec![128_001, 128_008, 128_009],
    }
}

#[cfg(test)]
mod tests {
    use crate::model::config::LlamaConfig;

    /// Parameter counts from the models' cards and safetensors headers.
    #[test]
    fn named_models_have_their_published_sizes() {
        for (name, parameters) in [
            ("SmolLM2-135M", 134_515_008),
            ("meta-llama/Llama-3.2-1B-Instruct", 1_235_814_400),
            ("Llama-3.2-3B", 3_212_749_824),
        ] {
            assert_eq!(LlamaConfig::named(name).unwrap().parameters(), parameters, "{name}");
        }
        assert!(LlamaConfig::NAMES.iter().all(|name| LlamaConfig::named(name).is_some()));
        assert_eq!(LlamaConfig::named("Llama-4"), None);
    }
}
