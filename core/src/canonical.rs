//! The bytes that a job's signature covers: the RFC 8785 form of the job without its `signature`, unknown fields included.

use serde::Serialize;

/// Canonical JSON (RFC 8785) of `job` without the field `signature`. Who signs gives the [`crate::Job`]; who verifies gives the
/// JSON as it was received, so that what this version doesn't know, or would write in another way, is covered as well.
///
/// # Errors
/// A number that has no canonical form (not finite); such a job cannot have come from JSON.
pub fn signed_bytes(job: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut value = serde_json::to_value(job)?;
    if let Some(fields) = value.as_object_mut() {
        fields.remove("signature");
    }
    serde_json_canonicalizer::to_vec(&value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Job;

    #[test]
    fn the_example_has_these_bytes() {
        let job: Job = serde_json::from_str(include_str!("../fixtures/job-v1.json")).unwrap();
        let expected = include_str!("../fixtures/job-v1.canonical.json");
        assert_eq!(String::from_utf8(signed_bytes(&job).unwrap()).unwrap(), expected.trim_end());
    }

    #[test]
    fn what_was_received_is_covered_as_it_was_written() {
        let text = include_str!("../fixtures/job-v1.json");
        let mut received: serde_json::Value = serde_json::from_str(text).unwrap();
        let job: Job = serde_json::from_str(text).unwrap();
        assert_eq!(signed_bytes(&received).unwrap(), signed_bytes(&job).unwrap());
        received["chain"]["full"]["later"] = 1.into();
        assert_ne!(signed_bytes(&received).unwrap(), signed_bytes(&job).unwrap());
    }

    #[test]
    fn the_signature_is_left_out_and_unknown_fields_are_covered() {
        let mut job: Job = serde_json::from_str(include_str!("../fixtures/job-v1.json")).unwrap();
        let plain = signed_bytes(&job).unwrap();
        job.signature = Some("x".into());
        assert_eq!(signed_bytes(&job).unwrap(), plain);
        job.extra.insert("later".into(), 1.into());
        assert_ne!(signed_bytes(&job).unwrap(), plain);
    }
}
