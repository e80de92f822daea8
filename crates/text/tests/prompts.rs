//! Prompts grow by tokens, replies are parsed, demonstrations match run-time prompts.

use leyden_core::{
    ChatRequest, FinishReason, Message, Speaker, ToolCall, ToolSpec, shared_material,
};
use leyden_text::{
    BpeTraining, CHATML_TEMPLATE, ChatFormat, ChatTemplate, Growth, History, TextError, Tokenizer,
    ToolFormat, train_bpe,
};
use proptest::prelude::*;
use serde_json::json;

/// A template like Llama's: content trimmed, nothing after the end-of-turn token.
const TRIMMING: &str = r#"{{- bos_token }}
{%- for m in messages %}
    {%- if m.role == 'tool' %}{% set role = 'ipython' %}{% else %}{% set role = m.role %}{% endif %}
    {{- '<|start|>' + role + '<|end|>\n\n' }}
    {%- if 'tool_calls' in m %}
        {{- '{"name": ' + m.tool_calls[0].function.name | tojson + ', "parameters": ' }}
        {{- m.tool_calls[0].function.arguments | tojson + '}<|eot|>' }}
    {%- else %}
        {{- m.content | trim + '<|eot|>' }}
    {%- endif %}
{%- endfor %}
{#- tools: {"name": ..., "parameters": ...} #}
{%- if add_generation_prompt %}{{- '<|start|>assistant<|end|>\n\n' }}{% endif %}"#;

/// A template without tool support.
const PLAIN: &str = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + \
                     '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}\
                     {{ '<|im_start|>assistant\n' }}{% endif %}";

/// A template that drops text before the last `</think>` of earlier answers.
const FORGETTING: &str = "{% for m in messages %}{% if m.role == 'assistant' and not loop.last %}\
    {% set text = m.content.split('</think>')[-1] %}{% else %}{% set text = m.content %}{% endif %}\
    {{ '<|im_start|>' + m.role + '\n' + text + '<|im_end|>\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

fn tokenizer() -> Tokenizer {
    let special =
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|start|>", "<|end|>", "<|eot|>"];
    let training = BpeTraining {
        vocab_size: 420,
        special: special.map(str::to_owned).to_vec(),
        protocol: vec!["<tool_call>\n{\"name\": \"".to_owned()],
        min_frequency: 2,
        isolated: None,
    };
    let texts = ["user the assistant system user\n\nthe assistant answers the user\n", "the the"];
    let mut tokenizer = train_bpe(texts, &training).unwrap();
    tokenizer.eos = Some(0);
    tokenizer
}

fn format(template: &str) -> ChatFormat {
    let template = ChatTemplate::new(template, Some("<|endoftext|>"), None).unwrap();
    ChatFormat::new(tokenizer(), template)
}

fn calculator() -> ToolSpec {
    ToolSpec {
        name: "calculator".into(),
        description: "Evaluates.".into(),
        parameters: json!({"type": "object", "properties": {"expression": {"type": "string"}}}),
    }
}

fn request(messages: Vec<Message>) -> ChatRequest {
    ChatRequest { messages, tools: vec![calculator()], ..ChatRequest::default() }
}

/// The sampled ids of `text`, spelt byte by byte: a spelling that tokenising the text again does
/// not give.
fn sampled(format: &ChatFormat, text: &str, ended: bool) -> Vec<u32> {
    let tokenizer = format.tokenizer();
    let mut ids: Vec<u32> = text
        .bytes()
        .map(|byte| {
            (0..tokenizer.vocab_size() as u32)
                .find(|&id| tokenizer.token_bytes(id) == [byte])
                .unwrap()
        })
        .collect();
    if ended {
        ids.extend(format.end_of_turn());
    }
    ids
}

/// Runs a conversation of `answers`; after each the agent adds a tool result. Returns the prompts
/// and the responses.
fn converse(
    format: &ChatFormat,
    answers: &[(String, bool)],
) -> (Vec<leyden_text::Prompt>, Vec<Vec<u32>>) {
    let mut history = History::new();
    let mut messages = vec![Message::system("be brief"), Message::user(" what? ")];
    let (mut prompts, mut responses) = (Vec::new(), Vec::new());
    for (text, ended) in answers {
        let request = request(messages.clone());
        let prompt = format.prompt(&history, &request).unwrap();
        let response = sampled(format, text, *ended);
        let finish = if *ended { FinishReason::Stop } else { FinishReason::Length };
        let reply = format.reply(&request, &response, finish);
        assert_eq!(reply.message.content, *text);
        history.push(prompt.clone(), response.clone(), reply.message.clone());
        let call =
            ToolCall { id: "call_0".into(), name: "calculator".into(), arguments: json!({}) };
        messages.push(reply.message);
        messages.push(Message::tool(&call, "84"));
        messages.push(Message::tool(&call, "85"));
        prompts.push(prompt);
        responses.push(response);
    }
    (prompts, responses)
}

#[test]
fn end_of_turn_and_tool_format_come_from_the_template() {
    for (template, end, tools) in [
        (CHATML_TEMPLATE, "<|im_end|>", ToolFormat::Hermes),
        (TRIMMING, "<|eot|>", ToolFormat::Llama3Json),
        (PLAIN, "<|im_end|>", ToolFormat::HermesInSystem),
    ] {
        let format = format(template);
        let id = format.tokenizer().token_id(end).unwrap();
        assert_eq!(format.end_of_turn(), Some(id));
        assert_eq!(format.stop_ids().iter().copied().collect::<Vec<_>>(), [0, id]);
        assert_eq!(format.tool_format(), tools);
    }
}

#[test]
fn a_sampled_end_of_turn_is_not_written_twice() {
    let format = format(CHATML_TEMPLATE);
    let (prompts, responses) = converse(&format, &[("ok".into(), true), ("x".into(), false)]);
    let tail = &prompts[1].ids[prompts[0].ids.len() + responses[0].len()..];
    let expected = "\n<|im_start|>user\n<tool_response>84</tool_response>\n<tool_response>85\
                    </tool_response><|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(format.tokenizer().decode(tail, true), expected);
    let (prompts, responses) = converse(&format, &[("ok".into(), false), ("x".into(), true)]);
    let tail = &prompts[1].ids[prompts[0].ids.len() + responses[0].len()..];
    assert_eq!(format.tokenizer().decode(tail, true), format!("<|im_end|>{expected}"));
}

#[test]
fn a_different_stop_token_replaces_the_templates() {
    let format = format(TRIMMING);
    let mut history = History::new();
    let first = request(vec![Message::user("q")]);
    let prompt = format.prompt(&history, &first).unwrap();
    let mut response = sampled(&format, "a", false);
    response.push(0);
    let reply = format.reply(&first, &response, FinishReason::Stop).message;
    assert_eq!(reply.content, "a");
    history.push(prompt, response, reply.clone());
    let next = request(vec![Message::user("q"), reply, Message::user("r")]);
    let prompt = format.prompt(&history, &next).unwrap();
    let text = format.tokenizer().decode(&prompt.ids, true);
    assert!(text.contains("a<|endoftext|><|start|>user"), "{text}");
}

#[test]
fn a_template_that_rewrites_history_is_detected() {
    let format = format(FORGETTING);
    let thinking = ("hm</think>yes".to_owned(), true);
    let (prompts, _) = converse(&format, &[thinking, ("no".into(), true)]);
    assert_eq!(prompts[1].growth, Growth::Rewritten);
    let text = format.tokenizer().decode(&prompts[1].ids, true);
    assert_eq!(text, prompts[1].rendered);
    assert!(!text.contains("hm"), "{text}");
}

#[test]
fn an_unrelated_conversation_is_fresh_and_the_longest_match_counts() {
    let format = format(CHATML_TEMPLATE);
    let mut history = History::new();
    let mut messages = vec![Message::user("q")];
    for answer in ["a", "b"] {
        let request = request(messages.clone());
        let prompt = format.prompt(&history, &request).unwrap();
        let response = sampled(&format, answer, true);
        messages.push(format.reply(&request, &response, FinishReason::Stop).message);
        messages.push(Message::user("and?"));
        history.push(prompt, response, messages[messages.len() - 2].clone());
    }
    let longest = format.prompt(&history, &request(messages.clone())).unwrap();
    let shorter = format.prompt(&history, &request(messages[..3].to_vec())).unwrap();
    let (Growth::Extended { reused: long }, Growth::Extended { reused: short }) =
        (longest.growth, shorter.growth)
    else {
        panic!("{:?} {:?}", longest.growth, shorter.growth);
    };
    assert!(long > short);
    let others = [
        request(vec![Message::user("other"), messages[1].clone(), Message::user("and?")]),
        request(vec![messages[0].clone(), Message::assistant("c"), Message::user("and?")]),
        request(vec![messages[0].clone()]),
        ChatRequest { tools: Vec::new(), ..request(messages.clone()) },
    ];
    for other in others {
        assert_eq!(format.prompt(&history, &other).unwrap().growth, Growth::Fresh);
    }
}

#[test]
fn replies_are_recognised_in_the_form_of_openai_clients() {
    let format = format(CHATML_TEMPLATE);
    let mut history = History::new();
    let first = request(vec![Message::user("q")]);
    let prompt = format.prompt(&history, &first).unwrap();
    let text = "So:\n<tool_call>\n{\"name\": \"calculator\", \"arguments\": {\"expression\":\"1\"}}\n</tool_call>";
    let response = sampled(&format, text, true);
    let reply = format.reply(&first, &response, FinishReason::Stop).message;
    assert_eq!(reply.tool_calls[0].id, "call_0");
    history.push(prompt, response, reply.clone());
    let stripped = Message { content: "So:".into(), ..reply.clone() };
    let result = Message::tool(&reply.tool_calls[0], "1");
    let next = request(vec![Message::user("q"), stripped, result]);
    let prompt = format.prompt(&history, &next).unwrap();
    assert!(matches!(prompt.growth, Growth::Extended { .. }), "{:?}", prompt.growth);
    assert!(format.tokenizer().decode(&prompt.ids, true).contains(text));
    let second = format.reply(&next, &sampled(&format, text, true), FinishReason::Stop);
    assert_eq!(second.message.tool_calls[0].id, "call_1");
}

#[test]
fn replies_are_searched_for_calls_only_where_tools_were_offered() {
    let format = format(CHATML_TEMPLATE);
    let ids = sampled(&format, "<tool_call>oops", true);
    let with = format.reply(&request(vec![]), &ids, FinishReason::Stop);
    assert!(with.malformed_call.is_some() && with.message.tool_calls.is_empty());
    let without = format.reply(&ChatRequest::default(), &ids, FinishReason::Stop);
    assert_eq!(without.malformed_call, None);
    assert_eq!(without.message.content, "<tool_call>oops");
}

#[test]
fn models_without_tool_support_get_a_description() {
    let format = format(PLAIN);
    let call = ToolCall { id: "c".into(), name: "calculator".into(), arguments: json!({"x": 1}) };
    let assistant = Message { tool_calls: vec![call.clone()], ..Message::assistant("") };
    let messages =
        [Message::user("q"), assistant, Message::tool(&call, "1"), Message::tool(&call, "2")];
    let text = format.render(&messages, &[calculator()], false).unwrap();
    assert!(text.starts_with("<|im_start|>system\nYou may call a tool"), "{text}");
    assert!(text.contains("calculator(expression: string): Evaluates."), "{text}");
    assert!(
        text.contains(
            "<|im_start|>assistant\n<tool_call>\n{\"name\": \"calculator\", \"arguments\": {\"x\": 1}}\n</tool_call><|im_end|>"
        ),
        "{text}"
    );
    assert!(
        text.ends_with(
            "<|im_start|>user\n<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</tool_response><|im_end|>\n"
        ),
        "{text}"
    );
    let with_system = [Message::system("Be kind."), Message::user("q")];
    let text = format.render(&with_system, &[calculator()], false).unwrap();
    assert!(text.starts_with("<|im_start|>system\nBe kind.\n\nYou may call"), "{text}");
}

/// Our text of a structured call equals the output of the models' own templates.
#[test]
fn structured_calls_are_written_as_real_templates_write_them() {
    let Some(folder) = shared_material("data/chat_templates") else { return };
    let arguments = json!({"expression": "2 * \"é\"", "n": [1, 2.5, null, true]});
    let call = ToolCall { id: "call_0".into(), name: "calculator".into(), arguments };
    for name in ["Qwen-Qwen2.5-7B-Instruct", "qwen3-0.6b.gguf", "meta-llama-Llama-3.2-3B-Instruct"]
    {
        let source = std::fs::read_to_string(folder.join(format!("{name}.jinja"))).unwrap();
        let template = ChatTemplate::new(&source, Some("<|im_start|>"), None).unwrap();
        let format = ChatFormat::new(tokenizer(), template);
        let structured = Message { tool_calls: vec![call.clone()], ..Message::assistant("") };
        let written = Message::assistant(format.tool_format().write("", &structured.tool_calls));
        let tail = [Message::tool(&call, "1"), Message::assistant("done")];
        let render = |assistant: Message| {
            let mut messages = vec![Message::user("q"), assistant];
            messages.extend(tail.clone());
            format.render(&messages, &[calculator()], true).unwrap()
        };
        assert_eq!(render(structured), render(written), "{name}");
    }
}

/// Real templates let a tool conversation grow; Qwen3's drops thinking once the user speaks.
#[test]
fn conversations_in_real_templates_extend() {
    let Some(folder) = shared_material("data/chat_templates") else { return };
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let template = ChatTemplate::new(
            &std::fs::read_to_string(&path).unwrap(),
            Some("<|endoftext|>"),
            None,
        );
        let format = ChatFormat::new(tokenizer(), template.unwrap());
        let call = ToolCall {
            id: "call_0".into(),
            name: "calculator".into(),
            arguments: json!({"expression": "1"}),
        };
        let calling = format.tool_format().write("", &[call]);
        let thinking = format!("<think>\nhm\n</think>\n\n{calling}");
        for answer in [calling, thinking] {
            let answers = [(answer.clone(), false), (answer, false), ("done".into(), false)];
            let (prompts, _) = converse(&format, &answers);
            for prompt in &prompts[1..] {
                assert!(matches!(prompt.growth, Growth::Extended { .. }), "{}", path.display());
            }
        }
        let mut history = History::new();
        let first = request(vec![Message::user("q")]);
        let prompt = format.prompt(&history, &first).unwrap();
        let response = sampled(&format, "<think>\nhm\n</think>\n\nyes", false);
        let reply = format.reply(&first, &response, FinishReason::Length).message;
        history.push(prompt, response, reply.clone());
        let next = request(vec![Message::user("q"), reply, Message::user("and?")]);
        let growth = format.prompt(&history, &next).unwrap().growth;
        let forgets = path.display().to_string().contains("qwen3");
        assert_eq!(growth == Growth::Rewritten, forgets, "{}", path.display());
    }
}

