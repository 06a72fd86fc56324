//! The token that lets a restore fetch stored files from a node: it names the backups, ends soon, and is signed by
//! dashboard-api with Ed25519. Nodes hold only the public key.
//!
//! Text form: `base64url(claims JSON) . base64url(signature over those base64url bytes)`, without padding.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::{JobId, Millis};

/// How long a token is good; a long restore renews it.
pub const TOKEN_LIFE: Duration = Duration::from_secs(15 * 60);
/// Tokens longer than this are refused unread: about 1,000 backups.
const MAX_TOKEN_BYTES: usize = 64 * 1024;

/// What a token allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreClaims {
    /// The backups whose files may be fetched.
    pub backups: Vec<JobId>,
    /// Good until then, by the node's clock.
    pub expires_at: Millis,
    /// Who asked, for the node's log.
    pub subject: String,
}

/// Why a token does not open anything.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TokenError {
    /// Not of this form.
    #[error("the token is not of the form CLAIMS.SIGNATURE")]
    Malformed,
    /// Signed by another key, or changed.
    #[error("the token's signature does not fit this node's restore key")]
    Signature,
    /// Over.
    #[error("the token ended at {0}")]
    Expired(Millis),
    /// It names other backups.
    #[error("the token does not name backup {0}")]
    OtherBackup(JobId),
}

/// Signs `claims`.
pub fn sign(key: &SigningKey, claims: &RestoreClaims) -> String {
    let body = serde_json::to_vec(claims).unwrap_or_default();
    let body = URL_SAFE_NO_PAD.encode(body);
    let signature = key.sign(body.as_bytes());
    format!("{body}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes()))
}

/// Checks that `token` is signed by `key`, not over at `now`, and names `backup`.
///
/// # Errors
/// [`TokenError`], the first rule that it breaks.
pub fn verify(key: &VerifyingKey, token: &str, backup: JobId, now: Millis) -> Result<RestoreClaims, TokenError> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(TokenError::Malformed);
    }
    let (body, signature) = token.split_once('.').ok_or(TokenError::Malformed)?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Malformed)?;
    let signature = Signature::from_slice(&signature).map_err(|_| TokenError::Malformed)?;
    key.verify_strict(body.as_bytes(), &signature).map_err(|_| TokenError::Signature)?;
    let claims = URL_SAFE_NO_PAD.decode(body).map_err(|_| TokenError::Malformed)?;
    let claims: RestoreClaims = serde_json::from_slice(&claims).map_err(|_| TokenError::Malformed)?;
    if now >= claims.expires_at {
        return Err(TokenError::Expired(claims.expires_at));
    }
    if !claims.backups.contains(&backup) {
        return Err(TokenError::OtherBackup(backup));
    }
    Ok(claims)
}

/// Writes a public key as configuration and files carry it: base64 of its 32 bytes.
pub fn public_key_text(key: &VerifyingKey) -> String {
    base64::engine::general_purpose::STANDARD.encode(key.as_bytes())
}

/// Reads a public key back.
///
/// # Errors
/// [`TokenError::Malformed`] when it is not base64 of a valid key.
pub fn parse_public_key(text: &str) -> Result<VerifyingKey, TokenError> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(text.trim()).map_err(|_| TokenError::Malformed)?;
    let bytes: [u8; 32] = bytes.try_into().map_err(|_| TokenError::Malformed)?;
    VerifyingKey::from_bytes(&bytes).map_err(|_| TokenError::Malformed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_token_opens_just_its_backups_for_its_time() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let backup = JobId::fresh();
        let claims = RestoreClaims { backups: vec![backup], expires_at: Millis(1000), subject: "ops".into() };
        let token = sign(&key, &claims);
        let public = parse_public_key(&public_key_text(&key.verifying_key())).unwrap();
        assert_eq!(verify(&public, &token, backup, Millis(999)), Ok(claims));
        assert_eq!(verify(&public, &token, backup, Millis(1000)), Err(TokenError::Expired(Millis(1000))));
        let other = JobId::fresh();
        assert_eq!(verify(&public, &token, other, Millis(1)), Err(TokenError::OtherBackup(other)));
        let stranger = SigningKey::from_bytes(&[8; 32]).verifying_key();
        assert_eq!(verify(&stranger, &token, backup, Millis(1)), Err(TokenError::Signature));
        let changed = token.replacen(&token[4..5], if &token[4..5] == "A" { "B" } else { "A" }, 1);
        assert!(verify(&public, &changed, backup, Millis(1)).is_err());
        assert_eq!(verify(&public, "x", backup, Millis(1)), Err(TokenError::Malformed));
    }
}
