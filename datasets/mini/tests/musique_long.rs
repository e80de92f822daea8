//! Properties of mini-musique-long: chains of up to six hops, what is held out, the split into
//! training and test, labels, demonstrations.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use leyden_core::{SeedTree, Task};
use leyden_mini::musique::{
    LONG_HOPS, LONG_PARAGRAPHS, MiniMusique, Noise, PARAGRAPHS, RELATIONS, Relation, Turn,
    by_keyword,
};
use leyden_mini::names;
use serde_json::Value;
use sha2::{Digest, Sha256};

mod bm25;
use bm25::Index;

fn strings(task: &Task, field: &str) -> Vec<String> {
    let list = task.fields[field].as_array().unwrap_or_else(|| panic!("{}: {field}", task.id));
    list.iter().map(|value| value.as_str().unwrap().to_string()).collect()
}

fn chain(task: &Task) -> Vec<&'static Relation> {
    strings(task, "chain").iter().map(|keyword| by_keyword(keyword).unwrap()).collect()
}

fn hops(task: &Task) -> usize {
    task.label("hops").unwrap().parse().unwrap()
}

fn training(world: &MiniMusique, n: u64) -> Vec<Task> {
    (0..n).map(|i| world.train(i)).collect()
}

/// The world, trained on all lengths.
fn all_lengths(seed: u64) -> MiniMusique {
    MiniMusique::long(seed).with_hops(LONG_HOPS).unwrap()
}

/// The pairs of successive relations of a chain.
fn pairs(chain: &[&Relation]) -> Vec<(&'static str, &'static str)> {
    chain.windows(2).map(|pair| (pair[0].keyword, pair[1].keyword)).collect()
}

/// Everything that the corpus says about an entity of this name and relation. A relation implies
/// the kind of its subject.
fn facts(world: &MiniMusique) -> HashMap<(&str, &str), Vec<&str>> {
    let mut facts: HashMap<_, Vec<&str>> = HashMap::new();
    for passage in world.passages() {
        let Some(subject) = &passage.subject else { continue };
        for (relation, object) in &passage.facts {
            facts.entry((subject.as_str(), relation.keyword)).or_default().push(object);
        }
    }
    facts
}

#[test]
fn the_corpus_is_that_of_mini_musique_and_the_tasks_are_not() {
    let (short, long) = (MiniMusique::new(4), MiniMusique::long(4));
    assert_eq!(short.passages(), long.passages());
    assert_eq!(short.retelling(3), long.retelling(3));
    assert_eq!((short.name(), long.name()), ("mini-musique", "mini-musique-long"));
    for (world, tasks) in [(&short, short.test(20)), (&long, long.test(20))] {
        for task in training(world, 20).iter().chain(&tasks) {
            assert_eq!(task.fields["source"], world.name());
        }
    }
    let questions = |world: &MiniMusique| -> HashSet<String> {
        training(world, 500).into_iter().map(|task| task.question).collect()
    };
    let common = questions(&short).intersection(&questions(&long)).count();
    assert!(common < 50, "the worlds have {common} questions in common");
}

#[test]
fn each_hop_is_answered_in_its_own_supporting_paragraph() {
    let world = all_lengths(1);
    for task in training(&world, 1_000).iter().chain(&world.test(500)) {
        let (path, chain) = (strings(task, "path"), chain(task));
        let prefix = match chain.len() {
            2 => "2hop__mini-musique-long_".to_string(),
            n => format!("{n}hop1__mini-musique-long_"),
        };
        assert!(task.id.starts_with(&prefix), "{}", task.id);
        assert_eq!(path.len(), chain.len() + 1);
        assert_eq!(path.last(), Some(&task.gold));
        assert_eq!(path.iter().collect::<HashSet<_>>().len(), path.len(), "{path:?}");
        let paragraphs = task.fields["paragraphs"].as_array().unwrap();
        assert_eq!(paragraphs.len(), LONG_PARAGRAPHS);
        let texts: HashSet<&Value> = paragraphs.iter().map(|p| &p["paragraph_text"]).collect();
        assert_eq!(texts.len(), LONG_PARAGRAPHS, "{} repeats a paragraph", task.id);
        let steps = task.fields["question_decomposition"].as_array().unwrap();
        assert_eq!(steps.len(), chain.len());
        let mut support = BTreeSet::new();
        for (hop, (step, relation)) in steps.iter().zip(&chain).enumerate() {
            let idx = step["paragraph_support_idx"].as_u64().unwrap();
            let text = &paragraphs[idx as usize]["paragraph_text"];
            let passage = world.passages().iter().find(|p| *text == p.text.as_str()).unwrap();
            assert_eq!(passage.object(&path[hop], relation), Some(path[hop + 1].as_str()));
            assert!(passage.text.contains(&format!(" {} {}", relation.keyword, path[hop + 1])));
            let subject = if hop == 0 { path[0].clone() } else { format!("#{hop}") };
            assert_eq!(step["question"], format!("{subject} >> {}", relation.keyword));
            assert_eq!(step["answer"], path[hop + 1].as_str());
            support.insert(idx);
        }
        assert_eq!(support.len(), chain.len(), "{}: two hops share a paragraph", task.id);
        for (idx, paragraph) in paragraphs.iter().enumerate() {
            assert_eq!(paragraph["idx"], idx);
            assert_eq!(paragraph["is_supporting"], support.contains(&(idx as u64)));
        }
    }
}

