//! Chat formats as Hugging Face folders: which file provides what, and missing files.

use std::path::Path;

use leyden_core::Message;
use leyden_text::{BpeTraining, CHATML_TEMPLATE, ChatFormat, ChatTemplate, TextError, train_bpe};
use serde_json::json;

fn format() -> ChatFormat {
    let training = BpeTraining {
        vocab_size: 300,
        special: ["<pad>", "<|im_start|>", "<|im_end|>", "<eos>"].map(str::to_owned).to_vec(),
        protocol: vec!["<tool_call>".to_owned()],
        min_frequency: 2,
        isolated: None,
    };
    let mut tokenizer = train_bpe(["the jar and the wire"], &training).unwrap();
    (tokenizer.bos, tokenizer.eos, tokenizer.pad) = (Some(1), Some(3), Some(0));
    let template = ChatTemplate::new(CHATML_TEMPLATE, Some("<|im_start|>"), Some("<eos>")).unwrap();
    ChatFormat::new(tokenizer, template)
}

fn write(dir: &Path, file: &str, text: impl ToString) {
    std::fs::write(dir.join(file), text.to_string()).unwrap();
}

#[test]
fn a_saved_format_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let format = format();
    format.save_to_folder(dir.path()).unwrap();
    let again = ChatFormat::from_folder(dir.path()).unwrap();
    assert_eq!(again.stop_ids(), format.stop_ids());
    assert_eq!(again.end_of_turn(), Some(2));
    assert_eq!(again.tokenizer_config(), format.tokenizer_config());
    assert_eq!(again.tokenizer().to_json().unwrap(), format.tokenizer().to_json().unwrap());
    let (bos, eos, pad) = (again.tokenizer().bos, again.tokenizer().eos, again.tokenizer().pad);
    assert_eq!((bos, eos, pad), (Some(1), Some(3), Some(0)));
    let messages = [Message::user("the jar")];
    let text = again.render(&messages, &[], true).unwrap();
    assert_eq!(text, format.render(&messages, &[], true).unwrap());

    let embedded = ChatFormat::from_bytes(
        format.tokenizer().to_json().unwrap().as_bytes(),
        format.tokenizer_config().to_string().as_bytes(),
    )
    .unwrap();
    assert_eq!(embedded.stop_ids(), format.stop_ids());
}

#[test]
fn special_tokens_come_from_every_file_that_names_them() {
    let dir = tempfile::tempdir().unwrap();
    format().tokenizer().save(&dir.path().join("tokenizer.json")).unwrap();
    let config = json!({
        "eos_token": {"content": "<|im_end|>", "lstrip": false},
        "chat_template": "from the config",
    });
    write(dir.path(), "tokenizer_config.json", &config);
    write(dir.path(), "generation_config.json", json!({"eos_token_id": [3, 2]}));
    write(dir.path(), "config.json", json!({"eos_token_id": 0, "bos_token_id": 1}));
    let format = ChatFormat::from_folder(dir.path()).unwrap();
    assert_eq!(format.stop_ids().iter().copied().collect::<Vec<_>>(), [0, 2, 3]);
    assert_eq!(format.tokenizer().eos, Some(2), "tokenizer_config.json comes first");
    assert_eq!(format.tokenizer().bos, Some(1));
    assert_eq!(format.render(&[], &[], false).unwrap(), "from the config");
    write(dir.path(), "chat_template.jinja", "from its own file, {{ bos_token }}");
    let format = ChatFormat::from_folder(dir.path()).unwrap();
    let text = format.render(&[], &[], false).unwrap();
    assert_eq!(text, "from its own file, <|im_start|>");
}

#[test]
fn missing_and_broken_files_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    let error = || ChatFormat::from_folder(dir.path()).unwrap_err();
    assert!(error().to_string().contains("tokenizer.json"));
    write(dir.path(), "tokenizer.json", "{\"version\": ");
    assert!(
        matches!(error(), TextError::Malformed { file, .. } if file.ends_with("tokenizer.json"))
    );
    format().tokenizer().save(&dir.path().join("tokenizer.json")).unwrap();
    write(dir.path(), "tokenizer_config.json", "{}");
    let without = error();
    assert!(matches!(without, TextError::NoTemplate { .. }));
    assert!(without.to_string().contains("tokenizer_config.json has no chat_template"));
    write(dir.path(), "tokenizer_config.json", "[1]");
    assert!(error().to_string().contains("tokenizer_config.json"));
    write(dir.path(), "tokenizer_config.json", json!({"eos_token": "</s>", "chat_template": ""}));
    let unknown = error().to_string();
    assert!(unknown.contains("</s>") && unknown.contains("eos_token"), "{unknown}");
    write(dir.path(), "tokenizer_config.json", json!({"chat_template": "{% if %}"}));
    assert!(matches!(error(), TextError::Template(_)));
}
