//! Model servers and conversations of `/v1/responses`.

use rusqlite::params;

use super::super::StoreError;
use super::super::types::ModelServer;
use super::super::writer::Writing;

/// Registers model servers, replacing those with the same model and endpoint.
pub(in crate::store) fn put_models(
    writing: &mut Writing<'_>,
    models: &[ModelServer],
) -> Result<(), StoreError> {
    let mut statement = writing.db.prepare_cached(
        "INSERT INTO models (model, endpoint, version) VALUES (?1, ?2, ?3)
         ON CONFLICT (model, endpoint) DO UPDATE SET version = excluded.version",
    )?;
    for server in models {
        statement.execute(params![server.model, server.endpoint, server.version])?;
    }
    Ok(())
}

pub(in crate::store) fn clear_models(writing: &mut Writing<'_>) -> Result<(), StoreError> {
    writing.db.prepare_cached("DELETE FROM models")?.execute([])?;
    Ok(())
}

/// Stores a conversation under a response's id and evicts all but the last `most` conversations.
pub(in crate::store) fn keep_response(
    writing: &mut Writing<'_>,
    id: &str,
    items: &str,
    most: usize,
) -> Result<(), StoreError> {
    let db = writing.db;
    let seq = db
        .prepare_cached("INSERT OR REPLACE INTO responses (id, items) VALUES (?1, ?2)")?
        .insert(params![id, items])?;
    let oldest = seq.saturating_sub(i64::try_from(most).unwrap_or(i64::MAX));
    db.prepare_cached("DELETE FROM responses WHERE seq <= ?1")?.execute([oldest])?;
    *writing.bytes += items.len();
    Ok(())
}