#[test]
fn demonstrations_match_run_time_prompts() {
    for template in [CHATML_TEMPLATE, TRIMMING, PLAIN] {
        let format = format(template);
        let call = ToolCall {
            id: "call_0".into(),
            name: "calculator".into(),
            arguments: json!({"expression": "12*7"}),
        };
        let messages = [
            Message::system("be brief"),
            Message::user("what is 12*7?"),
            Message { tool_calls: vec![call.clone()], ..Message::assistant("") },
            Message::tool(&call, "84"),
            Message::assistant("the answer"),
        ];
        let demonstration = format.encode_demonstration(&messages, &[calculator()]).unwrap();
        assert_eq!(demonstration.ids.len(), demonstration.mask.len());
        let learnt: Vec<u32> = demonstration
            .ids
            .iter()
            .zip(&demonstration.mask)
            .filter_map(|(&id, &learn)| learn.then_some(id))
            .collect();
        let end = format.end_of_turn().unwrap();
        let end_text = format.tokenizer().token(end).unwrap();
        let written = format.tool_format().write("", &[call]);
        assert_eq!(
            format.tokenizer().decode(&learnt, true),
            format!("{written}{end_text}the answer{end_text}")
        );
        let rendered = format.render(&messages, &[calculator()], false).unwrap();
        let text = format.tokenizer().decode(&demonstration.ids, true);
        assert_eq!(text, rendered.trim_end_matches('\n'));
        assert_eq!(demonstration.ids.last(), Some(&end));
    }
}

