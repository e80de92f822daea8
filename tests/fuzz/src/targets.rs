//! One function per fuzz target: passes an input to everything that reads inputs of its kind.
//!
//! The functions return normally for every input, valid or not. They are also compiled into the
//! end-to-end tests, which replay the corpus without instrumentation.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use leyden_core::{ChatRequest, FinishReason, Message, ToolSpec};
use leyden_lm::formats::LoadedModel;
use leyden_lm::formats::gguf::Gguf;
use leyden_lm::formats::safetensors::{read_file, read_folder};
use leyden_lm::model::{LlamaConfig, Parameters};
use leyden_lm::optim::{Optimizer, OptimizerConfig};
use leyden_mini::MiniSpider;
use leyden_spider::loader::WithoutRows;
use leyden_spider::{Limits, Spider};
use leyden_suite::Registry;
use leyden_sweep::SweepFile;
use leyden_text::{ChatFormat, ChatTemplate, ReplyStream, Tokenizer, ToolFormat};
use leyden_train::{Experiment, checkpoint};
use serde_json::{Map, Value, json};
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

/// A target's name, which is that of its corpus folder, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 10] = [
    ("safetensors", safetensors),
    ("gguf", gguf),
    ("tokenizer", tokenizer),
    ("chat_template", chat_template),
    ("tool_calls", tool_calls),
    ("dataset_rows", dataset_rows),
    ("experiment_toml", experiment_toml),
    ("checkpoint", checkpoint),
    ("sql", sql),
    ("calculator", calculator),
];

/// Splits an input at its first NUL; the second part is empty without one.
fn two_parts(data: &[u8]) -> (&[u8], &[u8]) {
    match data.iter().position(|byte| *byte == 0) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &[]),
    }
}

/// A temporary folder with one file.
fn file(name: &str, bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).expect("a temporary file");
    (folder, path)
}

/// Fails if tensors have more bytes than `most`.
fn check_bytes<'a>(tensors: impl IntoIterator<Item = &'a Tensor>, most: usize) {
    let bytes: usize = tensors.into_iter().map(|t| t.numel() * t.kind().elt_size_in_bytes()).sum();
    assert!(bytes <= most, "{bytes} bytes of tensors, more than {most}");
}