#[test]
fn answers_are_unique_and_found_only_by_the_right_chain() {
    let world = all_lengths(1);
    let facts = facts(&world);
    for (about, objects) in &facts {
        assert_eq!(objects.len(), 1, "{about:?}");
    }
    let end = |start: &str, chain: &[&Relation]| -> Option<String> {
        let mut name = start;
        for relation in chain {
            name = facts.get(&(name, relation.keyword))?[0];
        }
        Some(name.to_string())
    };
    for task in training(&world, 1_000).iter().chain(&world.test(500)) {
        let (start, chain) = (&strings(task, "path")[0], chain(task));
        assert_eq!(end(start, &chain).as_ref(), Some(&task.gold), "{}", task.id);
        assert!(task.question.contains(start.as_str()));
        let successive = chain.windows(2).all(|pair| pair[0].object == pair[1].subject);
        assert!(successive, "{}", task.id);
        for hop in 0..chain.len() {
            assert_ne!(end(start, &chain[..hop]).as_ref(), Some(&task.gold), "{}", task.id);
            let fits = |other: &&Relation| {
                let rest_applies = hop + 1 == chain.len() || other.object == chain[hop].object;
                *other != chain[hop] && other.subject == chain[hop].subject && rest_applies
            };
            for other in RELATIONS.iter().filter(fits) {
                let mut chain = chain.clone();
                chain[hop] = other;
                assert_ne!(end(start, &chain).as_ref(), Some(&task.gold), "{}", task.id);
            }
        }
    }
}

#[test]
fn test_tasks_alternate_in_a_fixed_balanced_cycle() {
    let world = MiniMusique::long(1);
    let test = world.test(200);
    let mut counts: BTreeMap<(usize, &str), usize> = BTreeMap::new();
    for (i, task) in test.iter().enumerate() {
        assert_eq!(hops(task), 2 + i / 2 % 5, "{}", task.id);
        assert_eq!(task.label("template"), Some(["seen", "held_out"][i % 2]), "{}", task.id);
        *counts.entry((hops(task), task.label("template").unwrap())).or_default() += 1;
    }
    assert_eq!(counts.len(), 10);
    assert!(counts.values().all(|count| *count == 20), "{counts:?}");
    assert_eq!(world.test(30), test[..30]);
    let questions: HashSet<&str> = test.iter().map(|task| task.question.as_str()).collect();
    assert!(questions.len() >= 198, "{} different questions", questions.len());
}

#[test]
fn labels_follow_from_the_chain() {
    let world = MiniMusique::long(1);
    let trained = training(&world, 3_000);
    let known: HashSet<_> = trained.iter().flat_map(|task| pairs(&chain(task))).collect();
    for task in trained.iter().chain(&world.test(500)) {
        let chain = chain(task);
        assert_eq!(hops(task), chain.len());
        let horizon = ["2-3", "2-3", "4-5", "4-5", "6"][chain.len() - 2];
        assert_eq!(task.label("horizon"), Some(horizon), "{}", task.id);
        // A chain of five or six hops is not in training; its pairs are.
        let seen = pairs(&chain).iter().all(|pair| known.contains(pair));
        let label = if seen { "seen" } else { "held_out" };
        assert_eq!(task.label("template"), Some(label), "{}: {}", task.id, task.question);
    }
    assert!(MiniMusique::new(1).train(0).label("horizon").is_none());
}

