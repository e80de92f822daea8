//! mini-musique: questions of two and three hops over a corpus of short passages, in the
//! format of MuSiQue; and mini-musique-long, with up to six hops over the same corpus (see
//! [`MiniMusique::long`]).
//!
//! Everything is invented: persons, cities, companies, books, rivers and countries with names of
//! two syllables, so that no model knows an answer without searching. "who is the mayor of the
//! city where kalo was born?" takes a search for kalo, the selection of one of three names in the
//! result, and a search for that name.
//!
//! Training and test are disjoint in two ways: test questions are about a separate realm of
//! entities with separate names, and half of them have held-out wordings, or held-out pairs of
//! relations if they are long. The passages of both realms are in one corpus.

mod export;
mod graph;
mod long;
mod noise;
mod passages;
mod relations;
mod retelling;
mod templates;
mod variant;

use leyden_core::{SeedTree, Task};
use serde_json::{Map, Value, json};

use crate::draws::Draws;
use graph::Entity;
use templates::Templates;
use variant::Variant;

pub use long::{LONG_HOPS, LONG_PARAGRAPHS};
pub use noise::{Noise, NotMiniMusique, Read, Turn, answer_form};
pub use passages::Passage;
pub use relations::{Kind, RELATIONS, Relation, by_keyword};
pub use retelling::Paraphrase;
pub use templates::Template;
pub use variant::UnsupportedHops;

/// Number of test tasks of the default test split.
pub const TEST_TASKS: usize = 256;

/// Paragraphs of a question in the dataset's format; the real dataset has 20.
pub const PARAGRAPHS: usize = 12;

/// The world of one seed. The corpus depends on the seed alone, a task on seed, split and index, in
/// any order of access.
#[derive(Debug, Clone)]
pub struct MiniMusique {
    root: SeedTree,
    /// The node of the tasks, which differ between variants.
    tasks: SeedTree,
    variant: Variant,
    entities: Vec<Entity>,
    passages: Vec<Passage>,
    templates: Templates,
}

impl MiniMusique {
    /// The world with questions of two and three hops.
    pub fn new(seed: u64) -> Self {
        let root = SeedTree::new(seed).child("mini-musique");
        Self::of(root, root, Variant::short(), templates::all())
    }

    fn of(root: SeedTree, tasks: SeedTree, variant: Variant, templates: Vec<Template>) -> Self {
        let entities = graph::draw(root.child("graph"));
        let passages = passages::write(&entities, &mut Draws::new(root.child("passages")));
        Self { root, tasks, variant, entities, passages, templates: Templates::new(templates) }
    }

