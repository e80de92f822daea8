//! Properties of mini-musique: the corpus and its search, the two separations of training and
//! test, answers, files, demonstrations.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::LazyLock;

use leyden_core::{SeedTree, Task};
use leyden_mini::musique::{
    MiniMusique, Noise, PARAGRAPHS, RELATIONS, Relation, TEST_TASKS, Turn, by_keyword,
};
use leyden_mini::names;
use leyden_text::{BpeTraining, Tokenizer, train_bpe};
use serde_json::Value;
use sha2::{Digest, Sha256};

mod bm25;
use bm25::Index;

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| " .,?".contains(c)).filter(|word| !word.is_empty())
}

fn strings(task: &Task, field: &str) -> Vec<String> {
    let list = task.fields[field].as_array().unwrap_or_else(|| panic!("{}: {field}", task.id));
    list.iter().map(|value| value.as_str().unwrap().to_string()).collect()
}

fn chain(task: &Task) -> Vec<&'static Relation> {
    strings(task, "chain").iter().map(|keyword| by_keyword(keyword).unwrap()).collect()
}

/// Thousands of tasks of either split.
fn many_tasks(world: &MiniMusique) -> (Vec<Task>, Vec<Task>) {
    ((0..1_500).map(|i| world.train(i)).collect(), world.test(600))
}

fn names_in(text: &str) -> BTreeSet<String> {
    static ALL: LazyLock<HashSet<String>> = LazyLock::new(|| names::all().into_iter().collect());
    let all = &*ALL;
    words(text).filter(|word| all.contains(*word)).map(str::to_string).collect()
}

#[test]
fn the_corpus_is_large_and_its_passages_are_short() {
    for seed in 0..3 {
        let world = MiniMusique::new(seed);
        assert!(world.passages().len() >= 1_500, "{}", world.passages().len());
        let ids: HashSet<&str> = world.passages().iter().map(|p| p.id.as_str()).collect();
        assert_eq!(ids.len(), world.passages().len());
        for passage in world.passages() {
            let length = words(&passage.text).count();
            assert!((12..=30).contains(&length), "{length} words: {}", passage.text);
            let plain = |c: char| c.is_ascii_lowercase() || " .".contains(c);
            assert!(passage.text.chars().all(plain), "{}", passage.text);
            let mentioned = names_in(&passage.text);
            assert_eq!(mentioned, passage.names.iter().cloned().collect(), "{}", passage.text);
            assert!(!mentioned.contains(words(&passage.text).next().unwrap()));
            for name in &mentioned {
                assert_eq!(names::is_reserved(name), passage.reserved, "{}", passage.text);
            }
            for (relation, object) in &passage.facts {
                assert!(passage.names.contains(object));
                // The object always directly follows its keyword, which occurs nowhere else.
                let keyword = format!(" {} ", relation.keyword);
                let after: Vec<&str> = passage.text.split(&keyword).skip(1).collect();
                assert!(matches!(after[..], [rest] if rest.starts_with(object.as_str())));
            }
        }
    }
}

#[test]
fn names_are_not_words_and_their_split_is_fixed() {
    let all = names::all();
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), 2_304);
    let reserved = all.iter().filter(|name| names::is_reserved(name)).count();
    assert!((500..650).contains(&reserved), "{reserved}");
    let syllables = |kept: bool| -> BTreeSet<(usize, String)> {
        let of_kind = all.iter().filter(|name| names::is_reserved(name) == kept);
        of_kind.flat_map(|name| [(0, name[..2].to_string()), (1, name[2..].to_string())]).collect()
    };
    assert_eq!(syllables(true), syllables(false));
    let names: HashSet<String> = all.into_iter().collect();
    let world = MiniMusique::new(0);
    for template in world.templates() {
        let text = template.render("?");
        assert!(words(&text).all(|word| !names.contains(word)), "{text}");
    }
}

#[test]
fn a_query_with_entity_and_relation_finds_its_passage_among_the_first_two() {
    for seed in 0..4 {
        let world = MiniMusique::new(seed);
        let index = Index::new(&world);
        let (mut first, mut facts) = (0, 0);
        for (i, passage) in world.passages().iter().enumerate() {
            let Some(subject) = &passage.subject else { continue };
            for (relation, _) in &passage.facts {
                let query = relation.query(subject);
                let found = index.search(&query, 2);
                let texts: Vec<&str> =
                    found.iter().map(|&i| world.passages()[i].text.as_str()).collect();
                assert!(found.contains(&i), "{query}: {texts:?}, but not {:?}", passage.text);
                facts += 1;
                first += usize::from(found[0] == i);
            }
        }
        assert!(first as f64 > 0.97 * facts as f64, "{first} of {facts} at rank 1");
    }
}

