//! `Range: bytes=...`: one range, as resumed downloads ask for. Several at once are answered with the whole file, as the
//! standard allows.

/// Which part of a file is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// From the first to the last byte, both included.
    Bytes {
        /// The first byte.
        first: u64,
        /// The last byte.
        last: u64,
    },
    /// Nothing of the file is in the range.
    OutOfRange,
}

/// Reads the header for a file of `size_bytes`; what is not understood means the whole file.
pub fn read(header: Option<&str>, size_bytes: u64) -> Part {
    let Some(range) = header.and_then(|text| text.trim().strip_prefix("bytes=")) else { return Part::Whole };
    let Some((first, last)) = range.split_once('-') else { return Part::Whole };
    let (first, last) = (first.trim(), last.trim());
    let (first, last) = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => (first, last),
        (Ok(first), Err(_)) if last.is_empty() => (first, u64::MAX),
        (Err(_), Ok(0)) if first.is_empty() => return Part::OutOfRange,
        (Err(_), Ok(tail)) if first.is_empty() => (size_bytes.saturating_sub(tail), u64::MAX),
        _ => return Part::Whole,
    };
    if first >= size_bytes {
        return Part::OutOfRange;
    }
    Part::Bytes { first, last: last.min(size_bytes - 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_in_each_of_its_three_forms() {
        let read = |text| read(Some(text), 100);
        assert_eq!(read("bytes=0-9"), Part::Bytes { first: 0, last: 9 });
        assert_eq!(read("bytes=90-"), Part::Bytes { first: 90, last: 99 });
        assert_eq!(read("bytes=-10"), Part::Bytes { first: 90, last: 99 });
        assert_eq!(read("bytes=-1000"), Part::Bytes { first: 0, last: 99 });
        assert_eq!(read("bytes=50-1000"), Part::Bytes { first: 50, last: 99 });
        assert_eq!(read("bytes=100-"), Part::OutOfRange);
        assert_eq!(read("bytes=-0"), Part::OutOfRange);
        for text in ["bytes=9-0", "bytes=0-1,3-4", "lines=1-2", "bytes=x-", "bytes=-"] {
            assert_eq!(read(text), Part::Whole, "{text}");
        }
        assert_eq!(super::read(None, 100), Part::Whole);
    }
}
