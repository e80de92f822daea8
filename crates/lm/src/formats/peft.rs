//! LoRA adapters in PEFT's file layout: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! In PEFT's files a tensor is named `base_model.model.{module}.lora_A.weight`; here an adapter is
//! named by the module's path in the model (`model.layers.0.self_attn.q_proj`), and A and B are
//! stored together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};
use tch::{Kind, Tensor};

use crate::error::LmError;
use crate::formats::files::read_json;
use crate::formats::safetensors::{read_file, write_file, write_json};
use crate::model::adapter::{Adapter, LoraConfig};
use crate::model::config::LlamaConfig;
use crate::model::parameters::projection_shapes;

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
const PREFIX: &str = "base_model.model.";

/// Reads an adapter folder for a model of `config`. A scale by √rank (`use_rslora`) is folded into
/// `alpha`.
///
/// # Errors
/// Missing or damaged files; adapters other than plain LoRA (DoRA, trained biases or whole modules,
/// ranks that differ); matrices that do not match the model.
pub fn read_adapters(
    folder: &Path,
    config: &LlamaConfig,
) -> Result<(LoraConfig, Vec<Adapter>), LmError> {
    let (rank, alpha) = read_config(&folder.join(CONFIG))?;
    let path = folder.join(WEIGHTS);
    let (tensors, _) = read_file(&path)?;
    let mut halves: BTreeMap<String, (Option<Tensor>, Option<Tensor>)> = BTreeMap::new();
    for (name, tensor) in tensors {
        let inner = name.strip_prefix(PREFIX).unwrap_or(&name);
        if let Some(module) = inner.strip_suffix(".lora_A.weight") {
            halves.entry(module.to_owned()).or_default().0 = Some(tensor);
        } else if let Some(module) = inner.strip_suffix(".lora_B.weight") {
            halves.entry(module.to_owned()).or_default().1 = Some(tensor);
        } else {
            return Err(LmError::file(&path, format!("tensor `{name}` is not part of plain LoRA")));
        }
    }
    // The model's order, regardless of the file's.
    let mut adapters = Vec::with_capacity(halves.len());
    for (name, shape) in projection_shapes(config) {
        let Some(module) = name.strip_suffix(".weight") else { continue };
        let Some(pair) = halves.remove(module) else { continue };
        let (Some(a), Some(b)) = pair else {
            let what = format!("adapter `{module}` has only one of lora_A and lora_B");
            return Err(LmError::file(&path, what));
        };
        let rank = rank as i64;
        let fits = matches!(shape.as_slice(), [out, inner]
            if a.size() == [rank, *inner] && b.size() == [*out, rank]);
        if !fits {
            let (a, b) = (a.size(), b.size());
            let what = format!(
                "adapter `{module}` has shapes {a:?} and {b:?}, which do not match rank {rank} \
                 and a projection of {shape:?}"
            );
            return Err(LmError::file(&path, what));
        }
        adapters.push(Adapter { module: module.to_owned(), a, b });
    }
    if let Some(module) = halves.keys().next() {
        return Err(LmError::file(
            &path,
            format!("adapter `{module}` is not for a projection of the model"),
        ));
    }
    if adapters.is_empty() {
        return Err(LmError::file(&path, "contains no adapter"));
    }
    let targets = targets(&adapters);
    Ok((LoraConfig { rank, alpha, targets }, adapters))
}

/// Last component of each module's path, without duplicates, in the model's order.
fn targets(adapters: &[Adapter]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    adapters
        .iter()
        .filter_map(|adapter| adapter.module.rsplit('.').next())
        .filter(|target| seen.insert(*target))
        .map(str::to_owned)
        .collect()
}

fn read_config(path: &Path) -> Result<(usize, f64), LmError> {
    let json = read_json(path)?;
    let key =
        |key: &str, what: String| LmError::Key { path: path.to_owned(), key: key.to_owned(), what };
    // Keys that change the meaning of the matrices must be absent, empty, or as listed here.
    for (name, plain) in [
        ("peft_type", json!("LORA")),
        ("bias", json!("none")),
        ("use_dora", json!(false)),
        ("fan_in_fan_out", json!(false)),
        ("lora_bias", json!(false)),
        ("modules_to_save", json!([])),
        ("rank_pattern", json!({})),
        ("alpha_pattern", json!({})),
    ] {
        let value = json.get(name).unwrap_or(&Value::Null);
        if !value.is_null() && *value != plain {
            return Err(key(
                name,
                format!("is {value}; only plain LoRA is supported, with {plain}"),
            ));
        }
    }
    let rank = json.get("r").and_then(Value::as_u64).filter(|r| (1..=1 << 16).contains(r));
    let rank = rank.ok_or_else(|| key("r", "is missing or not a valid rank".to_owned()))?;
    let alpha = json.get("lora_alpha").and_then(Value::as_f64).filter(|a| a.is_finite());
    let alpha = alpha.ok_or_else(|| key("lora_alpha", "is missing or not a number".to_owned()))?;
    let by_root = json.get("use_rslora").and_then(Value::as_bool).unwrap_or(false);
    Ok((rank as usize, if by_root { alpha * (rank as f64).sqrt() } else { alpha }))
}