#[test]
fn demonstrations_without_answers_or_with_a_rewritten_past_are_refused() {
    let format = format(FORGETTING);
    let alone = format.encode_demonstration(&[Message::user("q")], &[]);
    assert!(matches!(alone, Err(TextError::NoAssistantMessage { messages: 1 })));
    let messages = [
        Message::user("q"),
        Message::assistant("hm</think>a"),
        Message::user("r"),
        Message::assistant("b"),
    ];
    let error = format.encode_demonstration(&messages, &[]).unwrap_err();
    assert!(matches!(error, TextError::RewrittenHistory { message: 3 }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Every prompt begins with the ids of the previous one and its response, and spells the
    /// conversation with the model's output unchanged in its place.
    #[test]
    fn prompts_extend(
        which in 0usize..3,
        answers in prop::collection::vec(("[a-zé🦀 \n{<]{0,12}", any::<bool>()), 1..5),
    ) {
        let template = [CHATML_TEMPLATE, TRIMMING, PLAIN][which];
        let format = format(template);
        let (prompts, responses) = converse(&format, &answers);
        prop_assert_eq!(prompts[0].growth, Growth::Fresh);
        let mut spelt = prompts[0].rendered.clone();
        let end = format.tokenizer().token(format.end_of_turn().unwrap()).unwrap();
        for i in 1..prompts.len() {
            let reused = prompts[i - 1].ids.len() + responses[i - 1].len();
            prop_assert_eq!(prompts[i].growth, Growth::Extended { reused });
            let mut before = prompts[i - 1].ids.clone();
            before.extend_from_slice(&responses[i - 1]);
            prop_assert_eq!(&prompts[i].ids[..reused], &before[..]);
            // The template's text after an answer that needs no trimming.
            let neutral: Vec<_> = answers[..i].iter().map(|_| ("x".to_owned(), true)).collect();
            let (neutral, _) = converse(&format, &[&neutral[..], &answers[i..]].concat());
            let tail = neutral[i].rendered.strip_prefix(&neutral[i - 1].rendered).unwrap();
            spelt.push_str(&answers[i - 1].0);
            spelt.push_str(tail.strip_prefix('x').unwrap());
            prop_assert_eq!(&format.tokenizer().decode(&prompts[i].ids, true), &spelt);
            if which != 1 {
                prop_assert_eq!(&prompts[i].rendered, &spelt);
            }
            prop_assert_eq!(spelt.matches(&end).count(), prompts[i].rendered.matches(&end).count());
        }
    }

    /// Without sampled messages, a prompt decodes to its own rendering.
    #[test]
    fn fresh_prompts_decode_to_their_rendering(contents in prop::collection::vec(".{0,20}", 1..5)) {
        let format = format(CHATML_TEMPLATE);
        let messages: Vec<_> = contents
            .iter()
            .enumerate()
            .map(|(i, text)| Message {
                role: if i % 2 == 0 { Speaker::User } else { Speaker::Assistant },
                ..Message::user(text)
            })
            .collect();
        let prompt = format.prompt(&History::new(), &request(messages)).unwrap();
        prop_assert_eq!(prompt.growth, Growth::Fresh);
        prop_assert_eq!(format.tokenizer().decode(&prompt.ids, true), prompt.rendered);
    }
}
