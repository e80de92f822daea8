use proptest::prelude::*;

use super::*;

fn task(chain: &str, gold: &str) -> Task {
    let mut fields = serde_json::Map::new();
    fields.insert("chain".into(), chain.into());
    Task { id: "t".into(), question: "?".into(), gold: gold.into(), labels: vec![], fields }
}

fn gadget(expression: &str) -> Step {
    Step::Gadget { id: "calculator".into(), expression: expression.into() }
}

const CHAIN: &str = "Two boxes hold 6 * 7 =\n<gadget id=\"calculator\">6 * 7</gadget>\n\
    <output>42</output>\n42 nuts, a third is\n<gadget id=\"calculator\">42/4</gadget>\n\
    <output>21/2 = around 10.5</output>\n10.5, since 3 &lt; 4.\n\n<result>21/2</result>";

#[test]
fn a_chain_is_split_at_its_tags() {
    let steps = parse(CHAIN);
    assert_eq!(
        steps,
        [
            Step::Text("Two boxes hold 6 * 7 =".into()),
            gadget("6 * 7"),
            Step::Output("42".into()),
            Step::Text("42 nuts, a third is".into()),
            gadget("42/4"),
            Step::Output("21/2 = around 10.5".into()),
            Step::Text("10.5, since 3 < 4.".into()),
            Step::Result("21/2".into()),
        ]
    );
}

#[test]
fn unknown_and_unclosed_tags_stay_text() {
    let text = "a < b </x> <output>3 <gadget id=\"calculator>1</gadget> </result>";
    assert_eq!(parse(text), [Step::Text(text.into())]);
    assert_eq!(parse("  "), []);
}

#[test]
fn a_chain_becomes_a_conversation() {
    let demonstration = demonstration(&task(CHAIN, "10.5")).unwrap();
    assert_eq!(demonstration.calls(), 2);
    let call =
        |text: &str, call: &str| Turn::Assistant { text: text.into(), call: Some(call.into()) };
    assert_eq!(
        demonstration.turns,
        [
            call("Two boxes hold 6 * 7 =", "6 * 7"),
            Turn::Tool { output: "42".into() },
            call("42 nuts, a third is", "42/4"),
            Turn::Tool { output: "21/2 = around 10.5".into() },
            Turn::Assistant { text: "10.5, since 3 < 4.\n### ANSWER: 10.5 ###".into(), call: None },
        ]
    );
    let without_calls = super::demonstration(&task("So B.\n<result>B</result>", "B")).unwrap();
    assert_eq!(without_calls.calls(), 0);
    assert_eq!(without_calls.turns.len(), 1);
}

#[test]
fn flawed_chains_are_classified_and_counted() {
    let cases = [
        ("", "1", "no chain"),
        ("<gadget id=\"calculator\">1</gadget>\n<output>1</output>", "1", "no result"),
        ("<result>1</result> and more", "1", "no result"),
        ("<result>1</result> again <result>1</result>", "1", "no result"),
        ("<result>2</result>", "1", "other result"),
        (
            "<gadget id=\"oracle\">1</gadget><output>1</output><result>1</result>",
            "1",
            "unknown tool",
        ),
        ("<gadget id=\"calculator\">1</gadget><result>1</result>", "1", "unpaired call"),
        ("<output>1</output><result>1</result>", "1", "unpaired call"),
        (
            "<gadget id=\"calculator\">1+1</gadget><output>3</output><result>1</result>",
            "1",
            "other output",
        ),
    ];
    let tasks: Vec<Task> = cases.iter().map(|(chain, gold, _)| task(chain, gold)).collect();
    let all = demonstrations(&tasks);
    assert!(all.found.is_empty());
    for ((_, flaw), (chain, _, kind)) in all.flawed.iter().zip(cases) {
        assert_eq!(flaw.kind(), kind, "{chain}");
    }
    assert_eq!(all.flaws()["no result"], 3);
    let message = all.flawed[8].1.to_string();
    assert_eq!(message, "its chain gives 3 for 1+1, but the calculator gives 2");
}

/// Non-empty trimmed text with all characters that need escaping.
fn content() -> impl Strategy<Value = String> {
    "[a-z0-9<>&;+*/ \n=é]{0,30}[a-z0-9<>&]".prop_map(|text| text.trim().to_owned())
}

/// Steps without adjacent texts, which would be parsed as one.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        content().prop_map(|expression| gadget(&expression)),
        content().prop_map(Step::Output),
        content().prop_map(Step::Result),
    ];
    prop::collection::vec((prop::option::of(content()), step), 0..6).prop_map(|pairs| {
        let with_text =
            |(text, step): (Option<String>, Step)| text.map(Step::Text).into_iter().chain([step]);
        pairs.into_iter().flat_map(with_text).collect()
    })
}

proptest! {
    #[test]
    fn any_text_can_be_parsed(text in ".{0,200}") {
        parse(&text);
        let _ = demonstration(&task(&text, "1"));
    }

    #[test]
    fn any_sequence_of_tags_can_be_parsed(
        pieces in prop::collection::vec(
            prop::sample::select(vec![
                "<gadget id=\"calculator\">", "</gadget>", "<output>", "</output>", "<result>",
                "</result>", "<", ">", "1+1", "2", "é", "\n", "<gadget id=\"", "\">", "&lt;",
            ]),
            0..30,
        ),
    ) {
        let text = pieces.concat();
        let steps = parse(&text);
        prop_assert!(steps.windows(2).all(|pair| !matches!(pair, [Step::Text(_), Step::Text(_)])));
        let _ = demonstration(&task(&text, "2"));
    }

    #[test]
    fn rendered_steps_round_trip(steps in steps()) {
        prop_assert_eq!(parse(&render(&steps)), steps);
    }
}

#[test]
fn a_long_chain_of_opening_tags_is_parsed_in_one_pass() {
    let text = "<output><result><gadget id=\"calculator\">".repeat(50_000);
    assert_eq!(parse(&text).len(), 1);
}
