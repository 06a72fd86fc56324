//! Digests of files and directories. xxh3-128 proves the transfer (it is what rsync prints with `%C` under
//! `--checksum-choice=xxh128`); BLAKE3 identifies content. Both are written as lower-case hex.

use std::{fmt, io, io::Read, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Why a text is not a digest.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is not a digest of {hex_digits} lower-case hex digits")]
pub struct DigestError {
    text: String,
    hex_digits: usize,
}

macro_rules! digest {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// From its bytes, most significant first.
            pub fn from_bytes(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = DigestError;
            fn from_str(text: &str) -> Result<Self, DigestError> {
                let error = || DigestError { text: text.chars().take(80).collect(), hex_digits: 2 * $bytes };
                let lower_hex = |b: &u8| b.is_ascii_digit() || (b'a'..=b'f').contains(b);
                if text.len() != 2 * $bytes || !text.as_bytes().iter().all(lower_hex) {
                    return Err(error());
                }
                let mut bytes = [0; $bytes];
                for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
                    let pair = std::str::from_utf8(pair).map_err(|_| error())?;
                    *byte = u8::from_str_radix(pair, 16).map_err(|_| error())?;
                }
                Ok(Self(bytes))
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

digest!(
    /// xxh3, 128 bits, seed 0, in canonical (big-endian) order.
    Xxh3, 16
);
digest!(
    /// BLAKE3, 256 bits.
    Blake3, 32
);

/// Which digests to make in one read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DigestChoice {
    /// None: only the size is compared after the transfer.
    None,
    /// xxh3-128.
    #[default]
    Xxh3,
    /// BLAKE3.
    Blake3,
    /// Both.
    Both,
}

/// Digests a stream of bytes as it passes.
#[derive(Default)]
pub struct Hasher {
    xxh3: Option<Box<xxhash_rust::xxh3::Xxh3>>,
    blake3: Option<Box<blake3::Hasher>>,
    bytes: u64,
}

/// What a [`Hasher`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digests {
    /// Bytes seen.
    pub size_bytes: u64,
    /// xxh3-128, when chosen.
    pub xxh3_128: Option<Xxh3>,
    /// BLAKE3, when chosen.
    pub blake3: Option<Blake3>,
}

impl Hasher {
    /// A fresh one.
    pub fn new(choice: DigestChoice) -> Self {
        Self {
            xxh3: matches!(choice, DigestChoice::Xxh3 | DigestChoice::Both).then(Default::default),
            blake3: matches!(choice, DigestChoice::Blake3 | DigestChoice::Both).then(Default::default),
            bytes: 0,
        }
    }

    /// The next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        if let Some(hasher) = &mut self.xxh3 {
            hasher.update(bytes);
        }
        if let Some(hasher) = &mut self.blake3 {
            hasher.update(bytes);
        }
        self.bytes += bytes.len() as u64;
    }

    /// The digests of all bytes so far.
    pub fn finish(&self) -> Digests {
        Digests {
            size_bytes: self.bytes,
            xxh3_128: self.xxh3.as_ref().map(|hasher| Xxh3::from_bytes(hasher.digest128().to_be_bytes())),
            blake3: self.blake3.as_ref().map(|hasher| Blake3::from_bytes(*hasher.finalize().as_bytes())),
        }
    }
}

/// Reads to the end and digests what was read, 256 KiB at a time.
///
/// # Errors
/// The reader's own.
pub fn digest_reader(mut reader: impl Read, choice: DigestChoice) -> io::Result<Digests> {
    let mut hasher = Hasher::new(choice);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(read) => hasher.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// One file of a directory backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Below the directory, `/` separated. Any UTF-8 name without control characters; not a [`crate::RelativePath`],
    /// because a file may well be called `-x` there.
    pub path: String,
    /// Its size.
    pub size_bytes: u64,
    /// Its digest.
    pub xxh3_128: Xxh3,
}

/// A directory's digest: xxh3-128 over `path\0size\0digest\n` of every file, sorted by the path's bytes.
pub fn directory_digest(entries: &mut [FileEntry]) -> Xxh3 {
    entries.sort_by(|a, b| a.path.as_bytes().cmp(b.path.as_bytes()));
    let mut hasher = Hasher::new(DigestChoice::Xxh3);
    for entry in entries.iter() {
        hasher.update(format!("{}\0{}\0{}\n", entry.path, entry.size_bytes, entry.xxh3_128).as_bytes());
    }
    Xxh3::from_bytes(hasher.xxh3.map_or(0, |hasher| hasher.digest128()).to_be_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn known_digests() {
        // Published test values of the two algorithms for empty input.
        let found = digest_reader(&b""[..], DigestChoice::Both).unwrap();
        assert_eq!(found.xxh3_128.unwrap().to_string(), "99aa06d3014798d86001c324468d497f");
        assert_eq!(
            found.blake3.unwrap().to_string(),
            "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
        );
        assert_eq!(digest_reader(&b"abc"[..], DigestChoice::None).unwrap().size_bytes, 3);
    }

    #[test]
    fn a_directory_digest_does_not_depend_on_the_order_given() {
        let entry = |path: &str| FileEntry { path: path.into(), size_bytes: 1, xxh3_128: Xxh3([7; 16]) };
        let one = directory_digest(&mut [entry("a/b"), entry("a-b"), entry("-x")]);
        assert_eq!(one, directory_digest(&mut [entry("-x"), entry("a-b"), entry("a/b")]));
        assert_ne!(one, directory_digest(&mut [entry("-y"), entry("a-b"), entry("a/b")]));
    }

    #[test]
    fn only_lower_case_hex_parses() {
        assert!("99AA06D3014798D86001C324468D497F".parse::<Xxh3>().is_err());
        assert!("99aa".parse::<Xxh3>().is_err());
        let digest: Xxh3 = "99aa06d3014798d86001c324468d497f".parse().unwrap();
        assert_eq!(digest.to_string(), "99aa06d3014798d86001c324468d497f");
    }
}