#[test]
fn some_names_are_ambiguous_and_visits_state_no_facts() {
    let world = MiniMusique::new(0);
    let mut meanings: HashMap<&str, HashSet<&str>> = HashMap::new();
    for passage in world.passages() {
        match &passage.subject {
            Some(subject) => {
                let word = passage.facts[0].0.subject.noun().unwrap_or("person");
                meanings.entry(subject).or_default().insert(word);
            }
            None => assert!(passage.facts.is_empty()),
        }
    }
    let shared = meanings.values().filter(|kinds| kinds.len() > 1).count();
    assert!(shared >= 40, "{shared} names with two meanings");
    assert!(world.passages().iter().filter(|p| p.subject.is_none()).count() >= 200);
}

#[test]
fn held_out_templates_are_new_combinations_of_known_phrases() {
    let world = MiniMusique::new(0);
    let (held_out, training): (Vec<_>, Vec<_>) =
        world.templates().iter().partition(|template| template.held_out);
    let share = held_out.len() as f64 / world.templates().len() as f64;
    assert!((0.2..0.3).contains(&share), "{share}");
    let texts: HashSet<String> = world.templates().iter().map(|t| t.render("x")).collect();
    assert_eq!(texts.len(), world.templates().len(), "two templates are one text");
    let chains: HashSet<Vec<&str>> =
        training.iter().map(|t| t.chain.iter().map(|r| r.keyword).collect()).collect();
    let known: HashSet<String> = training.iter().flat_map(|t| pairs(&t.render("x"))).collect();
    for template in &held_out {
        let chain: Vec<&str> = template.chain.iter().map(|r| r.keyword).collect();
        assert!(chains.contains(&chain), "{}", template.id);
        for pair in pairs(&template.render("x")) {
            assert!(known.contains(&pair), "{} alone has {pair:?}", template.id);
        }
    }
    // Every phrase and every final question is in many training templates.
    for relation in RELATIONS {
        for phrase in relation.phrases.iter().chain(relation.asks) {
            let (before, after) = phrase.split_once("{x}").unwrap();
            let holds = |text: &str| text.contains(before) && text.contains(after);
            let uses = training.iter().filter(|t| holds(&t.render("x"))).count();
            assert!(uses >= 3, "{phrase:?} is in {uses} training templates");
        }
    }
}

fn pairs(text: &str) -> Vec<String> {
    let words: Vec<&str> = words(text).collect();
    words.windows(2).map(|pair| pair.join(" ")).collect()
}

#[test]
fn training_and_test_share_neither_entities_nor_held_out_templates() {
    let world = MiniMusique::new(1);
    let (training, test) = many_tasks(&world);
    let entities = |tasks: &[Task]| -> HashSet<String> {
        tasks
            .iter()
            .flat_map(|t| [strings(t, "path"), strings(t, "answer_aliases")].concat())
            .collect()
    };
    let (trained, tested) = (entities(&training), entities(&test));
    assert!(trained.iter().all(|name| !names::is_reserved(name)));
    assert!(tested.iter().all(|name| names::is_reserved(name)));
    let templates = |tasks: &[Task], kind: &str| -> HashSet<String> {
        let of_kind = tasks.iter().filter(|t| t.label("template") == Some(kind));
        of_kind.map(|t| t.fields["template"].as_str().unwrap().to_string()).collect()
    };
    assert!(templates(&training, "held_out").is_empty());
    let known = templates(&training, "seen");
    assert!(templates(&test, "held_out").is_disjoint(&known));
    let share = |name: &str, value: &str| {
        test.iter().filter(|t| t.label(name) == Some(value)).count() as f64 / test.len() as f64
    };
    assert_eq!(share("template", "held_out"), 0.5);
    assert_eq!(share("hops", "3"), 0.4);
    let questions: HashSet<&str> = test[..TEST_TASKS].iter().map(|t| t.question.as_str()).collect();
    assert!(questions.len() >= TEST_TASKS - 2, "{} different questions", questions.len());
}