    /// `mini-musique` or `mini-musique-long`: the field `source` of the tasks.
    pub fn name(&self) -> &'static str {
        self.variant.name
    }

    /// The corpus that the agent searches.
    pub fn passages(&self) -> &[Passage] {
        &self.passages
    }

    /// All templates, including held-out ones.
    pub fn templates(&self) -> &[Template] {
        self.templates.all()
    }

    /// Training task number `index` of an endless stream.
    pub fn train(&self, index: u64) -> Task {
        let mut draws = Draws::new(self.tasks.child("train").index(index));
        let hops = *draws.choose(&self.variant.trained);
        let question = self.draw(hops, false, false, &mut draws);
        self.task(&format!("{}_train_{index}", self.variant.id), question, &mut draws)
    }

    /// The first `n` test tasks ([`TEST_TASKS`] by default). They alternate between training
    /// templates and held-out templates, and their numbers of hops follow a fixed cycle; all
    /// their entities are reserved for test.
    pub fn test(&self, n: usize) -> Vec<Task> {
        (0..n).map(|i| self.test_task(i)).collect()
    }

    fn test_task(&self, i: usize) -> Task {
        let mut draws = Draws::new(self.tasks.child("test").index(i as u64));
        let cycle = self.variant.tested;
        let question = self.draw(cycle[i / 2 % cycle.len()], i % 2 == 1, true, &mut draws);
        self.task(&format!("{}_test_{i:04}", self.variant.id), question, &mut draws)
    }

    /// `n` texts for training a tokenizer: questions, queries and passages of the training realm
    /// in turn, independent of the training tasks.
    pub fn corpus(&self, n: usize) -> Vec<String> {
        let node = self.tasks.child("corpus");
        let shown: Vec<&Passage> = self.passages.iter().filter(|p| !p.reserved).collect();
        let text = |i: usize| {
            let mut draws = Draws::new(node.index(i as u64));
            let hops = *draws.choose(&self.variant.trained);
            let question = self.draw(hops, false, false, &mut draws);
            let name = |hop: usize| &self.entities[question.path[hop]].name;
            match i % 3 {
                0 => question.template.render(name(0)),
                1 => question.template.chain[1].query(name(1)),
                _ => draws.choose(&shown).text.clone(),
            }
        };
        (0..n).map(text).collect()
    }

    /// Draws a question whose answer is found only by the correct chain.
    fn draw(&self, hops: usize, held_out: bool, reserved: bool, draws: &mut Draws) -> Question<'_> {
        loop {
            let template = self.templates.draw(hops, held_out, draws);
            let starts = |e: &Entity| e.kind == template.chain[0].subject && e.reserved == reserved;
            let starts: Vec<usize> =
                (0..self.entities.len()).filter(|&i| starts(&self.entities[i])).collect();
            let start = *draws.choose(&starts);
            if let Some(path) = self.path(start, &template.chain)
                && self.is_fair(&path, template)
            {
                return Question { template, path };
            }
        }
    }

    /// The entities from `start` along `chain`, by number.
    fn path(&self, start: usize, chain: &[&Relation]) -> Option<Vec<usize>> {
        let mut path = vec![start];
        for relation in chain {
            path.push(self.entities[*path.last()?].object(relation)?);
        }
        Some(path)
    }

    /// Whether the names on the path are distinct and no chain with one relation replaced ends at
    /// the same answer.
    fn is_fair(&self, path: &[usize], template: &Template) -> bool {
        let name = |i: usize| &self.entities[i].name;
        let repeated = (1..path.len()).any(|k| path[..k].iter().any(|&i| name(i) == name(path[k])));
        let answer = name(path[path.len() - 1]);
        let by_another_chain = (0..template.hops()).any(|hop| {
            RELATIONS.iter().filter(|other| *other != template.chain[hop]).any(|other| {
                let mut chain = template.chain.clone();
                chain[hop] = other;
                let end = self.path(path[0], &chain).and_then(|path| path.last().copied());
                end.is_some_and(|end| name(end) == answer)
            })
        });
        !repeated && !by_another_chain
    }

    fn task(&self, number: &str, question: Question<'_>, draws: &mut Draws) -> Task {
        let Question { template, path } = &question;
        let names: Vec<&str> = path.iter().map(|&i| self.entities[i].name.as_str()).collect();
        let keywords: Vec<&str> = template.chain.iter().map(|r| r.keyword).collect();
        let answer = &self.entities[path[path.len() - 1]];
        let aliases: Vec<&String> = answer.alias.iter().collect();
        let (paragraphs, support) = self.paragraphs(&question, draws);
        let mut fields = Map::new();
        fields.insert("paragraphs".into(), json!(paragraphs));
        fields.insert("question_decomposition".into(), decomposition(&question, &names, &support));
        fields.insert("answer_aliases".into(), json!(aliases));
        fields.insert("answerable".into(), json!(true));
        fields.insert("template".into(), json!(template.id));
        fields.insert("chain".into(), json!(keywords));
        fields.insert("path".into(), json!(names));
        fields.insert("source".into(), json!(self.variant.name));
        let hops = template.hops();
        // The prefixes of MuSiQue: three hops in a row are its `3hop1`.
        let prefix = if hops == 2 { "2hop".to_string() } else { format!("{hops}hop1") };
        let seen = if template.held_out { "held_out" } else { "seen" };
        let mut labels = vec![
            ("hops".to_string(), hops.to_string()),
            ("template".to_string(), seen.to_string()),
        ];
        if self.variant.labels_horizon {
            labels.push(("horizon".to_string(), long::horizon(hops).to_string()));
        }
        Task {
            id: format!("{prefix}__{number}"),
            question: template.render(names[0]),
            gold: answer.name.clone(),
            labels,
            fields,
        }
    }

    /// The paragraphs of a question in random order: supporting ones, then those that mention a
    /// name of its path, then random ones. Returns them and the positions of the supporting ones.
    fn paragraphs(&self, question: &Question<'_>, draws: &mut Draws) -> (Vec<Value>, Vec<usize>) {
        let name = |i: usize| self.entities[question.path[i]].name.as_str();
        let chain = &question.template.chain;
        let supports = |hop: usize| {
            self.passages.iter().position(|p| p.object(name(hop), chain[hop]).is_some())
        };
        let support: Vec<usize> = (0..chain.len()).filter_map(supports).collect();
        let mentions =
            |p: &Passage| (0..=chain.len()).any(|i| p.names.iter().any(|n| n == name(i)));
        let mut near: Vec<usize> =
            (0..self.passages.len()).filter(|&i| mentions(&self.passages[i])).collect();
        draws.shuffle(&mut near);
        let any = std::iter::repeat_with(|| draws.below(self.passages.len()));
        let mut chosen: Vec<usize> = Vec::new();
        for i in support.iter().copied().chain(near).chain(any) {
            if !chosen.contains(&i) {
                chosen.push(i);
            }
            if chosen.len() == self.variant.paragraphs {
                break;
            }
        }
        draws.shuffle(&mut chosen);
        let row = |(idx, &i): (usize, &usize)| {
            let passage = &self.passages[i];
            json!({
                "idx": idx,
                "title": passage.title,
                "paragraph_text": passage.text,
                "is_supporting": support.contains(&i),
            })
        };
        let place = |i: &usize| chosen.iter().position(|c| c == i);
        (chosen.iter().enumerate().map(row).collect(), support.iter().filter_map(place).collect())
    }
}

/// A template and the entities along its chain, the answer last.
struct Question<'a> {
    template: &'a Template,
    path: Vec<usize>,
}

/// The hops in MuSiQue's notation: `kalo >> birthplace`, then `#1 >> land`.
fn decomposition(question: &Question<'_>, names: &[&str], support: &[usize]) -> Value {
    let hop = |(k, relation): (usize, &&Relation)| {
        let subject = if k == 0 { names[0].to_string() } else { format!("#{k}") };
        // One number per fact of the world.
        let place = RELATIONS.iter().position(|r| r == *relation).unwrap_or_default();
        json!({
            "id": question.path[k] * RELATIONS.len() + place,
            "question": format!("{subject} >> {}", relation.keyword),
            "answer": names[k + 1],
            "paragraph_support_idx": support.get(k),
        })
    };
    question.template.chain.iter().enumerate().map(hop).collect()
}
