//! The prompts of a rollout in readable form.
//!
//! Where a call's prompt extends the previous call's prompt and response, only the added part
//! (mostly tool results) is shown.

use super::Call;

/// Turns token ids into text.
pub type Decode<'a> = &'a dyn Fn(&[u32]) -> String;

/// A prompt in readable form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptText {
    pub text: String,
    /// Whether `text` is only the part added since the previous call.
    pub continues: bool,
}

/// The prompt of each call as text; `None` where only ids are stored and there is no decoder. A
/// prompt that extends the previous call is reduced to the added part.
pub fn prompts(calls: &[Call], decode: Option<Decode<'_>>) -> Vec<Option<PromptText>> {
    let mut previous: Option<&Call> = None;
    let mut prompt = |call| {
        let before = previous.replace(call);
        prompt_of(call, before, decode)
    };
    calls.iter().map(&mut prompt).collect()
}

fn prompt_of(call: &Call, before: Option<&Call>, decode: Option<Decode<'_>>) -> Option<PromptText> {
    if let Some(decode) = decode {
        let added = before.and_then(|before| {
            let ids = call.prompt_ids.strip_prefix(before.prompt_ids.as_slice())?;
            ids.strip_prefix(before.response_ids.as_slice())
        });
        let (ids, continues) = added.map_or((call.prompt_ids.as_slice(), false), |ids| (ids, true));
        return Some(PromptText { text: decode(ids), continues });
    }
    let whole = call.prompt.as_ref()?;
    let added = before.and_then(|before| {
        whole.strip_prefix(before.prompt.as_ref()?.as_str())?.strip_prefix(before.text.as_str())
    });
    let (text, continues) = added.map_or((whole.as_str(), false), |added| (added, true));
    Some(PromptText { text: text.to_owned(), continues })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_that_extends_the_previous_call_shows_the_added_part() {
        let call = |prompt_ids: &[u32], response_ids: &[u32]| Call {
            prompt_ids: prompt_ids.to_vec(),
            response_ids: response_ids.to_vec(),
            ..Call::default()
        };
        let calls = [call(&[1, 2], &[3]), call(&[1, 2, 3, 4], &[5]), call(&[9], &[])];
        let shown = |text: &str, continues| Some(PromptText { text: text.to_owned(), continues });
        let decode = |ids: &[u32]| format!("{ids:?}");
        let expected = [shown("[1, 2]", false), shown("[4]", true), shown("[9]", false)];
        assert_eq!(prompts(&calls, Some(&decode)), expected);
        assert_eq!(prompts(&calls, None), [None, None, None]);

        let text = |prompt: &str, text: &str| Call {
            prompt: Some(prompt.to_owned()),
            text: text.to_owned(),
            ..Call::default()
        };
        let calls = [text("Q", "A"), text("QA<tool>", "B"), text("other", "")];
        let expected = [shown("Q", false), shown("<tool>", true), shown("other", false)];
        assert_eq!(prompts(&calls, None), expected);
    }
}
