//! BM25 over titles and texts, by tantivy.
//!
//! score(q, d) = Σ_{t ∈ q} qtf(t) · idf(t) · tf(t, d) (k1 + 1) / (tf(t, d) + k1 (1 − b + b |d| / avg |d|))
//! with idf(t) = ln(1 + (N − n(t) + ½) / (n(t) + ½)), k1 = 1.2, b = 0.75 (Robertson and
//! Zaragoza 2009, in Lucene's form; lengths |d| are rounded down to one byte as there). Title
//! and text count as one field. Words are runs of letters and digits, in lower case, without
//! English stop words, and stemmed.
//!
//! Every index has one segment, whose documents are in the order of the corpus. A document's number
//! is thus its passage's, and tantivy's order among equal scores, by document, is the order by
//! passage.

mod build;
mod manifest;

use std::collections::BTreeMap;
use std::path::Path;

use leyden_core::Passage;
use tantivy::collector::TopDocs;
use tantivy::query::{BooleanQuery, BoostQuery, Occur, Query, TermQuery};
use tantivy::schema::{
    FAST, Field, IndexRecordOption, STORED, Schema, TextFieldIndexing, TextOptions, Value,
};
use tantivy::tokenizer::{
    Language, LowerCaser, RemoveLongFilter, SimpleTokenizer, Stemmer, StopWordFilter, TextAnalyzer,
};
use tantivy::{DocAddress, Index, ReloadPolicy, Searcher, TantivyDocument, Term};

use crate::dense::PassageStore;
use crate::retriever::{Hit, RetrievalError, Retriever};

pub use build::BuildOptions;
pub use manifest::{IndexError, MANIFEST, Manifest};

/// Name of the analyzer in index files.
const ANALYZER: &str = "leyden_english";

/// Longer words, in bytes, are ignored (encoded data, markup).
const LONGEST_WORD: usize = 40;

/// Maximum number of distinct terms per query; longer queries are pasted documents.
const MOST_TERMS: usize = 256;

/// The fields of an index.
#[derive(Debug, Clone, Copy)]
struct Fields {
    id: Field,
    title: Field,
    text: Field,
    /// Title and text, indexed but not stored.
    body: Field,
    /// The passage's number, which orders segments when they are merged.
    number: Field,
}

fn schema() -> (Schema, Fields) {
    let mut builder = Schema::builder();
    let indexing = TextFieldIndexing::default()
        .set_tokenizer(ANALYZER)
        .set_index_option(IndexRecordOption::WithFreqs);
    let fields = Fields {
        id: builder.add_text_field("id", STORED),
        title: builder.add_text_field("title", STORED),
        text: builder.add_text_field("text", STORED),
        body: builder.add_text_field("body", TextOptions::default().set_indexing_options(indexing)),
        number: builder.add_u64_field("number", FAST),
    };
    (builder.build(), fields)
}

fn analyzer() -> TextAnalyzer {
    let words = TextAnalyzer::builder(SimpleTokenizer::default())
        .filter(RemoveLongFilter::limit(LONGEST_WORD))
        .filter(LowerCaser);
    match StopWordFilter::new(Language::English) {
        Some(stop_words) => {
            words.filter(stop_words).filter(Stemmer::new(Language::English)).build()
        }
        None => words.filter(Stemmer::new(Language::English)).build(),
    }
}

/// A word index of a corpus. Cheap to share, and safe to query from many threads.
pub struct Bm25 {
    searcher: Searcher,
    fields: Fields,
    analyzer: TextAnalyzer,
    manifest: Manifest,
}

impl Bm25 {
    /// Indexes `passages` in memory, without a stored index.
    ///
    /// # Errors
    /// [`IndexError::EmptyCorpus`] without passages.
    pub fn in_memory(passages: impl IntoIterator<Item = Passage>) -> Result<Self, IndexError> {
        let in_memory = |error: tantivy::TantivyError| IndexError::damaged("memory", error);
        let index = Index::builder().schema(schema().0).settings(build::settings());
        let index = index.create_in_ram().map_err(in_memory)?;
        let passages = passages.into_iter().map(Ok);
        let filled = build::fill(&index, passages, &BuildOptions::default(), &mut |_| {});
        let manifest = filled.map_err(|error| error.at(Path::new("memory")))?;
        Self::over(&index, manifest).map_err(|what| IndexError::damaged("memory", what))
    }