#[test]
fn training_and_test_share_neither_entities_nor_held_out_pairs() {
    let world = all_lengths(1);
    let (trained, tested) = (training(&world, 2_000), world.test(500));
    let named = |task: &Task| [strings(task, "path"), strings(task, "answer_aliases")].concat();
    assert!(trained.iter().flat_map(named).all(|name| !names::is_reserved(&name)));
    assert!(tested.iter().flat_map(named).all(|name| names::is_reserved(&name)));
    let held_out: HashSet<_> =
        world.templates().iter().filter(|t| t.held_out).map(|t| &t.id).collect();
    for task in &trained {
        assert_eq!(task.label("template"), Some("seen"));
        assert!(!held_out.contains(&template(task)), "{}", task.id);
    }
    let held_out_tested = tested.iter().filter(|task| held_out.contains(&template(task))).count();
    assert_eq!(held_out_tested, 250);
}

fn template(task: &Task) -> String {
    task.fields["template"].as_str().unwrap().to_string()
}

#[test]
fn about_a_fifth_of_the_chains_of_training_lengths_is_held_out() {
    let world = MiniMusique::long(0);
    let mut chains: BTreeMap<usize, HashMap<Vec<&str>, bool>> = BTreeMap::new();
    for template in world.templates() {
        let keywords = template.chain.iter().map(|relation| relation.keyword).collect();
        chains.entry(template.hops()).or_default().insert(keywords, template.held_out);
    }
    assert_eq!(chains.keys().copied().collect::<Vec<_>>(), LONG_HOPS.collect::<Vec<_>>());
    let share = |hops: usize| {
        let held_out = chains[&hops].values().filter(|held_out| **held_out).count();
        held_out as f64 / chains[&hops].len() as f64
    };
    let mean = (2..=4).map(share).sum::<f64>() / 3.0;
    assert!((0.17..0.23).contains(&mean), "{mean}");
    assert!(share(6) < 0.6, "{}", share(6));
}

/// The base model of mini-musique knows all words of the longer questions.
#[test]
fn questions_are_short_and_have_the_words_of_mini_musique() {
    fn words(text: &str) -> impl Iterator<Item = &str> {
        text.split([' ', '?']).filter(|word| !word.is_empty())
    }
    let short = MiniMusique::new(0);
    let shorter: Vec<String> = short.templates().iter().map(|t| t.render("X")).collect();
    let known: HashSet<&str> = shorter.iter().flat_map(|text| words(text)).collect();
    let long = MiniMusique::long(0);
    let mut texts = HashSet::new();
    let mut longest = 0;
    for template in long.templates() {
        let text = template.render("X");
        assert!(words(&text).all(|word| known.contains(word)), "{text}");
        longest = longest.max(words(&text).count());
        assert!(texts.insert(text), "{} repeats a text", template.id);
    }
    assert!((30..60).contains(&longest), "{longest} words");
    // Each relation is asked for, and described where a question continues, in training.
    let trained: Vec<_> =
        long.templates().iter().filter(|t| !t.held_out && t.hops() <= 4).collect();
    for relation in RELATIONS {
        for phrase in relation.phrases.iter().chain(relation.asks) {
            let (before, after) = phrase.split_once("{x}").unwrap();
            let holds = |text: &str| text.contains(before) && text.contains(after);
            let uses = trained.iter().filter(|t| holds(&t.text)).count();
            assert!(uses >= 3, "{phrase:?} is in {uses} training templates");
        }
    }
}

#[test]
fn each_length_has_thousands_of_distinct_questions() {
    for hops in LONG_HOPS {
        let world = MiniMusique::long(2).with_hops(hops..=hops).unwrap();
        let drawn = training(&world, 2_200);
        let questions: HashSet<&String> = drawn.iter().map(|task| &task.question).collect();
        assert!(questions.len() >= 2_000, "{} distinct of {hops} hops", questions.len());
    }
}

#[test]
fn the_lengths_of_training_can_be_set_and_those_of_test_stay() {
    let world = MiniMusique::long(1);
    let lengths = |world: &MiniMusique, n: u64| -> BTreeMap<usize, usize> {
        let mut counts = BTreeMap::new();
        training(world, n).iter().for_each(|task| *counts.entry(hops(task)).or_default() += 1);
        counts
    };
    let counts = lengths(&world, 900);
    assert_eq!(counts.keys().copied().collect::<Vec<_>>(), [2, 3, 4]);
    assert!(counts.values().all(|count| (240..360).contains(count)), "{counts:?}");
    let longer = world.clone().with_hops(5..=6).unwrap();
    assert_eq!(lengths(&longer, 60).keys().copied().collect::<Vec<_>>(), [5, 6]);
    assert_eq!(longer.test(20), world.test(20));
    let short = MiniMusique::new(1).with_hops(3..=3).unwrap();
    assert_eq!(lengths(&short, 60), BTreeMap::from([(3, 60)]));
    #[expect(clippy::reversed_empty_ranges)]
    let wrong = [1..=3, 2..=7, 2..=usize::MAX, 4..=2];
    for range in wrong {
        let error = world.clone().with_hops(range.clone()).unwrap_err().to_string();
        let named = format!("2 to 6 hops, not of {} to {}", range.start(), range.end());
        assert!(error.contains(&named), "{error}");
    }
    let error = MiniMusique::new(1).with_hops(2..=4).unwrap_err().to_string();
    assert!(error.contains("mini-musique has questions of 2 to 3 hops"), "{error}");
}

