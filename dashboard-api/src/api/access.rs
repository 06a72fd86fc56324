//! Who may ask what. A bearer token opens everything; the browser's cookie opens what only reads; the seed's addresses
//! open to listed machines without either; health, the login form and static files to anyone.

use std::net::{IpAddr, SocketAddr};

use axum::{
    extract::{ConnectInfo, FromRequestParts, Request, State},
    http::{HeaderMap, Method, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Redirect, Response},
};

use super::problem::Problem;
use crate::app::App;

/// The header by which a client says who asks.
const OPERATOR: &str = "x-longshore-operator";
/// A longer name is cut.
const MOST_NAME_CHARACTERS: usize = 80;

/// The browser's cookie.
pub const COOKIE: &str = "longshore";

/// What a path is, to the one who guards it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Open,
    Legacy,
    Page,
    Api,
}

fn door(path: &str) -> Door {
    match path {
        "/healthz" | "/login" => Door::Open,
        "/api/openapi.json" | "/metrics" => Door::Api,
        _ if path.starts_with("/assets/") => Door::Open,
        _ if path.starts_with("/api/v1/") => Door::Api,
        _ if path.starts_with("/api/") => Door::Legacy,
        _ => Door::Page,
    }
}

/// The middleware.
pub async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let door = door(request.uri().path());
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let bearer = bearer(request.headers());
    let allowed = match (&bearer, door) {
        (_, Door::Open) => true,
        (Some(token), _) if app.keys().is_token(token) => true,
        (Some(_), _) => false,
        (None, _) if reads && cookie(request.headers()).is_some_and(|value| app.keys().is_cookie(value)) => true,
        (None, Door::Legacy) => peer(&request).is_some_and(|peer| app.settings().is_legacy_client(peer)),
        (None, Door::Page | Door::Api) => false,
    };
    if allowed {
        return next.run(request).await;
    }
    match door {
        Door::Page if bearer.is_none() && request.headers().contains_key("hx-request") => {
            // A fragment of an open page whose cookie is over: htmx then loads the form.
            (axum::http::StatusCode::UNAUTHORIZED, [("hx-redirect", "/login")]).into_response()
        }
        Door::Page if bearer.is_none() && reads => Redirect::to("/login").into_response(),
        _ if bearer.is_some() => Problem::unauthorized(format!(
            "this is not the token of this server; it is in {}",
            app.settings().token_file().display()
        ))
        .into_response(),
        Door::Legacy => Problem::unauthorized(match peer(&request) {
            Some(peer) => format!("send Authorization: Bearer TOKEN, or list {peer} in legacy_clients"),
            None => "send Authorization: Bearer TOKEN".to_owned(),
        })
        .into_response(),
        _ => Problem::unauthorized(format!(
            "send Authorization: Bearer TOKEN; the token is in {} of the server",
            app.settings().token_file().display()
        ))
        .into_response(),
    }
}

/// Who changes something, for records and logs: what the client's `X-Longshore-Operator` says, and the address it came from. The
/// name is claimed, not proven: who has the token can give any.
#[derive(Debug, Clone)]
pub struct Operator(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Operator {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let name = parts.headers.get(OPERATOR).map(|value| String::from_utf8_lossy(value.as_bytes()));
        let name: String =
            name.iter().flat_map(|name| name.chars()).filter(|c| !c.is_control()).take(MOST_NAME_CHARACTERS).collect();
        let address =
            parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip().to_canonical());
        Ok(Self(match (name.trim(), address) {
            ("", None) => "an operator".to_owned(),
            ("", Some(address)) => address.to_string(),
            (name, None) => name.to_owned(),
            (name, Some(address)) => format!("{name} ({address})"),
        }))
    }
}

fn peer(request: &Request) -> Option<IpAddr> {
    let ConnectInfo(address) = request.extensions().get::<ConnectInfo<SocketAddr>>()?;
    Some(address.ip().to_canonical())
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    cookies
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(name, value)| (name == COOKIE).then_some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_health_login_and_static_files_is_open() {
        for path in ["/healthz", "/login", "/assets/htmx.min.js"] {
            assert_eq!(door(path), Door::Open, "{path}");
        }
        for path in ["/", "/page/nodes", "/healthz/", "/assets", "/loginx", "/unknown"] {
            assert_eq!(door(path), Door::Page, "{path}");
        }
        for path in ["/api/v1/backups", "/api/openapi.json", "/metrics"] {
            assert_eq!(door(path), Door::Api, "{path}");
        }
        for path in ["/api/cluster/1", "/api/get_backup_list", "/api/v1"] {
            assert_eq!(door(path), Door::Legacy, "{path}");
        }
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, "a=b; longshore=xyz; c=d".parse().unwrap());
        assert_eq!(cookie(&headers), Some("xyz"));
        headers.insert(header::COOKIE, "xlongshore=xyz".parse().unwrap());
        assert_eq!(cookie(&headers), None);
    }
}
