//! Hours that repeat every week: [`Window`], when something may be done, and [`RatePlan`], how fast.
//!
//! ```
//! use longshore_core::{Millis, calendar::{RatePlan, Window}};
//!
//! let window: Window = "22:00-06:00 Mon-Fri Europe/Berlin, 00:00-24:00 Sat-Sun".parse()?;
//! let plan: RatePlan = "09:00-18:00 Mon-Fri 20MB/s, else unlimited".parse()?;
//! let wednesday_noon = Millis::from_seconds(1_769_601_600);
//! assert!(!window.is_open(wednesday_noon));
//! assert_eq!(plan.rate(wednesday_noon), Some(20_000_000));
//! # Ok::<(), longshore_core::calendar::CalendarError>(())
//! ```
//!
//! Hours are what a clock on the wall of the zone shows. So an hour that is skipped in spring is not there, one that comes
//! twice in autumn counts twice, and `22:00-06:00` is an hour shorter or longer that night. Without a zone they are UTC, the
//! same on every machine; a calendar has one zone, named once. Days are those on which the hours *begin*:
//! `22:00-06:00 Fri` ends on Saturday morning. Of hours that overlap the first count.

mod parse;
mod week;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use self::parse::CalendarError;
use self::{parse::Value, week::Week};
use crate::{Millis, config::ByteSize};

/// Allowed hours: `22:00-06:00 Mon-Fri Europe/Berlin, 00:00-24:00 Sat,Sun`, `08:00-18:00 never, else always`, `always` or
/// `never`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window(Week<bool>);

impl Window {
    /// Open at all times.
    pub fn always() -> Self {
        Self(Week::constant(true))
    }

    /// Whether it is open then.
    pub fn is_open(&self, at: Millis) -> bool {
        self.0.at(at)
    }

    /// When it next closes or opens after `at`; `None` when it never does.
    pub fn next_change(&self, at: Millis) -> Option<Millis> {
        self.0.next_change(at)
    }

    /// What to say of it when it is closed then; `None` when it is open.
    pub fn shut(&self, at: Millis) -> Option<Shut> {
        (!self.is_open(at)).then(|| Shut { window: self.to_string(), until: self.next_change(at) })
    }
}

/// A window that is closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shut {
    /// As it was set.
    pub window: String,
    /// When it opens; `None` when it never does.
    pub until: Option<Millis>,
}

impl fmt::Display for Shut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.until {
            Some(until) => write!(f, "window {} is closed until {until}", self.window),
            None => write!(f, "window {} is never open", self.window),
        }
    }
}

/// A rate by the hour: `40MB/s`, `unlimited`, or `09:00-18:00 Mon-Fri 20MB/s Europe/Berlin, else unlimited`. `MB` is 10⁶
/// bytes, `MiB` 2²⁰.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RatePlan(Week<Rate>);

impl RatePlan {
    /// The same at all times; `None` is unlimited.
    pub fn constant(bytes_per_second: Option<u64>) -> Self {
        Self(Week::constant(Rate(bytes_per_second)))
    }

    /// Bytes a second then; `None` is unlimited.
    pub fn rate(&self, at: Millis) -> Option<u64> {
        self.0.at(at).0
    }

    /// When the rate next changes after `at`; `None` when it never does.
    pub fn next_change(&self, at: Millis) -> Option<Millis> {
        self.0.next_change(at)
    }
}

impl Value for bool {
    const EXAMPLE: &'static str = "22:00-06:00 Mon-Fri Europe/Berlin, 00:00-24:00 Sat-Sun";
    const IMPLIED: Option<Self> = Some(true);
    const OTHERWISE: Option<Self> = Some(false);

    fn read(word: &str) -> Option<Result<Self, String>> {
        match word {
            "always" => Some(Ok(true)),
            "never" => Some(Ok(false)),
            _ => None,
        }
    }

    fn shown(self) -> String {
        if self { "always" } else { "never" }.to_owned()
    }
}

/// Bytes a second; `None` is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rate(Option<u64>);

/// Below this a transfer would look as if it stood still.
const LEAST_BYTES_PER_SECOND: u64 = 1000;

impl Value for Rate {
    const EXAMPLE: &'static str = "40MB/s, or 09:00-18:00 Mon-Fri 20MB/s Europe/Berlin, else unlimited";
    const IMPLIED: Option<Self> = None;
    const OTHERWISE: Option<Self> = None;

    fn read(word: &str) -> Option<Result<Self, String>> {
        if word == "unlimited" {
            return Some(Ok(Self(None)));
        }
        if !word.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
            return None;
        }
        let size = word.strip_suffix("/s").ok_or_else(|| "a rate ends with /s".to_owned());
        Some(size.and_then(|size| match size.parse::<ByteSize>() {
            Ok(size) if size.bytes() < LEAST_BYTES_PER_SECOND => {
                Err("the least rate is 1KB/s; to stop, close a window or set weight 0".to_owned())
            }
            Ok(size) => Ok(Self(Some(size.bytes()))),
            Err(error) => Err(error.to_string()),
        }))
    }

    fn shown(self) -> String {
        self.0.map_or_else(|| "unlimited".to_owned(), |bytes| format!("{}/s", ByteSize(bytes)))
    }
}

macro_rules! as_text {
    ($name:ident) => {
        impl FromStr for $name {
            type Err = CalendarError;

            fn from_str(text: &str) -> Result<Self, CalendarError> {
                parse::week(text).map(Self)
            }
        }

        /// As something that parses to the same.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&parse::shown(&self.0))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}
as_text!(Window);
as_text!(RatePlan);

#[cfg(test)]
mod tests;