/// A file of weights; with a `config.json` and a NUL before it if it begins with a brace.
pub fn safetensors(data: &[u8]) {
    let small = json!({"model_type": "llama", "vocab_size": 4, "hidden_size": 4,
        "intermediate_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 1, "tie_word_embeddings": true});
    let (config, weights) = match data.first() {
        Some(b'{') => {
            let (config, weights) = two_parts(data);
            (serde_json::from_slice(config).unwrap_or_default(), weights)
        }
        _ => (small, data),
    };
    let (folder, path) = file("model.safetensors", weights);
    if let Ok((tensors, _)) = read_file(&path) {
        check_bytes(tensors.iter().map(|(_, tensor)| tensor), weights.len());
    }
    if let Ok(config) = LlamaConfig::from_json(&config, Path::new("config.json")) {
        let _ = config.parameters();
        let _ = read_folder(folder.path(), &config);
    }
}

pub fn gguf(data: &[u8]) {
    let (_folder, path) = file("model.gguf", data);
    let Ok(file) = Gguf::open(&path) else { return };
    for name in file.shapes().keys() {
        if let Ok(tensor) = file.tensor(name) {
            // Quantised types have at least 4.5 bits for each f32.
            check_bytes([&tensor], 8 * data.len());
        }
    }
    let _ = (file.types(), file.config(), file.tokenizer());
    let _ = LoadedModel::load(&path);
}

/// Texts that a tokenizer must encode.
const TEXTS: [&str; 5] =
    ["", "How much are 12 and 30?", "e\u{301} \u{1F980}\n\n  x'll", "<s>[INST]", "\u{0}\t\u{2028}"];

pub fn tokenizer(data: &[u8]) {
    let Ok(tokenizer) = Tokenizer::from_bytes(data) else { return };
    for text in TEXTS {
        if let Ok(ids) = tokenizer.encode(text) {
            let _ = (tokenizer.decode(&ids, true), tokenizer.decode(&ids, false));
        }
        let _ = (tokenizer.encode_literal(text), tokenizer.encode_sequence(text, 8));
    }
    let _ = tokenizer.to_json();
}

fn calculator_tool() -> ToolSpec {
    let parameters = json!({"type": "object", "required": ["expression"],
        "properties": {"expression": {"type": "string", "description": "What to compute."}}});
    ToolSpec { name: "calculator".to_owned(), description: "Computes.".to_owned(), parameters }
}

/// A template, or the value of `chat_template` in a configuration if it begins with a bracket; a
/// NUL and a JSON list of messages may follow.
pub fn chat_template(data: &[u8]) {
    let (source, messages) = two_parts(data);
    let source = String::from_utf8_lossy(source);
    let template = match serde_json::from_str::<Value>(&source) {
        Ok(list @ Value::Array(_)) => {
            ChatTemplate::from_config(&list, Some("<s>"), Some("</s>"), "tokenizer_config.json")
        }
        _ => ChatTemplate::new(&source, Some("<s>"), Some("</s>")),
    };
    let Ok(template) = template else { return };
    let usual = vec![
        json!({"role": "system", "content": "Be brief."}),
        json!({"role": "user", "content": "How much are 12 and 30?"}),
        json!({"role": "assistant", "content": "<think>\nEasy.\n</think>\n\n42", "tool_calls": [
            {"id": "call_0", "type": "function", "function": {"name": "calculator",
             "arguments": {"expression": "12 + 30"}}}]}),
        json!({"role": "tool", "content": "42", "tool_call_id": "call_0"}),
    ];
    let messages: Vec<Value> = serde_json::from_slice(messages).unwrap_or(usual);
    let tool = calculator_tool();
    let tools = [json!({"type": "function", "function": {"name": tool.name,
        "description": tool.description, "parameters": tool.parameters}})];
    let _ = template.render(&messages, None, false, &Map::new());
    let _ = template.render(&messages, Some(&tools), true, &Map::new());
}

static FORMAT: LazyLock<Arc<ChatFormat>> = LazyLock::new(|| {
    let (model, _) = leyden_suite::model::embedded::EMBEDDED[0].load().expect("the embedded model");
    model.format
});

/// A reply of a model.
pub fn tool_calls(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for format in [ToolFormat::Hermes, ToolFormat::Llama3Json, ToolFormat::HermesInSystem] {
        let parsed = format.parse(&text, 3);
        let written = format.write(&parsed.content, &parsed.calls);
        if !parsed.calls.is_empty() {
            assert_eq!(format.parse(&written, 3).calls, parsed.calls, "{written}");
        }
    }
    let request = ChatRequest {
        messages: vec![Message::user("How much are 12 and 30?")],
        tools: vec![calculator_tool()],
        stop: vec!["Observation:".to_owned(), "é!".to_owned()],
        ..ChatRequest::default()
    };
    let Ok(ids) = FORMAT.tokenizer().encode(&text) else { return };
    let mut stream = ReplyStream::new(&FORMAT, &request);
    let (mut content, mut calls) = (String::new(), Vec::new());
    for &id in &ids {
        let delta = stream.push(id);
        content.push_str(&delta.content);
        calls.extend(delta.tool_calls);
    }
    let end = stream.finish(FinishReason::Stop);
    content.push_str(&end.delta.content);
    calls.extend(end.delta.tool_calls);
    let reply = FORMAT.reply(&request, &ids, FinishReason::Stop);
    assert_eq!(content, end.content);
    assert_eq!(calls, reply.message.tool_calls);
    assert_eq!(end.reply, reply);
}

/// A folder of small databases, and the schemas in it.
static SPIDER: LazyLock<(TempDir, Spider)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    MiniSpider::new(1).write_databases(folder.path()).expect("databases");
    let limits = Limits {
        instructions: 1_000,
        time: Duration::from_secs(5),
        rows: 1_000,
        bytes: 1 << 20,
        memory: 32 << 20,
    };
    let spider = Spider::open(folder.path(), limits).expect("the folder just written");
    (folder, spider)
});

