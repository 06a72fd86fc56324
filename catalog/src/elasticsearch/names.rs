//! What the indexes are called. An entry lives in the index of the month that its job's id was made in: the id alone says
//! where it is, so it is never written twice, and can be fetched at once.

use longshore_core::JobId;

/// The names under one prefix.
#[derive(Debug, Clone)]
pub(super) struct Names {
    prefix: String,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// The alias over all months.
    pub(super) fn backups(&self) -> String {
        format!("{}-backups", self.prefix)
    }

    /// The index of a job's entry. The ids of a clock gone wrong share the two months at the ends, so that they can't make
    /// thousands of indexes.
    pub(super) fn month_of(&self, id: JobId) -> String {
        let date = id.time().timestamp().to_zoned(jiff::tz::TimeZone::UTC).date();
        let (year, month) = (date.year(), date.month());
        let (year, month) = match year {
            ..2010 => (2010, 1),
            2040.. => (2039, 12),
            _ => (year, month),
        };
        format!("{}-backups-{year:04}-{month:02}", self.prefix)
    }

    /// What the names of all months match.
    pub(super) fn months(&self) -> String {
        format!("{}-backups-*", self.prefix)
    }

    /// The index of instances.
    pub(super) fn freshness(&self) -> String {
        format!("{}-freshness", self.prefix)
    }

    /// The index of hosts.
    pub(super) fn hosts(&self) -> String {
        format!("{}-hosts", self.prefix)
    }

    /// Whether Elasticsearch takes the prefix.
    pub(super) fn is_valid(prefix: &str) -> bool {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        prefix.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
            && prefix.len() <= 100
            && prefix.bytes().all(allowed)
    }
}

#[cfg(test)]
mod tests {
    use longshore_core::{JobId, Millis};

    use super::Names;

    #[test]
    fn a_job_lives_in_the_month_of_its_id() {
        let names = Names::new("longshore");
        let month = |millis: i64| names.month_of(JobId::from_content(Millis(millis), 7));
        assert_eq!(month(1_795_132_800_000), "longshore-backups-2026-11");
        assert_eq!(month(1_796_083_199_999), "longshore-backups-2026-11");
        assert_eq!(month(1_796_083_200_000), "longshore-backups-2026-12");
        assert_eq!(month(0), "longshore-backups-2010-01");
        assert_eq!(month(i64::MAX), "longshore-backups-2039-12");
    }

    #[test]
    fn a_prefix_is_what_an_index_may_be_called() {
        for good in ["longshore", "a", "x-1.y_z"] {
            assert!(Names::is_valid(good), "{good}");
        }
        for bad in ["", "-a", "_a", "Longshore", "a b", "a*", "a/b", "数"] {
            assert!(!Names::is_valid(bad), "{bad}");
        }
    }
}