/// Writes an adapter folder that PEFT, vLLM and others load. `base`: path or hub id of the base
/// model. Each file is replaced atomically.
///
/// # Errors
/// File-system errors.
pub fn write_adapters(
    folder: &Path,
    lora: &LoraConfig,
    adapters: &[Adapter],
    base: &str,
    kind: Kind,
) -> Result<(), LmError> {
    std::fs::create_dir_all(folder).map_err(|e| LmError::file(folder, e))?;
    let named: Vec<(String, &Tensor)> = adapters
        .iter()
        .flat_map(|adapter| {
            let name = |half: &str| format!("{PREFIX}{}.lora_{half}.weight", adapter.module);
            [(name("A"), &adapter.a), (name("B"), &adapter.b)]
        })
        .collect();
    let borrowed: Vec<(&str, &Tensor)> = named.iter().map(|(n, t)| (n.as_str(), *t)).collect();
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    write_file(&folder.join(WEIGHTS), &borrowed, Some(kind), &metadata)?;
    let config = json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "target_modules": lora.targets,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "modules_to_save": null,
        "use_rslora": false,
        "use_dora": false,
        "rank_pattern": {},
        "alpha_pattern": {},
    });
    write_json(&folder.join(CONFIG), &config)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::Value;
    use tch::{Device, Kind, Tensor};

    use super::{Adapter, LoraConfig, read_adapters, write_adapters};
    use crate::formats::safetensors::read_file;
    use crate::formats::test_model::config;

    fn ramp(rows: i64, columns: i64) -> Tensor {
        (Tensor::arange(rows * columns, (Kind::Float, Device::Cpu)) * 0.25).view([rows, columns])
    }

    fn adapters() -> Vec<Adapter> {
        let module = |name: &str| format!("model.layers.{name}");
        vec![
            Adapter { module: module("0.self_attn.k_proj"), a: ramp(3, 64), b: ramp(32, 3) },
            Adapter { module: module("1.self_attn.k_proj"), a: ramp(3, 64), b: ramp(32, 3) + 1 },
            Adapter { module: module("1.mlp.down_proj"), a: ramp(3, 96), b: ramp(64, 3) },
        ]
    }

    fn lora() -> LoraConfig {
        let targets = vec!["k_proj".to_owned(), "down_proj".to_owned()];
        LoraConfig { rank: 3, alpha: 6.0, targets }
    }

    fn written() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        write_adapters(folder.path(), &lora(), &adapters(), "some/base", Kind::Float).unwrap();
        folder
    }

    fn change(folder: &Path, key: &str, value: Value) {
        let path = folder.join("adapter_config.json");
        let mut json: Value =
            serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        json[key] = value;
        std::fs::write(path, json.to_string()).unwrap();
    }

    fn refusal(folder: &Path) -> String {
        read_adapters(folder, &config(true)).map(|_| ()).expect_err("refused").to_string()
    }

    #[test]
    fn adapters_round_trip_under_pefts_file_names() {
        let folder = written();
        let (tensors, _) = read_file(&folder.path().join("adapter_model.safetensors")).unwrap();
        assert_eq!(tensors[0].0, "base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight");
        assert_eq!(tensors[1].0, "base_model.model.model.layers.0.self_attn.k_proj.lora_B.weight");
        let (found, read) = read_adapters(folder.path(), &config(true)).unwrap();
        assert_eq!(found, lora());
        assert_eq!(read.len(), 3);
        for (found, expected) in read.iter().zip(adapters()) {
            assert_eq!(found.module, expected.module);
            assert!(found.a.equal(&expected.a) && found.b.equal(&expected.b));
        }
    }

    #[test]
    fn a_scale_by_the_root_of_the_rank_is_folded_into_alpha() {
        let folder = written();
        change(folder.path(), "use_rslora", true.into());
        let (found, _) = read_adapters(folder.path(), &config(true)).unwrap();
        // PEFT then multiplies by alpha / √rank.
        assert!((found.alpha / 3.0 - 6.0 / 3f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn unsupported_or_mismatched_adapters_are_rejected() {
        for (key, value) in [
            ("use_dora", Value::from(true)),
            ("bias", Value::from("all")),
            ("peft_type", Value::from("IA3")),
            ("modules_to_save", Value::from(vec!["lm_head"])),
            ("r", Value::from(0)),
            ("lora_alpha", Value::Null),
        ] {
            let folder = written();
            change(folder.path(), key, value);
            let error = refusal(folder.path());
            assert!(error.contains(&format!("adapter_config.json: key `{key}`")), "{error}");
        }
        let folder = written();
        change(folder.path(), "r", 4.into());
        assert!(refusal(folder.path()).contains("which do not match rank 4"));

        let mut foreign = adapters();
        foreign[0].module = "model.layers.7.self_attn.k_proj".to_owned();
        write_adapters(folder.path(), &lora(), &foreign, "", Kind::Float).unwrap();
        let error = refusal(folder.path());
        assert!(
            error.contains("`model.layers.7.self_attn.k_proj` is not for a projection"),
            "{error}"
        );

        let path = folder.path().join("adapter_model.safetensors");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        assert!(refusal(folder.path()).contains("adapter_model.safetensors: is cut short"));
    }
}
