//! Sizes and durations as people write them. Both display as something that parses to the same value.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Bytes. Written as `1000GiB`, `62MB`, `4 KiB` or a number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// So many KiB.
    pub const fn kib(count: u64) -> Self {
        Self(count.saturating_mul(1 << 10))
    }

    /// So many GiB.
    pub const fn gib(count: u64) -> Self {
        Self(count.saturating_mul(1 << 30))
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

/// Why a text is not a size or a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a size.
    #[error("{0:?} is not a size; write it like 62MB, 1000GiB, or a number of bytes")]
    Size(String),
    /// Not a duration.
    #[error("{0:?} is not a duration; write it like 90s, 5m, 6h, 1d, or a number of seconds")]
    Span(String),
}

impl FromStr for ByteSize {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = || UnitError::Size(text.to_owned());
        if let Ok(bytes) = text.trim().parse::<u64>() {
            return Ok(Self(bytes));
        }
        if text.trim_start().starts_with('-') {
            return Err(wrong());
        }
        text.trim().parse::<bytesize::ByteSize>().map(|size| Self(size.as_u64())).map_err(|_| wrong())
    }
}

/// In the largest unit that divides it, so that it parses to the same size.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 8] = [
            (1 << 40, "TiB"),
            (1_000_000_000_000, "TB"),
            (1 << 30, "GiB"),
            (1_000_000_000, "GB"),
            (1 << 20, "MiB"),
            (1_000_000, "MB"),
            (1 << 10, "KiB"),
            (1_000, "KB"),
        ];
        let unit = UNITS.iter().find(|(size, _)| self.0 >= *size && self.0.is_multiple_of(*size));
        match unit {
            Some((size, name)) => f.pad(&format!("{}{name}", self.0 / size)),
            None => f.pad(&format!("{}B", self.0)),
        }
    }
}

/// A duration. Written as `90s`, `1h 30m`, `6h`, `1d` or a number of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(pub Duration);

impl Span {
    /// So many seconds.
    pub const fn seconds(count: u64) -> Self {
        Self(Duration::from_secs(count))
    }

    /// As the standard library's duration.
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl FromStr for Span {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let text = text.trim();
        if let Ok(seconds) = text.parse::<u64>() {
            return Ok(Self::seconds(seconds));
        }
        humantime::parse_duration(text).map(Self).map_err(|_| UnitError::Span(text.to_owned()))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&humantime::format_duration(self.0).to_string())
    }
}

macro_rules! text_or_integer {
    ($name:ident, $expecting:literal, $from_integer:expr) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl de::Visitor<'_> for Visitor {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                    fn visit_u64<E: de::Error>(self, count: u64) -> Result<$name, E> {
                        Ok($from_integer(count))
                    }
                    fn visit_i64<E: de::Error>(self, count: i64) -> Result<$name, E> {
                        u64::try_from(count)
                            .map($from_integer)
                            .map_err(|_| E::invalid_value(de::Unexpected::Signed(count), &self))
                    }
                }
                deserializer.deserialize_any(Visitor)
            }
        }
    };
}

text_or_integer!(ByteSize, "a size such as 62MB or 1000GiB, or a number of bytes", ByteSize);
text_or_integer!(Span, "a duration such as 90s or 6h, or a number of seconds", Span::seconds);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_read_in_both_families_of_units() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("1000GiB", 1000 << 30),
            ("62000KiB", 62000 << 10),
            ("62MB", 62_000_000),
            ("4 KiB", 4096),
            (" 1.5 GiB ", 3 << 29),
            ("2tib", 2 << 40),
        ] {
            assert_eq!(text.parse::<ByteSize>(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "-1", "-1GiB", "ten", "10 bananas", "GiB", "nan", "inf"] {
            let size = text.parse::<ByteSize>();
            assert!(size.is_err(), "{text:?} was read as {size:?}");
        }
    }

    #[test]
    fn durations_are_read_with_units_and_as_seconds() {
        for (text, seconds) in [("0", 0), ("3600", 3600), ("90s", 90), ("6h", 21600), ("1h 30m", 5400), ("1d", 86400)] {
            assert_eq!(text.parse::<Span>(), Ok(Span::seconds(seconds)), "{text}");
        }
        for text in ["", "-1", "soon", "5 parsecs", "1.5.2"] {
            assert!(text.parse::<Span>().is_err(), "{text:?} was accepted");
        }
    }

    proptest! {
        #[test]
        fn a_size_displays_as_itself(bytes in any::<u64>()) {
            for bytes in [bytes, bytes >> 20 << 20, bytes / 1_000_000 * 1_000_000] {
                prop_assert_eq!(ByteSize(bytes).to_string().parse::<ByteSize>(), Ok(ByteSize(bytes)));
            }
        }

        #[test]
        fn a_duration_displays_as_itself(seconds in 0u64..10_000_000_000, millis in 0u64..1000) {
            let span = Span(Duration::from_millis(seconds * 1000 + millis));
            prop_assert_eq!(span.to_string().parse::<Span>(), Ok(span));
        }

        #[test]
        fn no_text_makes_a_unit_panic(text in ".{0,20}") {
            let _ = (text.parse::<Span>(), text.parse::<ByteSize>());
        }
    }
}
