//! The sentence encoder beside transformers and sentence-transformers (`golden.json`, made by
//! `golden.py`), and what it says of folders that are no encoder.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use leyden_lm::encoder::SentenceEncoder;
use leyden_lm::formats::safetensors::write_file;
use serde::Deserialize;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

#[derive(Deserialize)]
struct Golden {
    small: Vec<Small>,
    minilm: MiniLm,
}

#[derive(Deserialize)]
struct Small {
    config: Value,
    pooling: String,
    /// Token ids without special tokens.
    texts: Vec<Vec<u32>>,
    vectors: Vec<Vec<f32>>,
}

#[derive(Deserialize)]
struct MiniLm {
    /// With how often each is written one after the other.
    sentences: Vec<(String, usize)>,
    max_tokens: usize,
    /// The first components of each vector.
    first: Vec<Vec<f32>>,
    products: Vec<Vec<f32>>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("golden.json")).unwrap()
}

fn load(folder: &Path) -> SentenceEncoder {
    SentenceEncoder::load(folder, Device::Cpu, Kind::Float).unwrap()
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, |most, x| if x > most { x } else { most })
}

/// Names and shapes of a small model's tensors; its width is 8, its inner width 12.
fn shapes(config: &Value) -> BTreeMap<String, Vec<i64>> {
    let rows = |key: &str| vec![config[key].as_i64().unwrap(), 8];
    let mut shapes = BTreeMap::new();
    let mut add = |name: String, shape: Vec<i64>| {
        shapes.insert(format!("{name}.bias"), vec![shape[0]]);
        shapes.insert(format!("{name}.weight"), shape);
    };
    for layer in 0..2 {
        let name = |rest: &str| format!("encoder.layer.{layer}.{rest}");
        for square in ["self.query", "self.key", "self.value", "output.dense"] {
            add(name(&format!("attention.{square}")), vec![8, 8]);
        }
        add(name("intermediate.dense"), vec![12, 8]);
        add(name("output.dense"), vec![8, 12]);
        add(name("attention.output.LayerNorm"), vec![8]);
        add(name("output.LayerNorm"), vec![8]);
    }
    add("embeddings.LayerNorm".to_owned(), vec![8]);
    for (name, key) in [
        ("word", "vocab_size"),
        ("position", "max_position_embeddings"),
        ("token_type", "type_vocab_size"),
    ] {
        shapes.insert(format!("embeddings.{name}_embeddings.weight"), rows(key));
    }
    shapes
}

/// A small model of the golden file as a folder; `prefix` stands before its tensors' names.
fn small_folder(case: &Small, prefix: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, json: Value| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, json.to_string()).unwrap();
    };
    write("config.json", case.config.clone());
    write(
        "modules.json",
        json!([{ "type": "x.Transformer", "path": "" }, { "type": "x.Pooling", "path": "1_P" }]),
    );
    write("1_P/config.json", json!({ "pooling_mode": case.pooling }));
    write("tokenizer.json", tokenizer());
    let tensors: Vec<(String, Tensor)> = shapes(&case.config)
        .into_iter()
        .zip(0i64..)
        .map(|((name, shape), k)| {
            let i = Tensor::arange(shape.iter().product::<i64>(), (Kind::Double, Device::Cpu));
            let values = (i * 0.7 + 1.3 * k as f64).sin() * 0.5;
            let one = if name.ends_with("LayerNorm.weight") { 1.0 } else { 0.0 };
            let values = (values + one).to_kind(Kind::Float).view(shape.as_slice());
            (format!("{prefix}{name}"), values)
        })
        .collect();
    let borrowed: Vec<(&str, &Tensor)> = tensors.iter().map(|(n, t)| (n.as_str(), t)).collect();
    let path = folder.path().join("model.safetensors");
    write_file(&path, &borrowed, None, &BTreeMap::new()).unwrap();
    folder
}

/// Words `w4` … `w19` with their numbers as ids, between [CLS] and [SEP]. As in many published
/// files, it would pad and cut by itself.
fn tokenizer() -> Value {
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"];
    let names = (0..20).map(|id| special.get(id).map_or(format!("w{id}"), |s| (*s).to_owned()));
    let vocabulary: BTreeMap<String, u32> = names.zip(0..).collect();
    let token = |name: &str| json!({ "SpecialToken": { "id": name, "type_id": 0 } });
    let whole = |name: &str, id: u32| json!({ "id": name, "ids": [id], "tokens": [name] });
    json!({
        "version": "1.0",
        "truncation": { "max_length": 5, "strategy": "LongestFirst", "stride": 0, "direction": "Right" },
        "padding": {
            "strategy": { "Fixed": 9 }, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]",
        },
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": { "type": "WhitespaceSplit" },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [token("[CLS]"), { "Sequence": { "id": "A", "type_id": 0 } }, token("[SEP]")],
            "pair": [],
            "special_tokens": { "[CLS]": whole("[CLS]", 2), "[SEP]": whole("[SEP]", 3) },
        },
        "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]" },
    })
}

fn texts(case: &Small) -> Vec<String> {
    let text = |ids: &Vec<u32>| ids.iter().map(|id| format!("w{id} ")).collect();
    case.texts.iter().map(text).collect()
}

#[test]
fn small_models_agree_with_transformers() {
    for (case, prefix) in golden().small.iter().zip(["", "bert.", "roberta."]) {
        let folder = small_folder(case, prefix);
        let vectors = load(folder.path()).encode(&texts(case)).unwrap();
        for (ours, theirs) in vectors.iter().zip(&case.vectors) {
            let error = distance(ours, theirs);
            assert!(error < 1e-5, "{} by {}: {error}", case.config["model_type"], case.pooling);
        }
        assert_eq!(vectors.len(), case.vectors.len());
    }
}