/// A file of rows for each of the loaders, and what is made of the rows.
pub fn dataset_rows(data: &[u8]) {
    let (_folder, path) = file("rows.jsonl", data);
    if let Ok(loaded) = leyden_calcx::loader::from_file(&path) {
        let _ = leyden_calcx::chain::demonstrations(&loaded.tasks);
        for task in &loaded.tasks {
            let _ = leyden_calcx::equation::infix(task);
        }
        let _: Vec<String> = loaded.rejected.iter().map(ToString::to_string).collect();
    }
    if let Ok(loaded) = leyden_musique::loader::from_file(&path) {
        let _ = leyden_musique::corpus::passages(&loaded.tasks);
        for task in &loaded.tasks {
            let _ = leyden_musique::corpus::supporting(task);
            let golds = leyden_musique::loader::golds(task);
            let _ = leyden_musique::metric::answer_agreement(&task.question, golds);
        }
    }
    let _ =
        leyden_suite::own_tasks::read(&path, |row, _| leyden_suite::own_tasks::task(row, "answer"));
    let _ = SPIDER.1.load(&path, WithoutRows::Keep);
    let _ = leyden_spider::schema::read_tables(&path);
}

static REGISTRY: LazyLock<Registry> = LazyLock::new(leyden_suite::registry);

/// An experiment or sweep; a NUL and overrides, one per line, may follow.
pub fn experiment_toml(data: &[u8]) {
    let (text, overrides) = two_parts(data);
    let Ok(text) = std::str::from_utf8(text) else { return };
    let overrides = String::from_utf8_lossy(overrides);
    let overrides: Vec<String> = overrides.lines().map(str::to_owned).collect();
    let path = Path::new("experiment.toml");
    if let Ok(experiment) = Experiment::parse(text, path, &overrides, &*REGISTRY) {
        let _ = experiment.rollout.deadlines();
        let written = experiment.to_toml();
        let again = Experiment::parse(&written, path, &[], &*REGISTRY);
        assert_eq!(again.expect("a written experiment is valid"), experiment);
    }
    let _ = Experiment::rewritten(text, &*REGISTRY);
    let _ = SweepFile::parse(text, Path::new("sweep.toml"));
    let _ = leyden_sweep::parse_seeds(text);
}

/// The `state.json` of a checkpoint, a NUL, and its `state.safetensors`.
pub fn checkpoint(data: &[u8]) {
    let (state, tensors) = two_parts(data);
    let (folder, path) = file("state.json", state);
    std::fs::write(folder.path().join("state.safetensors"), tensors).expect("a temporary file");
    drop(path);
    let Ok(saved) = checkpoint::read(folder.path(), 7) else { return };
    check_bytes(saved.tensors.iter().map(|(_, tensor)| tensor), tensors.len());
    let ones = Tensor::ones([2, 3], (Kind::Float, Device::Cpu));
    let weight = "model.layers.0.mlp.up_proj.weight".to_owned();
    let parameters = Parameters::new(vec![(weight, ones)], Kind::Float, Device::Cpu, true);
    let parameters = parameters.expect("six parameters");
    let mut optimizer =
        Optimizer::new(&parameters, OptimizerConfig::default()).expect("an optimiser");
    if checkpoint::restore_part(&parameters, &mut optimizer, saved.tensors).is_ok() {
        let _ = optimizer.step(&parameters, 1.0);
    }
}

/// A predicted query for a small database; with a reference query and a NUL before it.
pub fn sql(data: &[u8]) {
    let (first, second) = two_parts(data);
    let (gold, predicted) = match second {
        [] => ("SELECT name FROM singers ORDER BY age".into(), String::from_utf8_lossy(first)),
        _ => (String::from_utf8_lossy(first), String::from_utf8_lossy(second)),
    };
    let (spider, id) = (&SPIDER.1, "concert_hall");
    let database = spider.databases().get(id).expect("a database of the world");
    let _ = leyden_spider::judge(&database, &gold, &predicted);
    let _ = database.query(&predicted);
    let _ = spider.compare(id, &gold, &predicted);
    let _ = spider.hardness(id, &predicted);
    let _ = leyden_spider::clauses::compare(&gold, &predicted);
}

/// An expression for the calculator; a NUL and a reference result may follow.
pub fn calculator(data: &[u8]) {
    let (expression, gold) = two_parts(data);
    let (expression, gold) = (String::from_utf8_lossy(expression), String::from_utf8_lossy(gold));
    let result = leyden_calcx::calculate(&expression);
    assert!(!result.is_empty());
    let _ = leyden_calcx::calculator::is_plain_arithmetic(&expression);
    let _ = leyden_calcx::scorer::judge(Some(&expression), &gold);
    let _ = leyden_calcx::scorer::same_result(&result, &gold);
    let _ = leyden_calcx::chain::render(&leyden_calcx::chain::parse(&expression));
}