/// The facts of the whole corpus, read from the passages.
fn facts(world: &MiniMusique) -> HashMap<(String, &'static str), String> {
    let stated = world.passages().iter().filter_map(|p| Some((p.subject.as_ref()?, &p.facts)));
    stated
        .flat_map(|(subject, facts)| {
            facts.iter().map(move |(relation, object)| {
                (
                    (subject.clone() + relation.subject.noun().unwrap_or(""), relation.keyword),
                    object.clone(),
                )
            })
        })
        .collect()
}

#[test]
fn answers_follow_from_the_corpus_and_only_by_the_right_chain() {
    let world = MiniMusique::new(1);
    let facts = facts(&world);
    let object = |name: &str, relation: &Relation| {
        facts.get(&(format!("{name}{}", relation.subject.noun().unwrap_or("")), relation.keyword))
    };
    let (training, test) = many_tasks(&world);
    let mut aliased = 0;
    for task in training.iter().chain(&test) {
        let (path, chain) = (strings(task, "path"), chain(task));
        assert_eq!(task.label("hops"), Some(chain.len().to_string().as_str()));
        for (hop, relation) in chain.iter().enumerate() {
            assert_eq!(object(&path[hop], relation), Some(&path[hop + 1]), "{}", task.id);
        }
        assert_eq!(path.last(), Some(&task.gold));
        assert_eq!(names_in(&task.question), BTreeSet::from([path[0].clone()]));
        assert_eq!(path.iter().collect::<HashSet<_>>().len(), path.len(), "{}", task.id);
        // Stopping a hop early or using another relation does not find the answer.
        let last = chain[chain.len() - 1];
        for other in RELATIONS.iter().filter(|o| *o != last && o.subject == last.subject) {
            assert_ne!(object(&path[chain.len() - 1], other), Some(&task.gold), "{}", task.id);
        }
        aliased += usize::from(!strings(task, "answer_aliases").is_empty());
    }
    assert!(aliased > 100, "{aliased} answers with a second name");
}

#[test]
fn tasks_have_the_fields_of_musique() {
    let world = MiniMusique::new(1);
    let (training, test) = many_tasks(&world);
    for task in training.iter().take(500).chain(&test) {
        let prefix = if task.label("hops") == Some("2") { "2hop__" } else { "3hop1__" };
        assert!(task.id.starts_with(prefix), "{}", task.id);
        let paragraphs = task.fields["paragraphs"].as_array().unwrap();
        assert_eq!(paragraphs.len(), PARAGRAPHS);
        let texts: HashSet<&str> =
            paragraphs.iter().map(|p| p["paragraph_text"].as_str().unwrap()).collect();
        assert_eq!(texts.len(), PARAGRAPHS, "{} repeats a paragraph", task.id);
        let mut support = BTreeSet::new();
        let path = strings(task, "path");
        for (hop, step) in
            task.fields["question_decomposition"].as_array().unwrap().iter().enumerate()
        {
            let idx = step["paragraph_support_idx"].as_u64().unwrap() as usize;
            let text = paragraphs[idx]["paragraph_text"].as_str().unwrap();
            assert!(names_in(text).contains(&path[hop]) && names_in(text).contains(&path[hop + 1]));
            assert_eq!(step["answer"], path[hop + 1].as_str());
            let subject = if hop == 0 { path[0].clone() } else { format!("#{hop}") };
            assert!(step["question"].as_str().unwrap().starts_with(&format!("{subject} >> ")));
            support.insert(idx);
        }
        for (idx, paragraph) in paragraphs.iter().enumerate() {
            assert_eq!(paragraph["idx"], idx);
            assert_eq!(paragraph["is_supporting"], support.contains(&idx));
        }
        let near = |p: &&Value| {
            let names = names_in(p["paragraph_text"].as_str().unwrap());
            p["is_supporting"] == false && path.iter().any(|name| names.contains(name))
        };
        assert!(paragraphs.iter().filter(near).count() >= 2, "{} has no distractors", task.id);
    }
}