    /// Opens an index written by [`Bm25::build`] in `folder`. Checksums are verified up to a size
    /// of 1 GiB, which takes about a second; [`Bm25::verify`] does so for any size.
    ///
    /// # Errors
    /// If there is no index, or it has another version or is damaged.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, IndexError> {
        let folder = folder.as_ref();
        let manifest = Manifest::read(folder)?;
        let damaged = |what: String| IndexError::damaged(folder.display(), what);
        let index = open_tantivy(folder).map_err(damaged)?;
        if manifest.bytes <= 1 << 30 {
            verify(&index).map_err(damaged)?;
        }
        Self::over(&index, manifest).map_err(damaged)
    }

    /// Reads all files of the index in `folder` and compares them with their checksums.
    ///
    /// # Errors
    /// As [`Bm25::open`].
    pub fn verify(folder: impl AsRef<Path>) -> Result<(), IndexError> {
        let folder = folder.as_ref();
        Manifest::read(folder)?;
        let checked = open_tantivy(folder).and_then(|index| verify(&index));
        checked.map_err(|what| IndexError::damaged(folder.display(), what))
    }

    fn over(index: &Index, manifest: Manifest) -> Result<Self, String> {
        let (expected, fields) = schema();
        if index.schema() != expected {
            return Err("its fields differ from this program's".to_owned());
        }
        let text = |error: tantivy::TantivyError| error.to_string();
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual);
        let searcher = reader.try_into().map_err(text)?.searcher();
        let found = searcher.num_docs();
        if found != manifest.passages || searcher.segment_readers().len() != 1 {
            return Err(format!("it has {found} of {} passages", manifest.passages));
        }
        Ok(Self { searcher, fields, analyzer: analyzer(), manifest })
    }

    /// Metadata of the index: number of passages, hash of the corpus.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The query's terms with their counts in alphabetical order, so that sums of scores do not
    /// depend on the order of the words.
    fn terms(&self, query: &str) -> BTreeMap<String, u32> {
        let mut terms = BTreeMap::new();
        // An analyzer has an internal buffer, so each search needs its own copy.
        let mut analyzer = self.analyzer.clone();
        let mut stream = analyzer.token_stream(query);
        while let Some(token) = stream.next() {
            if let Some(count) = terms.get_mut(&token.text) {
                *count += 1;
            } else if terms.len() < MOST_TERMS {
                terms.insert(token.text.clone(), 1);
            }
        }
        terms
    }

    fn query(&self, text: &str) -> BooleanQuery {
        let clause = |(term, count): (String, u32)| {
            let term = Term::from_field_text(self.fields.body, &term);
            let once = TermQuery::new(term, IndexRecordOption::WithFreqs);
            let query: Box<dyn Query> = if count == 1 {
                Box::new(once)
            } else {
                Box::new(BoostQuery::new(Box::new(once), count as f32))
            };
            (Occur::Should, query)
        };
        BooleanQuery::new(self.terms(text).into_iter().map(clause).collect())
    }

    fn search(&self, query: &str, k: usize) -> tantivy::Result<Vec<Hit>> {
        let limit = k.min(usize::try_from(self.manifest.passages).unwrap_or(usize::MAX));
        if limit == 0 {
            return Ok(Vec::new());
        }
        let top = TopDocs::with_limit(limit).order_by_score();
        let found = self.searcher.search(&self.query(query), &top)?;
        let hit = |(score, address): (f32, DocAddress)| {
            let number = address.doc_id as usize;
            Ok(Hit { passage: self.stored(address)?, number, score: f64::from(score) })
        };
        found.into_iter().map(hit).collect()
    }

    fn stored(&self, address: DocAddress) -> tantivy::Result<Passage> {
        let document: TantivyDocument = self.searcher.doc(address)?;
        let text = |field| {
            document.get_first(field).and_then(|v| v.as_str()).unwrap_or_default().to_owned()
        };
        let Fields { id, title, text: body, .. } = self.fields;
        Ok(Passage { id: text(id), title: text(title), text: text(body) })
    }
}

impl Retriever for Bm25 {
    fn retrieve(&self, query: &str, k: usize) -> Result<Vec<Hit>, RetrievalError> {
        self.search(query, k).map_err(|error| RetrievalError::Index(error.to_string()))
    }
}

impl PassageStore for Bm25 {
    fn len(&self) -> usize {
        usize::try_from(self.manifest.passages).unwrap_or(usize::MAX)
    }

    fn passage(&self, number: usize) -> Result<Passage, RetrievalError> {
        let missing = || RetrievalError::Index(format!("there is no passage {number}"));
        if number >= self.len() {
            return Err(missing());
        }
        let doc_id = u32::try_from(number).map_err(|_| missing())?;
        self.stored(DocAddress::new(0, doc_id))
            .map_err(|error| RetrievalError::Index(error.to_string()))
    }
}

fn open_tantivy(folder: &Path) -> Result<Index, String> {
    let index = Index::open_in_dir(folder).map_err(|error| error.to_string())?;
    index.tokenizers().register(ANALYZER, analyzer());
    Ok(index)
}

fn verify(index: &Index) -> Result<(), String> {
    let wrong = index.validate_checksum().map_err(|error| error.to_string())?;
    match wrong.iter().min() {
        None => Ok(()),
        Some(file) => Err(format!("the checksum of {} is wrong", file.display())),
    }
}
