//! Embeddings on disk: round trips, and rejection of other versions, origins and damage.

use std::path::Path;

use leyden_retrieval::{Embeddings, Origin};
use proptest::prelude::*;

fn origin() -> Origin {
    Origin { encoder: "e".to_owned(), source_sha256: "c".to_owned() }
}

fn error(path: &Path, origin: &Origin) -> String {
    Embeddings::load(path, origin).unwrap_err().to_string()
}

/// A file with three vectors.
fn stored() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vectors.safetensors");
    let embeddings = Embeddings::new([[0.3, 0.7], [0.0, 0.0], [-2.0, 1.0]]).unwrap();
    embeddings.save(&path, &origin()).unwrap();
    assert_eq!(Embeddings::load(&path, &origin()).unwrap(), embeddings);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    (folder, path)
}

#[test]
fn vectors_of_another_origin_are_rejected() {
    let (_folder, path) = stored();
    let encoder = Origin { encoder: "f".to_owned(), ..origin() };
    assert!(error(&path, &encoder).contains("were computed by another encoder; remove the file"));
    let corpus = Origin { source_sha256: "d".to_owned(), ..origin() };
    assert!(error(&path, &corpus).contains("were computed from another corpus"));
    let mut bytes = std::fs::read(&path).unwrap();
    let format = br#""format":"1""#;
    let at = bytes.windows(format.len()).position(|window| window == format).unwrap();
    bytes[at + format.len() - 2] = b'7';
    std::fs::write(&path, bytes).unwrap();
    assert!(error(&path, &origin()).contains("have format 7, this program reads format 1"));
    assert!(error(Path::new("/nowhere/x"), &origin()).contains("/nowhere/x cannot be read"));
}

#[test]
fn vectors_that_are_not_finite_are_damage() {
    let (_folder, path) = stored();
    let mut bytes = std::fs::read(&path).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    let message = error(&path, &origin());
    assert!(message.contains("the embedding 2 has a component that is not finite"), "{message}");
}

proptest! {
    #[test]
    fn a_corrupted_file_is_rejected_or_read_without_panic(
        cut in 0usize..400, flips in prop::collection::vec((0usize..400, any::<u8>()), 0..4),
    ) {
        let (_folder, path) = stored();
        let mut bytes = std::fs::read(&path).unwrap();
        let length = bytes.len();
        for (at, byte) in flips {
            bytes[at % length] = byte;
        }
        bytes.truncate(cut.min(length));
        std::fs::write(&path, &bytes).unwrap();
        if let Ok(embeddings) = Embeddings::load(&path, &origin()) {
            prop_assert!(embeddings.rows().flatten().all(|value| value.is_finite()));
            prop_assert_eq!(bytes.len(), length);
        }
    }
}
