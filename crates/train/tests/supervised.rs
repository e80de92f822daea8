//! Demonstrations as rows: learned tokens, order, and skipped demonstrations.

mod common;

use common::model;
use leyden_core::{Message, SeedTree};
use leyden_text::ChatFormat;
use leyden_train::TrainError;
use leyden_train::batch::pack;
use leyden_train::data::{Conversation, DemonstrationSource, Visits};
use leyden_train::supervised::collect;

/// Demonstration `i` has two assistant turns, the second with 10 · i words.
struct Growing {
    len: Option<u64>,
}

impl DemonstrationSource for Growing {
    fn len(&self) -> Option<u64> {
        self.len
    }

    fn conversation(&self, index: u64) -> Conversation {
        let messages = vec![
            Message::user("hello"),
            Message::assistant("yes"),
            Message::user("and"),
            Message::assistant("more ".repeat(10 * index as usize)),
        ];
        Conversation { messages, tools: Vec::new() }
    }
}

fn next(
    source: &Growing,
    from: u64,
    longest: usize,
    format: &ChatFormat,
) -> Result<(Vec<usize>, u64), TrainError> {
    let mut visits = Visits::new(source.len, SeedTree::new(1));
    visits.position = from;
    let rows = collect(source, &mut visits, 2, longest, format)?;
    Ok((rows.iter().map(|row| row.ids.len()).collect(), visits.position))
}

#[test]
fn assistant_turns_are_learned_with_their_end_tokens() {
    let format = model().format;
    let row = Growing { len: None }.row(1, &format).unwrap();
    let learned: Vec<String> = row
        .actions
        .iter()
        .map(|range| {
            let (last, text) = row.ids[range.clone()].split_last().unwrap();
            assert_eq!(Some(*last), format.end_of_turn());
            format.tokenizer().decode(text, true)
        })
        .collect();
    assert_eq!(learned, ["yes".to_owned(), "more ".repeat(10)]);
}

#[test]
fn too_long_demonstrations_are_skipped() {
    let format = model().format;
    let endless = Growing { len: None };
    let (all, at) = next(&endless, 0, usize::MAX, &format).unwrap();
    assert_eq!((all.len(), at), (2, 2));
    let later = next(&endless, 1, usize::MAX, &format).unwrap();
    assert_eq!((later.0[0], later.1), (all[1], 3), "a position is sufficient to resume");
    // Only the two shortest of four, visited in random order, fit.
    let few = Growing { len: Some(4) };
    let (mut short, at) = next(&few, 0, all[1], &format).unwrap();
    short.sort_unstable();
    assert_eq!(short, all);
    assert!(at <= 4, "position {at}");
}

/// Regression: an endless source without a short demonstration was searched forever.
#[test]
fn the_search_ends_if_all_are_too_long() {
    let format = model().format;
    struct AllAlike;
    impl DemonstrationSource for AllAlike {
        fn len(&self) -> Option<u64> {
            None
        }
        fn conversation(&self, _: u64) -> Conversation {
            Growing { len: None }.conversation(0)
        }
    }
    let mut visits = Visits::new(None, SeedTree::new(1));
    let endless = collect(&AllAlike, &mut visits, 2, 5, &format).unwrap_err().to_string();
    let finite = next(&Growing { len: Some(4) }, 0, 5, &format).unwrap_err().to_string();
    for error in [endless, finite] {
        assert!(
            error.contains("at most 5 tokens") && error.contains("data.demonstration_tokens"),
            "{error}"
        );
    }
}

#[test]
fn common_prefixes_of_demonstrations_are_computed_once() {
    let format = model().format;
    let source = Growing { len: None };
    let rows: Vec<_> = [1, 1, 2].map(|i| source.row(i, &format).unwrap()).into();
    let packs = pack(&rows, usize::MAX).unwrap();
    let shared = rows[0].ids.iter().zip(&rows[2].ids).take_while(|(a, b)| a == b).count();
    let tokens = rows[0].ids.len() + rows[2].ids.len() - shared;
    assert!(shared > 0);
    assert_eq!((packs.len(), packs[0].len(), packs[0].trees.len()), (1, tokens, 1));
}
