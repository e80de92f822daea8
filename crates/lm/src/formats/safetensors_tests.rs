use std::collections::BTreeMap;
use std::path::Path;

use tch::{Kind, Tensor};

use crate::formats::safetensors::{read_file, read_folder, write_file, write_folder, write_shards};
use crate::formats::test_model::{assert_same, borrowed, config, tensors};
use crate::model::config::LlamaConfig;

fn message(folder: &Path, config: &LlamaConfig) -> String {
    read_folder(folder, config).expect_err("must be refused").to_string()
}

/// A folder whose `model.safetensors` contains the model after `change`.
fn folder_with(change: impl FnOnce(&mut Vec<(String, Tensor)>)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut tensors = tensors(&config(true));
    change(&mut tensors);
    let path = folder.path().join("model.safetensors");
    write_file(&path, &borrowed(&tensors), None, &BTreeMap::new()).unwrap();
    folder
}

#[test]
fn a_folder_round_trips_in_each_type() {
    for (kind, dtype) in
        [(Kind::Float, "float32"), (Kind::BFloat16, "bfloat16"), (Kind::Half, "float16")]
    {
        let config = config(false);
        let model = tensors(&config);
        let folder = tempfile::tempdir().unwrap();
        write_folder(folder.path(), &config, &borrowed(&model), kind).unwrap();
        let json = folder.path().join("config.json");
        assert_eq!(LlamaConfig::from_file(&json).unwrap(), config);
        assert!(std::fs::read_to_string(json).unwrap().contains(dtype));
        let read = read_folder(folder.path(), &config).unwrap();
        assert!(read.iter().all(|(_, tensor)| tensor.kind() == kind));
        assert_same(&read, &model);
        let (_, metadata) = read_file(&folder.path().join("model.safetensors")).unwrap();
        assert_eq!(metadata["format"], "pt");
    }
}

#[test]
fn shards_replace_a_single_file_and_vice_versa() {
    let config = config(true);
    let model = tensors(&config);
    let folder = tempfile::tempdir().unwrap();
    let has = |name: &str| folder.path().join(name).exists();
    write_folder(folder.path(), &config, &borrowed(&model), Kind::Float).unwrap();
    write_shards(folder.path(), &config, &borrowed(&model), Kind::Float, 50_000).unwrap();
    assert!(!has("model.safetensors") && has("model.safetensors.index.json"));
    let files = std::fs::read_dir(folder.path()).unwrap();
    let shards: Vec<u64> = files
        .map(|file| file.unwrap())
        .filter(|file| file.file_name().to_string_lossy().starts_with("model-0000"))
        .map(|file| file.metadata().unwrap().len())
        .collect();
    // 64,320 parameters of four bytes in shards of at most 50,000 bytes, without headers.
    assert_eq!(config.parameters() * 4, 257_280);
    assert!(shards.len() >= 5 && shards.iter().all(|&bytes| bytes < 52_000), "{shards:?}");
    assert_same(&read_folder(folder.path(), &config).unwrap(), &model);
    write_folder(folder.path(), &config, &borrowed(&model), Kind::Float).unwrap();
    assert!(has("model.safetensors") && !has("model.safetensors.index.json"));
}

#[test]
fn a_tied_model_ignores_a_head_and_an_untied_one_needs_it() {
    let folder = folder_with(|list| {
        list.push(("lm_head.weight".to_owned(), list[0].1.shallow_clone() + 1));
    });
    assert_same(&read_folder(folder.path(), &config(true)).unwrap(), &tensors(&config(true)));
    let untied = read_folder(folder.path(), &config(false)).unwrap();
    assert!(untied.last().unwrap().1.equal(&(&untied[0].1 + 1)));
    let without_head = folder_with(|_| {});
    let error = message(without_head.path(), &config(false));
    assert!(error.contains("model.safetensors: tensor `lm_head.weight` is missing"), "{error}");
}

#[test]
fn mismatched_tensors_are_reported() {
    let missing = folder_with(|list| drop(list.remove(3)));
    let error = message(missing.path(), &config(true));
    assert!(error.contains("`model.layers.0.self_attn.v_proj.weight` is missing"), "{error}");

    let surplus = folder_with(|list| list.push(("a.bias".to_owned(), Tensor::from(1f32))));
    let error = message(surplus.path(), &config(true));
    assert!(error.contains("`a.bias` has no place"), "{error}");

    let turned = folder_with(|list| list[2].1 = list[2].1.tr().contiguous());
    let error = message(turned.path(), &config(true));
    assert!(error.contains("k_proj.weight` has shape [64, 32]"), "{error}");

    let whole = folder_with(|list| list[2].1 = list[2].1.to_kind(Kind::Int64));
    let error = message(whole.path(), &config(true));
    assert!(error.contains("k_proj.weight` has type I64"), "{error}");
}

#[test]
fn damaged_files_are_refused_with_their_name() {
    let folder = folder_with(|_| {});
    let path = folder.path().join("model.safetensors");
    let whole = std::fs::read(&path).unwrap();
    for length in [0, 4, 8, 100, 3000, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = message(folder.path(), &config(true));
        assert!(error.contains("model.safetensors: is cut short or damaged"), "{error}");
    }
    let hostile: [(u64, &str); 4] = [
        (u64::MAX, "{}"),
        (1 << 26, "{}"),
        (200, r#"{"a":{"dtype":"F32","shape":[9223372036854775807,4],"data_offsets":[0,0]}}"#),
        (200, r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[18446744073709551000,4]}}"#),
    ];
    for (length, header) in hostile {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend(format!("{header:200}").bytes());
        std::fs::write(&path, bytes).unwrap();
        let error = message(folder.path(), &config(true));
        assert!(error.contains("model.safetensors: is "), "{error}");
    }
}

#[test]
fn an_index_must_not_reach_outside_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    assert!(message(folder.path(), &config(true)).contains("holds neither model.safetensors nor"));
    let index = folder.path().join("model.safetensors.index.json");
    std::fs::write(&index, r#"{"weight_map": {"a.weight": "../secret"}}"#).unwrap();
    let error = message(folder.path(), &config(true));
    assert!(error.contains("`a.weight` is listed in \"../secret\""), "{error}");
    std::fs::write(&index, r#"{"weight_map": {"a.weight": "gone.safetensors"}}"#).unwrap();
    assert!(message(folder.path(), &config(true)).contains("gone.safetensors"));
}

/// The random model of the shared golden numbers, as transformers wrote it.
#[test]
fn a_folder_that_transformers_wrote_is_read() {
    let Some(folder) = leyden_core::shared_material("fixtures/llama_parity") else { return };
    let config = LlamaConfig::from_file(&folder.join("config.json")).unwrap();
    let read = read_folder(&folder, &config).unwrap();
    let count: usize = read.iter().map(|(_, tensor)| tensor.numel()).sum();
    assert_eq!(count, config.parameters());
}
