//! What people read in a cell or a line: sizes and spans as everywhere, and times in the local zone.

use jiff::tz::TimeZone;
use longshore_core::Millis;
pub use longshore_core::text::{ago, count, size, span};

/// `2026-11-20 03:00:05`, in the local zone, for tables whose head names the zone.
pub fn local(at: Millis) -> String {
    at.timestamp().to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// `2026-11-20 03:00:05 CST`.
pub fn moment(at: Millis) -> String {
    at.timestamp().to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
}

/// `CST`: the local zone's name now.
pub fn zone() -> String {
    jiff::Zoned::now().strftime("%Z").to_string()
}
