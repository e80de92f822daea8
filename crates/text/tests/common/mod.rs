//! Chat formats of several families over one small tokenizer.

#![allow(dead_code, reason = "every test file uses some of it")]

use std::sync::Arc;

use leyden_core::{ChatRequest, Message, ResponseFormat, ToolSpec};
use leyden_text::{BpeTraining, ChatFormat, ChatTemplate, Grammar, Tokenizer, train_bpe};
use serde_json::{Value, json};

/// A template like Llama's: content trimmed, nothing after the end-of-turn token.
pub const TRIMMING: &str = r#"{{- bos_token }}
{%- for m in messages %}
    {{- '<|start|>' + m.role + '<|end|>\n\n' + m.content | trim + '<|eot|>' }}
{%- endfor %}
{#- tools: {"name": ..., "parameters": ...} #}
{%- if add_generation_prompt %}{{- '<|start|>assistant<|end|>\n\n' }}{% endif %}"#;

/// A template without tool support.
pub const PLAIN: &str = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + \
                         '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}\
                         {{ '<|im_start|>assistant\n' }}{% endif %}";

/// A vocabulary with tokens that cross the boundaries of markup, JSON and stop texts.
pub fn tokenizer() -> Tokenizer {
    let special =
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|start|>", "<|end|>", "<|eot|>"];
    let training = BpeTraining {
        vocab_size: 480,
        special: special.map(str::to_owned).to_vec(),
        protocol: vec!["<tool_call>\n{\"name\": \"".to_owned(), "}}\n</tool_call>".to_owned()],
        min_frequency: 2,
        isolated: None,
    };
    let texts = [
        "user the assistant system user\n\nthe assistant answers the user\n",
        "{\"name\": \"f\", \"arguments\": {\"x\": 1}} {\"name\": \"f\", \"parameters\": {}} \"x\": \"",
        "</tool_call> <tool_call> <|python_tag|> the </tool_call> <tool_call> <|python_tag|>",
        "Observation: the Observation: of stop</s> and stop</s>",
    ];
    let mut tokenizer = train_bpe(texts, &training).unwrap();
    tokenizer.eos = Some(0);
    tokenizer
}

pub fn format(template: &str) -> Arc<ChatFormat> {
    let template = ChatTemplate::new(template, Some("<|endoftext|>"), None).unwrap();
    Arc::new(ChatFormat::new(tokenizer(), template))
}

pub fn tool(name: &str, parameters: serde_json::Value) -> ToolSpec {
    ToolSpec { name: name.into(), description: "Does.".into(), parameters }
}

pub fn calculator() -> ToolSpec {
    let properties = json!({"expression": {"type": "string"}});
    let parameters =
        json!({"type": "object", "properties": properties, "required": ["expression"]});
    tool("calculator", parameters)
}

/// A request that offers the calculator.
pub fn request(messages: Vec<Message>) -> ChatRequest {
    ChatRequest { messages, tools: vec![calculator()], ..ChatRequest::default() }
}

/// Splits `text` into tokens; `choose` selects each from those that match next, shortest first:
/// spellings that tokenising the text would not give.
pub fn spell(
    tokenizer: &Tokenizer,
    text: &str,
    mut choose: impl FnMut(usize) -> usize,
) -> Vec<u32> {
    let mut rest = text.as_bytes();
    let mut ids = Vec::new();
    while !rest.is_empty() {
        let mut fitting: Vec<u32> = (0..tokenizer.vocab_size() as u32)
            .filter(|&id| !tokenizer.is_special(id))
            .filter(|&id| {
                let bytes = tokenizer.token_bytes(id);
                !bytes.is_empty() && rest.starts_with(bytes)
            })
            .collect();
        fitting.sort_by_key(|&id| tokenizer.token_bytes(id).len());
        let id = fitting[choose(fitting.len())];
        ids.push(id);
        rest = &rest[tokenizer.token_bytes(id).len()..];
    }
    ids
}

/// Consecutive random draws from `seed` (splitmix64).
pub struct Draws(pub u64);

impl Draws {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

pub fn allowed(grammar: &mut Grammar) -> Vec<u32> {
    let mask = grammar.allowed().unwrap();
    let bits = 0..mask.len() as u32 * 32;
    bits.filter(|id| mask[*id as usize / 32] >> (id % 32) & 1 == 1).collect()
}

pub fn json_request(schema: Value) -> ChatRequest {
    let response_format = ResponseFormat::JsonSchema(schema);
    ChatRequest { response_format, ..ChatRequest::default() }
}