#[test]
fn texts_for_the_tokenizer_are_of_the_training_realm() {
    let world = MiniMusique::long(5);
    let texts = world.corpus(300);
    assert_eq!(texts, MiniMusique::long(5).corpus(300));
    assert_eq!(texts[..30], world.corpus(30));
    let reserved: HashSet<String> =
        names::all().into_iter().filter(|n| names::is_reserved(n)).collect();
    for text in &texts {
        let mut words = text.split([' ', '.', ',', '?']);
        assert!(words.all(|word| !reserved.contains(word)), "{text}");
    }
    let questions = texts.iter().filter(|text| text.ends_with('?')).count();
    assert_eq!(questions, 100);
}

#[test]
fn files_contain_the_long_tasks() {
    let folder = tempfile::tempdir().unwrap();
    let world = MiniMusique::long(2);
    world.write_jsonl(folder.path(), 12, 10).unwrap();
    let rows = |name: &str| -> Vec<Value> {
        let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    assert_eq!((rows("train.jsonl").len(), rows("test.jsonl").len()), (12, 10));
    assert_eq!(rows("corpus.jsonl").len(), world.passages().len());
    for (row, task) in rows("test.jsonl").iter().zip(world.test(10)) {
        assert_eq!(
            (&row["id"], &row["answer"]),
            (&task.id.clone().into(), &task.gold.clone().into())
        );
        assert_eq!(row["paragraphs"].as_array().unwrap().len(), LONG_PARAGRAPHS);
        assert_eq!(row["question_decomposition"], task.fields["question_decomposition"]);
        assert_eq!(row["labels"]["horizon"], task.label("horizon").unwrap());
    }
    assert_eq!(
        MiniMusique::new(2).train(0).fields["paragraphs"].as_array().unwrap().len(),
        PARAGRAPHS
    );
}

fn answer(turns: &[Turn]) -> &str {
    match turns.last() {
        Some(Turn::Answer { name, .. }) => name,
        other => panic!("a rollout ends in {other:?}"),
    }
}

#[test]
fn without_noise_every_long_rollout_finds_the_answer() {
    let world = all_lengths(3);
    let index = Index::new(&world);
    for task in training(&world, 500).iter().chain(&world.test(300)) {
        let search = |query: &str| index.search(query, 2);
        let turns = Noise::none().draw(&world, task, SeedTree::new(1), search).unwrap();
        assert_eq!(answer(&turns), task.gold, "{}: {turns:?}", task.question);
        assert_eq!(turns.len(), 2 * chain(task).len() + 1);
    }
}

/// Below 0.15, so that there is something to learn, and above zero, so that it can be learned.
#[test]
fn about_one_long_demonstration_in_ten_is_correct() {
    let world = all_lengths(3);
    let index = Index::new(&world);
    for shown in [1, 4] {
        let mut right: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
        for (i, task) in training(&world, 3_000).iter().enumerate() {
            let noise = Noise::of(hops(task));
            let search = |query: &str| index.search(query, shown);
            let seed = SeedTree::new(7).index(i as u64);
            let turns = noise.draw(&world, task, seed, search).unwrap();
            let counts = right.entry(hops(task)).or_default();
            counts.0 += usize::from(answer(&turns) == task.gold);
            counts.1 += 1;
        }
        assert_eq!(right.len(), 5);
        for (hops, (right, all)) in right {
            println!("{hops} hops, {shown} passages shown: {right} of {all} right");
            let share = right as f64 / all as f64;
            assert!((0.06..0.15).contains(&share), "{hops} hops, {shown} shown: {share}");
        }
    }
}

/// Published results name tasks by their ids, which must keep their questions.
#[test]
fn the_first_long_tasks_are_pinned() {
    let world = MiniMusique::long(1);
    let mut hash = Sha256::new();
    for task in training(&world, 50).into_iter().chain(world.test(50)) {
        hash.update(serde_json::to_vec(&task).unwrap());
    }
    let hash: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hash, "7cbdab0741f4f8ac");
}
