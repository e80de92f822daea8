//! Access control of the live page.
//!
//! The page shows a model's output, so access is restricted. Without a key it is served on a
//! loopback address only, and only under a loopback host name: otherwise a foreign web page could
//! read it through the visitor's browser by DNS rebinding to 127.0.0.1. With a key, a browser
//! sends it once in the address (`?key=…`) and then uses a cookie, because an event stream cannot
//! carry headers; programs send it as `Authorization: Bearer`.

use std::fmt;

use axum::extract::{Query, Request, State};
use axum::http::header::{AUTHORIZATION, COOKIE, HOST, LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Authorises every request for the page.
#[derive(Clone)]
pub struct Guard {
    secret: Option<Secret>,
}

#[derive(Clone)]
struct Secret {
    key: String,
    /// Name and value of the cookie. The name depends on the key, because all ports of a host
    /// share cookies and may serve runs with different keys.
    cookie: (String, String),
}

/// A query that contains a key.
#[derive(Deserialize)]
struct KeyQuery {
    key: String,
}

impl Guard {
    /// Admits loopback host names only.
    pub fn loopback() -> Self {
        Self { secret: None }
    }

    /// Admits requests with the key.
    pub fn key(key: &str) -> Self {
        let hash = |what: &str| {
            let digest = Sha256::digest(format!("leyden live {what} {key}"));
            digest.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
        };
        let cookie = (format!("leyden_live_{}", &hash("name")[..8]), hash("value"));
        Self { secret: Some(Secret { key: key.to_owned(), cookie }) }
    }

    pub fn has_key(&self) -> bool {
        self.secret.is_some()
    }

    fn admits(&self, headers: &HeaderMap) -> bool {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
        let Some(secret) = &self.secret else { return is_loopback_name(text(HOST)) };
        if text(AUTHORIZATION).strip_prefix("Bearer ").is_some_and(|key| equal(key, &secret.key)) {
            return true;
        }
        let (name, value) = &secret.cookie;
        headers
            .get_all(COOKIE)
            .iter()
            .filter_map(|header| header.to_str().ok())
            .flat_map(|header| header.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .any(|(n, v)| n == name && equal(v, value))
    }

    /// The response to an address with the correct key: a cookie, and a redirect to the address
    /// without it.
    fn exchange_key(&self, uri: &Uri) -> Option<Response> {
        let secret = self.secret.as_ref()?;
        let Query(shown) = Query::<KeyQuery>::try_from_uri(uri).ok()?;
        if !equal(&shown.key, &secret.key) {
            return None;
        }
        let (name, value) = &secret.cookie;
        let cookie = format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict");
        let mut response = StatusCode::SEE_OTHER.into_response();
        let headers = response.headers_mut();
        headers.insert(SET_COOKIE, HeaderValue::from_str(&cookie).ok()?);
        headers.insert(LOCATION, HeaderValue::from_str(uri.path()).ok()?);
        Some(response)
    }
}

impl fmt::Debug for Guard {
    /// Omits the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("has_key", &self.has_key()).finish()
    }
}

/// Authorisation middleware.
pub(super) async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    if let Some(response) = guard.exchange_key(request.uri()) {
        return response;
    }
    if guard.admits(request.headers()) {
        return next.run(request).await;
    }
    let (status, what) = match guard.has_key() {
        true => (
            StatusCode::UNAUTHORIZED,
            "this page requires a key: open it with ?key=… or send Authorization: Bearer …\n",
        ),
        false => (
            StatusCode::FORBIDDEN,
            "this page is served without a key, so it is available as localhost or under a \
             loopback address only\n",
        ),
    };
    (status, what).into_response()
}

fn equal(a: &str, b: &str) -> bool {
    a.as_bytes().ct_eq(b.as_bytes()).into()
}

/// Whether a `Host` header is a loopback name, with any port.
fn is_loopback_name(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(""),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_machine() {
        for host in ["localhost", "LOCALHOST:80", "127.0.0.1:8080", "127.1.2.3", "[::1]:9", "[::1]"]
        {
            assert!(is_loopback_name(host), "{host}");
        }
        for host in
            ["", "evil.example", "localhost.evil.example:80", "127.0.0.1.evil", "10.0.0.1", "["]
        {
            assert!(!is_loopback_name(host), "{host}");
        }
    }

    #[test]
    fn a_key_is_never_printed() {
        assert!(!format!("{:?}", Guard::key("secret")).contains("secret"));
    }
}
