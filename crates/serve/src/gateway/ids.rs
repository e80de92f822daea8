//! Names that come in URLs and bodies: rollouts, attempts, workers.

/// Longest name; v1 controllers put ids into Kubernetes labels of 63.
const LONGEST: usize = 200;

/// Letters, digits and `-_.:@`, so that an id is itself in a path, a log line and a label.
///
/// # Errors
/// A sentence that names `field`.
pub(super) fn check(field: &str, id: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:@".contains(&byte);
    if id.is_empty() || id.len() > LONGEST || !id.bytes().all(allowed) || id == "." || id == ".." {
        return Err(format!(
            "{field} must have 1 to {LONGEST} letters, digits or characters of -_.:@"
        ));
    }
    Ok(())
}

/// 128 bits of the system's randomness in hexadecimal.
pub(super) fn random() -> String {
    crate::store::random_id()
}
