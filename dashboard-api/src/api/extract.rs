//! What handlers take from a request. Axum's own extractors answer in plain text; these answer in problem details and name
//! the field.

use std::{fmt::Display, str::FromStr};

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Request, rejection::BytesRejection},
    http::request::Parts,
};
use longshore_core::Millis;
use serde::{Deserialize, Deserializer, de, de::DeserializeOwned};

use super::problem::Problem;

/// A JSON body.
#[derive(Debug)]
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = body_bytes(request, state).await?;
        let mut reader = serde_json::Deserializer::from_slice(&bytes);
        let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| match error.inner().classify() {
            serde_json::error::Category::Data => Problem::unacceptable(match error.path().to_string().as_str() {
                "." => error.inner().to_string(),
                path => format!("{path}: {}", error.inner()),
            }),
            _ => Problem::bad_request(format!("the body is not JSON: {}", error.inner())),
        })?;
        reader.end().map_err(|error| Problem::bad_request(format!("the body is not one JSON value: {error}")))?;
        Ok(Self(value))
    }
}

/// A body as UTF-8 text.
#[derive(Debug)]
pub struct Text(pub String);

impl<S: Send + Sync> FromRequest<S> for Text {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = body_bytes(request, state).await?;
        String::from_utf8(bytes.to_vec())
            .map(Self)
            .map_err(|error| Problem::bad_request(format!("the body is not UTF-8: {error}; convert the file first")))
    }
}

async fn body_bytes<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    Bytes::from_request(request, state).await.map_err(|rejection| match rejection {
        BytesRejection::FailedToBufferBody(ref cause) if cause.status() == 413 => {
            Problem::too_large(format!("the body has more than {} MiB", super::MAX_BODY_BYTES >> 20))
        }
        other => Problem::bad_request(other),
    })
}

/// The query string.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = axum::extract::Query::<T>::try_from_uri(&parts.uri);
        query.map(|query| Self(query.0)).map_err(|rejection| Problem::bad_request(rejection.body_text()))
    }
}

/// The parts of the path that the route names.
#[derive(Debug)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        path.map(|path| Self(path.0)).map_err(|rejection| Problem::bad_request(rejection.body_text()))
    }
}

/// A moment in a query string: UTC milliseconds, or RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment(pub Millis);

impl FromStr for Moment {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(millis) = text.parse() {
            return Ok(Self(Millis(millis)));
        }
        let timestamp: jiff::Timestamp = text
            .parse()
            .map_err(|_| format!("{text:?} is neither UTC milliseconds nor a time such as 2026-11-20T03:00:00Z"))?;
        Ok(Self(Millis(timestamp.as_millisecond())))
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match TextOrNumber::deserialize(deserializer)? {
            TextOrNumber::Text(text) => text.parse().map_err(de::Error::custom),
            TextOrNumber::Number(millis) => Ok(Self(Millis(millis))),
        }
    }
}

/// A number: in a query string, where everything is text, or in a body.
pub(super) fn parsed_or_none<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let text = match Option::<TextOrNumber>::deserialize(deserializer)? {
        Some(TextOrNumber::Text(text)) if !text.is_empty() => text,
        Some(TextOrNumber::Number(number)) => number.to_string(),
        _ => return Ok(None),
    };
    text.parse().map(Some).map_err(|error| de::Error::custom(format!("{text:?}: {error}")))
}

/// Given as JSON number or text.
#[derive(Deserialize)]
#[serde(untagged)]
enum TextOrNumber {
    Text(String),
    Number(i64),
}