#[test]
fn files_contain_the_tasks_and_the_corpus() {
    let folder = tempfile::tempdir().unwrap();
    let world = MiniMusique::new(2);
    world.write_jsonl(&folder.path().join("new"), 20, 10).unwrap();
    let rows = |name: &str| -> Vec<Value> {
        let text = std::fs::read_to_string(folder.path().join("new").join(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    for (row, task) in rows("test.jsonl").iter().zip(world.test(10)) {
        let keys: Vec<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
        let official = ["id", "paragraphs", "question", "question_decomposition", "answer"];
        assert_eq!(keys[..7], [&official[..], &["answer_aliases", "answerable"]].concat());
        assert_eq!((&row["id"], &row["answer"]), (&task.id.into(), &task.gold.into()));
        assert_eq!(row["labels"]["hops"].as_str().unwrap(), task.labels[0].1);
    }
    assert_eq!(rows("train.jsonl").len(), 20);
    let corpus = rows("corpus.jsonl");
    assert_eq!(corpus.len(), world.passages().len());
    assert_eq!(corpus[7]["text"], world.passages()[7].text);
    let error = world.write_corpus(folder.path()).unwrap_err();
    assert!(error.to_string().contains("could not be written"), "{error}");
}

#[test]
fn tasks_do_not_depend_on_the_order_of_access_and_differ_between_seeds() {
    let world = MiniMusique::new(5);
    let late = world.train(1_000_000);
    assert_eq!(MiniMusique::new(5).train(1_000_000), late);
    assert_ne!(MiniMusique::new(6).train(1_000_000).question, late.question);
    assert_eq!(world.test(10), world.test(30)[..10]);
    assert_eq!(world.corpus(9), MiniMusique::new(5).corpus(9));
    assert_ne!(world.passages()[0], MiniMusique::new(6).passages()[0]);
}

/// The committed base model is pretrained on this world, which must not change.
#[test]
fn the_first_tasks_and_the_corpus_are_pinned() {
    let world = MiniMusique::new(1);
    let mut hash = Sha256::new();
    for task in (0..50).map(|i| world.train(i)).chain(world.test(50)) {
        hash.update(serde_json::to_vec(&task).unwrap());
    }
    for passage in world.passages() {
        hash.update(&passage.text);
    }
    let hash: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hash, "805ed25519c0d75d");
}

/// The answer of a rollout.
fn answer(turns: &[Turn]) -> &str {
    match turns.last() {
        Some(Turn::Answer { name, .. }) => name,
        other => panic!("a rollout ends in {other:?}"),
    }
}

#[test]
fn without_noise_every_rollout_finds_the_answer() {
    let world = MiniMusique::new(3);
    let index = Index::new(&world);
    let (training, test) = many_tasks(&world);
    for task in training.iter().take(500).chain(&test) {
        let search = |query: &str| index.search(query, 2);
        let turns = Noise::none().draw(&world, task, SeedTree::new(1), search).unwrap();
        assert_eq!(answer(&turns), task.gold, "{}: {turns:?}", task.question);
        assert_eq!(turns.len(), 2 * chain(task).len() + 1);
    }
}

#[test]
fn about_one_demonstration_in_ten_is_correct() {
    let world = MiniMusique::new(3);
    let index = Index::new(&world);
    for shown in [2, 4] {
        let mut right: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
        for i in 0..3_000 {
            let task = world.train(i);
            let hops = chain(&task).len();
            let search = |query: &str| index.search(query, shown);
            let seed = SeedTree::new(7).index(i);
            let turns = Noise::of(hops).draw(&world, &task, seed, search).unwrap();
            let counts = right.entry(hops).or_default();
            counts.0 += usize::from(answer(&turns) == task.gold);
            counts.1 += 1;
        }
        for (hops, (right, all)) in right {
            println!("{hops} hops, {shown} passages shown: {right} of {all} right");
            let share = right as f64 / all as f64;
            assert!((0.07..0.13).contains(&share), "{hops} hops, {shown} shown: {share}");
        }
    }
}

#[test]
fn demonstrations_copy_names_from_their_context() {
    let world = MiniMusique::new(3);
    let index = Index::new(&world);
    for i in 0..1_000 {
        let task = world.train(i);
        let search = |query: &str| index.search(query, 2);
        let turns = Noise::of(2).draw(&world, &task, SeedTree::new(i), search).unwrap();
        let mut current = names_in(&task.question).pop_first().unwrap();
        let (mut keyword, mut texts) = (String::new(), Vec::new());
        for turn in &turns {
            if let Turn::Call { read, .. } | Turn::Answer { read, .. } = turn
                && let Some(read) = read
            {
                // In the words of a passage, with the queried relation if it is stated.
                let said = read.said();
                let states = |text: &String| text.contains(said.trim_end_matches('.'));
                assert!(texts.iter().any(states), "{said} {texts:?}");
                let asked = texts.iter().any(|text| text.contains(&format!(" {keyword} ")));
                assert!(!asked || read.relation.keyword == keyword, "{said} {texts:?}");
                current.clone_from(&read.name);
            }
            match turn {
                Turn::Call { query, .. } => {
                    let named = names_in(query);
                    assert_eq!(named, BTreeSet::from([current.clone()]), "{query}");
                    keyword = query.split(' ').next_back().unwrap().to_owned();
                    assert!(by_keyword(&keyword).is_some(), "{query}");
                }
                Turn::Result { passages } => {
                    assert_eq!(passages.len(), 2);
                    texts = passages.iter().map(|&p| world.passages()[p].text.clone()).collect();
                }
                Turn::Answer { name, .. } => assert_eq!(*name, current, "{}", task.id),
            }
        }
    }
}

#[test]
fn an_empty_search_is_handled_and_a_foreign_task_is_rejected() {
    let world = MiniMusique::new(3);
    let mut task = world.train(0);
    let nothing = |_: &str| Vec::new();
    let turns = Noise::none().draw(&world, &task, SeedTree::new(1), nothing).unwrap();
    assert_eq!(answer(&turns), strings(&task, "path")[0]);
    task.fields.insert("chain".into(), serde_json::json!(["birthplace", "sings"]));
    let error = Noise::none().draw(&world, &task, SeedTree::new(1), nothing).unwrap_err();
    assert!(
        error.to_string().contains("2hop__mini_train_0") || error.to_string().contains("chain")
    );
}

fn tokenizer(texts: Vec<String>) -> Tokenizer {
    let training = BpeTraining { vocab_size: 1_024, min_frequency: 20, ..BpeTraining::default() };
    train_bpe(texts, &training).unwrap()
}

#[test]
fn a_small_vocabulary_covers_the_language() {
    let world = MiniMusique::new(0);
    let tokenizer = tokenizer(world.corpus(9_000));
    let length = |text: &str| tokenizer.encode(text).unwrap().len();
    let all = names::all();
    let tokens = all.iter().map(|name| length(&format!(" {name}"))).sum::<usize>();
    assert!(tokens as f64 <= 2.1 * all.len() as f64, "{tokens} tokens for {} names", all.len());
    let longest = world.passages().iter().map(|p| length(&p.text)).max();
    assert!(longest <= Some(45), "{longest:?} tokens in a passage");
    let questions = world.test(TEST_TASKS);
    let longest = questions.iter().map(|task| length(&task.question)).max();
    assert!(longest <= Some(40), "{longest:?} tokens in a question");
}

/// A paraphrase has the same facts in another order, no reserved names, and other names each time.
#[test]
fn retellings_keep_the_names_and_use_no_reserved_ones() {
    let world = MiniMusique::new(3);
    let (mut numbers, mut all) = (BTreeSet::new(), BTreeSet::new());
    for index in 0..300 {
        let retelling = world.retelling(index);
        assert_eq!(retelling, world.retelling(index));
        assert_eq!(retelling.original.len(), 2);
        let (_, original) = &retelling.original[retelling.number - 1];
        assert_ne!(original, &retelling.paraphrase);
        assert_eq!(names_in(original), names_in(&retelling.paraphrase), "{original}");
        let here: Vec<_> = retelling.original.iter().flat_map(|(_, text)| names_in(text)).collect();
        assert!(here.iter().all(|name| !names::is_reserved(name)));
        all.extend(here);
        numbers.insert(retelling.number);
    }
    assert_eq!(numbers, BTreeSet::from([1, 2]));
    // The training realm has some 950 names; the paraphrases use all unreserved ones.
    assert!(all.len() > 1_000, "{}", all.len());
}

/// Drawn names are from the list and not reserved, the first syllable determines the name, and
/// draws repeat, so that the next name is unpredictable.
#[test]
fn names_are_drawn_from_a_list() {
    let exercises = names::CopyingExercises::new(3);
    let mut repeated = 0;
    for index in 0..200 {
        let (listed, again) = exercises.exercise(index);
        assert_eq!((listed.clone(), again.clone()), exercises.exercise(index));
        let (list, drawn): (Vec<&str>, Vec<&str>) =
            (words(&listed).collect(), words(&again).collect());
        assert!(drawn.len() > list.len() && drawn.iter().all(|name| list.contains(name)));
        assert!(list.iter().all(|name| !names::is_reserved(name)));
        let starts: BTreeSet<&str> = list.iter().map(|name| &name[..2]).collect();
        assert_eq!(starts.len(), list.len());
        repeated +=
            usize::from(drawn[..list.len()].iter().collect::<BTreeSet<_>>().len() < list.len());
    }
    assert!(repeated > 150);
}
