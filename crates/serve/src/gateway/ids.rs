//! Validation of ids in URLs and bodies: rollouts, attempts, workers.

/// Maximum length. (v1 controllers put ids into Kubernetes labels, limited to 63.)
const LONGEST: usize = 200;

/// Allows letters, digits and `-_.:@`, so that an id needs no escaping in a path, log line or
/// label.
///
/// # Errors
/// An error naming `field`.
pub(super) fn check(field: &str, id: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:@".contains(&byte);
    if id.is_empty() || id.len() > LONGEST || !id.bytes().all(allowed) || id == "." || id == ".." {
        return Err(format!(
            "{field} must have 1 to {LONGEST} letters, digits or characters of -_.:@"
        ));
    }
    Ok(())
}

/// 128 random bits from the operating system, in hexadecimal.
pub(super) fn random() -> String {
    crate::store::random_id()
}
