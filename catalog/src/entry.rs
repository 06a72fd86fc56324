//! What both back-ends write of a report: the report whole, as JSON, and the columns to find it by. What neither could hold
//! is refused here, with the reason, so that both refuse the same.

use std::borrow::Cow;

use longshore_core::{
    Millis, Report,
    chain::FullBackup,
    report::{MAX_REASON_BYTES, Reason},
};

use crate::words;

/// 9999-12-31T23:59:59.999Z, the last moment that a calendar with four-digit years has.
pub(crate) const LAST_MOMENT: Millis = Millis(253_402_300_799_999);

/// Revisions are below this; as microseconds it is in the year 75000.
pub(crate) const REVISION_LIMIT: i64 = 1 << 61;

/// A report, made ready to be written.
pub(crate) struct Entry<'a> {
    /// The report, its reason cut.
    pub(crate) report: Cow<'a, Report>,
    /// The report's revision, within the range of both back-ends.
    pub(crate) revision: i64,
    /// Bytes announced.
    pub(crate) size_bytes: i64,
    /// The words of the reason's text; `None` without a reason.
    pub(crate) words: Option<String>,
}

impl<'a> Entry<'a> {
    /// Of `report`; the error says why no catalog can hold it.
    pub(crate) fn of(report: &'a Report) -> Result<Self, String> {
        for (what, at) in [("made_at", report.job.made_at), ("stored_at", report.stored_at)] {
            if at < Millis(0) || at > LAST_MOMENT {
                return Err(format!("{what} is {}, which is not a time between 1970 and 9999", at.0));
            }
        }
        let revision = i64::try_from(report.revision).ok().filter(|revision| *revision < REVISION_LIMIT);
        let revision = revision.ok_or_else(|| format!("revision {} is too large", report.revision))?;
        let size = report.job.size_bytes();
        let size_bytes = i64::try_from(size).map_err(|_| format!("size_bytes {size} is too large"))?;
        let mut report = Cow::Borrowed(report);
        if report.reason.as_ref().is_some_and(|reason| reason.text.len() > MAX_REASON_BYTES) {
            let report = report.to_mut();
            report.reason = report.reason.take().map(|reason| Reason::new(reason.code, reason.text));
        }
        let words = report.reason.as_ref().map(|reason| words::spaced(&reason.text));
        Ok(Self { report, revision, size_bytes, words })
    }

    /// The same, borrowing nothing.
    pub(crate) fn into_owned(self) -> Entry<'static> {
        Entry { report: Cow::Owned(self.report.into_owned()), ..self }
    }

    /// The full it belongs to (itself, for a full).
    pub(crate) fn full(&self) -> Option<&FullBackup> {
        self.report.job.chain.as_ref().map(|link| &link.full)
    }
}