#[test]
fn the_texts_beside_a_text_do_not_matter() {
    let case = &golden().small[0];
    let folder = small_folder(case, "");
    let encoder = load(folder.path());
    // Enough for several batches, in which every length comes again and again.
    let texts: Vec<String> = texts(case).into_iter().cycle().take(1200).collect();
    let vectors = encoder.encode(&texts).unwrap();
    for (number, (text, vector)) in texts.iter().zip(&vectors).enumerate().step_by(157) {
        let alone = encoder.encode(&[text]).unwrap();
        assert!(distance(&alone[0], vector) < 1e-5, "{number}");
    }
    assert_eq!(encoder.encode(&[""; 0]).unwrap(), [[0.0; 0]; 0]);
}

#[test]
fn a_text_is_cut_and_lower_cased_as_the_folder_says() {
    let case = &golden().small[0];
    let folder = small_folder(case, "");
    let write = |name: &str, json: Value| {
        fs::write(folder.path().join(name), json.to_string()).unwrap();
    };
    let encoder = load(folder.path());
    assert_eq!(encoder.max_tokens(), 16);
    // No more than the model has positions, whatever the files say.
    write("tokenizer_config.json", json!({ "model_max_length": 1e30 }));
    assert_eq!(load(folder.path()).max_tokens(), 16);
    write("tokenizer_config.json", json!({ "model_max_length": 7 }));
    assert_eq!(load(folder.path()).max_tokens(), 7);
    write("sentence_bert_config.json", json!({ "max_seq_length": 5, "do_lower_case": true }));
    let cut = load(folder.path());
    let expected = encoder.encode(&["w5 w6 w7"]).unwrap();
    assert_eq!(cut.encode(&[" W5 W6 w7 w8 w9 "]).unwrap(), expected);
    // Two special tokens leave room for none of its own.
    write("sentence_bert_config.json", json!({ "max_seq_length": 2 }));
    let none = load(folder.path()).encode(&["w5"]).unwrap();
    assert_eq!(none, encoder.encode(&[""]).unwrap());
    write("sentence_bert_config.json", json!({ "max_seq_length": 1 }));
    let error = load(folder.path()).encode(&["w5"]).unwrap_err().to_string();
    assert!(error.contains("adds 2 tokens to a text of at most 1"), "{error}");
}

#[test]
fn folders_that_are_no_encoder_are_told_in_a_sentence() {
    let case = &golden().small[0];
    let refused = |spoil: &dyn Fn(&Path), words: &str| {
        let folder = small_folder(case, "");
        spoil(folder.path());
        let Err(error) = SentenceEncoder::load(folder.path(), Device::Cpu, Kind::Float) else {
            panic!("was read in spite of: {words}");
        };
        let error = error.to_string();
        assert!(error.contains(words) && error.lines().count() == 1, "{error}");
    };
    for file in ["config.json", "tokenizer.json", "1_P/config.json"] {
        refused(&|folder| fs::remove_file(folder.join(file)).unwrap(), file);
    }
    let weights = "model.safetensors";
    refused(&|folder| fs::remove_file(folder.join(weights)).unwrap(), "holds neither model");
    refused(&|folder| fs::write(folder.join(weights), "x").unwrap(), "cut short");
    refused(&|folder| fs::remove_dir_all(folder).unwrap(), "is no folder");
    let configured = |key: &'static str, value: u32| {
        move |folder: &Path| {
            let mut config = case.config.clone();
            config[key] = json!(value);
            fs::write(folder.join("config.json"), config.to_string()).unwrap();
        }
    };
    refused(&configured("num_hidden_layers", 3), "tensor `encoder.layer.2");
    refused(&configured("intermediate_size", 16), "has shape [12, 8], the configuration asks");
    refused(&configured("vocab_size", 19), "20 tokens, the embedding only 19 rows");
}

#[test]
fn an_encoder_is_known_by_its_configuration_or_its_modules() {
    let folder = small_folder(&golden().small[0], "");
    let remove = |file: &str| fs::remove_file(folder.path().join(file)).unwrap();
    assert!(SentenceEncoder::is_in(folder.path()));
    remove("modules.json");
    assert!(SentenceEncoder::is_in(folder.path()));
    fs::write(folder.path().join("config.json"), r#"{"model_type": "llama"}"#).unwrap();
    assert!(!SentenceEncoder::is_in(folder.path()));
    fs::write(folder.path().join("modules.json"), "[]").unwrap();
    assert!(SentenceEncoder::is_in(folder.path()));
    assert!(!SentenceEncoder::is_in(&folder.path().join("none")));
}

/// `models/minilm` of the checkout, which `make minilm` makes.
fn minilm_folder() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/minilm");
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: there is no models/minilm; `make minilm` makes it");
    None
}

#[test]
fn minilm_agrees_with_sentence_transformers() {
    let Some(folder) = minilm_folder() else { return };
    let golden = golden().minilm;
    let encoder = load(&folder);
    assert_eq!((encoder.dimensions(), encoder.max_tokens()), (384, golden.max_tokens));
    let texts: Vec<String> = golden.sentences.iter().map(|(s, times)| s.repeat(*times)).collect();
    let vectors = encoder.encode(&texts).unwrap();
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let mut largest = 0.0f32;
    for (vector, (first, products)) in vectors.iter().zip(golden.first.iter().zip(&golden.products))
    {
        let ours: Vec<f32> = vectors.iter().map(|other| product(vector, other)).collect();
        largest = largest.max(distance(&vector[..first.len()], first));
        largest = largest.max(distance(&ours, products));
    }
    println!("largest error {largest:.1e}");
    assert!(largest < 1e-4, "{largest}");
}
