//! Errors as RFC 9457 problem details. Every refusal of the API has this form, and says what to do where that is known.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use longshore_catalog::CatalogError;
use longshore_core::Millis;
use serde::Serialize;
use utoipa::ToSchema;

use crate::registry::{RegistryError, import::RowError};

/// What went wrong, as `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Problem {
    /// For programs: `urn:longshore:problem:` and a word.
    #[serde(rename = "type")]
    #[schema(value_type = String, example = "urn:longshore:problem:not-found")]
    pub kind: &'static str,
    /// For people: the kind in a few words.
    #[schema(value_type = String)]
    pub title: Box<str>,
    /// The HTTP status.
    pub status: u16,
    /// For people: what happened here, and what to do.
    #[schema(value_type = String)]
    pub detail: Box<str>,
    /// Wrong rows of an imported file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<RowError>,
    /// What may have been meant instead.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nearest: Vec<String>,
    /// Since when a service is away, UTC milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub since: Option<Millis>,
}

impl Problem {
    fn new(status: StatusCode, kind: &'static str, title: &str, detail: impl ToString) -> Self {
        Self {
            kind,
            title: title.into(),
            status: status.as_u16(),
            detail: detail.to_string().into(),
            rows: Vec::new(),
            nearest: Vec::new(),
            since: None,
        }
    }

    /// 400: a parameter or body that can't be read.
    pub fn bad_request(detail: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "urn:longshore:problem:bad-request", "The request can't be read", detail)
    }

    /// 401: no token, or another's.
    pub fn unauthorized(detail: impl ToString) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "urn:longshore:problem:unauthorized", "A token is needed", detail)
    }

    /// 404.
    pub fn not_found(detail: impl ToString) -> Self {
        Self::new(StatusCode::NOT_FOUND, "urn:longshore:problem:not-found", "There is no such thing", detail)
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        let detail = "this address does not take this method; /api/openapi.json says which it takes";
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "urn:longshore:problem:method-not-allowed",
            "Not with this method",
            detail,
        )
    }

    /// 409.
    pub fn conflict(detail: impl ToString) -> Self {
        Self::new(StatusCode::CONFLICT, "urn:longshore:problem:conflict", "It stands against what is there", detail)
    }

    /// 413.
    pub fn too_large(detail: impl ToString) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "urn:longshore:problem:too-large", "The body is too large", detail)
    }

    /// 422: readable, but not acceptable.
    pub fn unacceptable(detail: impl ToString) -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "urn:longshore:problem:unacceptable",
            "A value is not acceptable",
            detail,
        )
    }

    /// 500.
    pub fn internal(detail: impl ToString) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "urn:longshore:problem:internal", "This should not happen", detail)
    }

    /// 503: another service is away; the same request may succeed later.
    pub fn away(what: &str, detail: impl ToString, since: Option<Millis>) -> Self {
        let title = format!("{what} is away");
        Self { since, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "urn:longshore:problem:away", &title, detail) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(detail = %self.detail, "a request failed");
        }
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"longshore\""));
        }
        response
    }
}

impl From<RegistryError> for Problem {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::NotFound { .. } => Self::not_found(error),
            RegistryError::Taken { .. } | RegistryError::InUse { .. } => Self::conflict(error),
            RegistryError::Reference(_) | RegistryError::Invalid(_) => Self::unacceptable(error),
            RegistryError::Rows(ref rows) => Self { rows: rows.rows.clone(), ..Self::unacceptable(&error) },
            RegistryError::Database(_) | RegistryError::Migration(_) => Self::internal(error),
        }
    }
}

impl From<CatalogError> for Problem {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::Cursor => Self::bad_request(error),
            CatalogError::Unavailable { .. } | CatalogError::NotCreated { .. } | CatalogError::Unusable { .. } => {
                Self::away("The catalog", error, None)
            }
            CatalogError::Damaged { .. } | CatalogError::Config(_) => Self::internal(error),
        }
    }
}
