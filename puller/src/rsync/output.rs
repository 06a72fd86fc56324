//! What rsync prints, as events. The input is bytes that a host can influence (names, messages), so lines are capped, and
//! a line about a file counts only when it begins with the marker of this run.

use longshore_core::digest::Xxh3;

/// The longest line kept: a path of 4096 bytes with every byte escaped (`\#012`).
const MAX_LINE_BYTES: usize = 24 * 1024;

/// One thing that rsync said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A file was received whole.
    File {
        /// Below the target folder, as rsync writes it (control characters escaped).
        name: Vec<u8>,
        /// Its digest, when it has the form of one.
        digest: Option<Xxh3>,
    },
    /// A folder was made.
    Folder,
    /// Bytes of the whole, so far, those taken from a partial included.
    Progress(u64),
    /// Bytes of files that came over the line.
    Literal(u64),
    /// Bytes of files that were here already and were used again.
    Matched(u64),
}

/// Cuts a stream into lines (ended by LF or CR) and reads each.
#[derive(Debug)]
pub struct Parser {
    marker: Vec<u8>,
    line: Vec<u8>,
    too_long: bool,
}

impl Parser {
    /// For a run whose `--out-format` begins with `marker|`.
    pub fn new(marker: &str) -> Self {
        Self { marker: format!("{marker}|").into_bytes(), line: Vec::new(), too_long: false }
    }

    /// The events of the lines that `bytes` ends.
    pub fn push(&mut self, bytes: &[u8], mut each: impl FnMut(Event)) {
        for &byte in bytes {
            if byte == b'\n' || byte == b'\r' {
                if !self.too_long
                    && let Some(event) = read_line(&self.marker, &self.line)
                {
                    each(event);
                }
                self.line.clear();
                self.too_long = false;
            } else if self.line.len() < MAX_LINE_BYTES {
                self.line.push(byte);
            } else {
                self.too_long = true;
            }
        }
    }
}

fn read_line(marker: &[u8], line: &[u8]) -> Option<Event> {
    if let Some(rest) = line.strip_prefix(marker) {
        return read_file(rest);
    }
    let text = str::from_utf8(line).ok()?;
    if let Some(rest) = text.strip_prefix("Literal data: ") {
        return number(rest).map(Event::Literal);
    }
    if let Some(rest) = text.strip_prefix("Matched data: ") {
        return number(rest).map(Event::Matched);
    }
    // "  1234567  12%  1.23MB/s  0:00:12"
    let mut words = text.split_ascii_whitespace();
    let (bytes, percent) = (words.next()?, words.next()?);
    percent.strip_suffix('%')?.parse::<u32>().ok()?;
    number(bytes).map(Event::Progress)
}

/// `>f+++++++++|DIGEST|NAME`, `cd+++++++++|BLANKS|NAME`; lines about attributes are nothing to us.
fn read_file(rest: &[u8]) -> Option<Event> {
    let mut fields = rest.splitn(3, |&byte| byte == b'|');
    let (change, digest, name) = (fields.next()?, fields.next()?, fields.next()?);
    match change.get(..2) {
        Some(b">f") => {}
        Some(b"cd") => return Some(Event::Folder),
        _ => return None,
    }
    let digest = str::from_utf8(digest).ok().and_then(|text| text.trim().parse().ok());
    Some(Event::File { name: name.to_vec(), digest })
}

/// The leading number of `text`; rsync may group its digits with commas.
fn number(text: &str) -> Option<u64> {
    let digits: String = text.chars().take_while(|c| c.is_ascii_digit() || *c == ',').filter(|c| *c != ',').collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn events(chunks: &[&[u8]]) -> Vec<Event> {
        let mut parser = Parser::new("k3");
        let mut events = Vec::new();
        for chunk in chunks {
            parser.push(chunk, |event| events.push(event));
        }
        events
    }

    #[test]
    fn what_rsync_3_5_prints_is_understood() {
        let text = "\r              0   0%    0.00kB/s    0:00:00  \r     65,503,232  21%   58.60MB/s    0:00:03  \
            \rk3|>f+++++++++|00a04c68ea5d52ca058a9d4370213d41|a|b.xb\nk3|cd+++++++++|                                |d/\n\
            \nNumber of files: 1 (reg: 1)\nLiteral data: 153,275,232 bytes\nMatched data: 146724768 bytes\n";
        let name = b"a|b.xb".to_vec();
        let digest = Some("00a04c68ea5d52ca058a9d4370213d41".parse().unwrap());
        let expected = [
            Event::Progress(0),
            Event::Progress(65_503_232),
            Event::File { name, digest },
            Event::Folder,
            Event::Literal(153_275_232),
            Event::Matched(146_724_768),
        ];
        assert_eq!(events(&[text.as_bytes()]), expected);
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(events(&bytes), expected, "cut anywhere");
    }

    #[test]
    fn lines_without_the_marker_and_endless_ones_are_nothing() {
        assert_eq!(events(&[b"k4|>f+++++++++|00a04c68ea5d52ca058a9d4370213d41|x\n"]), []);
        let endless = [b"k3|>f+++++++++||".as_slice(), &vec![b'x'; 1 << 20], b"\n"].concat();
        assert_eq!(events(&[&endless]), []);
        let other = events(&[b"k3|>f+++++++++|d41d8cd9|x\n"]);
        assert_eq!(other, [Event::File { name: b"x".to_vec(), digest: None }]);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 0..8)) {
            let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            events(&chunks);
        }
    }
}
