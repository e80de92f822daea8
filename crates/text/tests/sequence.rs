//! Sequences for encoders: special tokens around the text, long texts truncated.

use leyden_text::Tokenizer;
use proptest::prelude::*;
use serde_json::json;

/// Words `a` … `e` as 0 … 4, between 5 and 6 if `framed`.
fn tokenizer(framed: bool) -> Tokenizer {
    let token = |name: &str| json!({ "SpecialToken": { "id": name, "type_id": 0 } });
    let whole = |name: &str, id: u32| json!({ "id": name, "ids": [id], "tokens": [name] });
    let frame = json!({
        "type": "TemplateProcessing",
        "single": [token("<"), { "Sequence": { "id": "A", "type_id": 0 } }, token(">")],
        "pair": [],
        "special_tokens": { "<": whole("<", 5), ">": whole(">", 6) },
    });
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": { "type": "WhitespaceSplit" },
        "post_processor": if framed { frame } else { json!(null) }, "decoder": null,
        "model": {
            "type": "WordLevel", "unk_token": "a",
            "vocab": { "a": 0, "b": 1, "c": 2, "d": 3, "e": 4, "<": 5, ">": 6 },
        },
    });
    Tokenizer::from_bytes(json.to_string().as_bytes()).unwrap()
}

#[test]
fn a_limit_below_the_special_tokens_is_refused() {
    let error = tokenizer(true).encode_sequence("b", 1).unwrap_err().to_string();
    assert!(error.contains("adds 2 tokens to a text of at most 1"), "{error}");
    assert_eq!(tokenizer(false).encode_sequence("b", 0).unwrap(), [0; 0]);
}

proptest! {
    #[test]
    fn a_sequence_is_the_frame_and_as_much_of_the_text_as_fits(
        ids in prop::collection::vec(0u32..5, 0..12),
        limit in 2usize..16,
    ) {
        let names = ["a", "b", "c", "d", "e"];
        let words: Vec<&str> = ids.iter().map(|&id| names[id as usize]).collect();
        let text = words.join(" ");
        let kept = |room: usize| ids.iter().copied().take(room).collect::<Vec<_>>();
        let framed = [vec![5], kept(limit - 2), vec![6]].concat();
        prop_assert_eq!(tokenizer(true).encode_sequence(&text, limit).unwrap(), framed);
        prop_assert_eq!(tokenizer(false).encode_sequence(&text, limit).unwrap(), kept(limit));
    }
}
