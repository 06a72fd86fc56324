//! The seed's INI files, read as Python's ConfigParser of the seed reads them, line by line, with everything kept as written.
//!
//! - `[section]`, then `key = value` or `key: value`; the first `=` or `:` ends the key, so a value may hold more of them.
//!   Keys are compared in lower case. A section that comes again goes on; a key that comes again in it is an error.
//! - A line that starts with `#`, `;` or `rem` is a comment. Behind a value or a section, `#` or `;` starts a comment only
//!   after a blank: `sh a.sh # note` is `sh a.sh`, `a#b` and `a;b` are themselves.
//! - Backslashes, quotes and `%` stay; `%%` is one `%`, as it was for the seed. What only ConfigParser could resolve
//!   (`%(key)s`, `[DEFAULT]`, a value continued on an indented line) is an error, never a guess.
//! - A byte order mark, CRLF and comments in any encoding are accepted; values are UTF-8.
//! - An empty value is the same as no line.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use super::error::{Origin, Problem};

/// One `key = value` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) value: String,
    pub(super) line: usize,
}

/// A section: the line of its first header, and its entries by lower-case key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) line: usize,
    pub(super) entries: BTreeMap<String, Entry>,
}

/// Reads the sections of `bytes`, the content of `path`.
pub(super) fn parse(bytes: &[u8], path: &Arc<Path>) -> Result<BTreeMap<String, Section>, Vec<Problem>> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut sections: BTreeMap<String, Section> = BTreeMap::new();
    let mut current: Option<String> = None;
    let mut after_key = false;
    let mut problems = Vec::new();
    for (at, raw) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = at + 1;
        let mut problem = |key: &str, what: String| problems.push(Problem::new(Origin::file(path, line), key, what));
        let content = without_comment(raw.strip_suffix(b"\r").unwrap_or(raw));
        let Ok(text) = std::str::from_utf8(content) else {
            problem("", "not UTF-8; save the file as UTF-8 (comments may be in any encoding)".to_owned());
            continue;
        };
        let trimmed = text.trim();
        if trimmed.is_empty() {
            continue;
        }
        if text.starts_with([' ', '\t']) && after_key {
            let what = "an indented line, which continues the value above for the seed; write that value in one line, \
                        or remove the blanks before this one";
            problem("", what.to_owned());
            continue;
        }
        if let Some(header) = trimmed.strip_prefix('[') {
            after_key = false;
            current = match header.split_once(']') {
                Some((name, rest)) if !name.trim().is_empty() && rest.trim().is_empty() => Some(name.trim().to_owned()),
                _ => {
                    problem("", format!("{trimmed:?} is not a section; write [name]"));
                    None
                }
            };
            if current.as_deref() == Some("DEFAULT") {
                problem("", "[DEFAULT] is not supported; write its keys into [global] or each section".to_owned());
            }
            if let Some(name) = &current {
                sections.entry(name.clone()).or_insert_with(|| Section { line, ..Section::default() });
            }
            continue;
        }
        let Some((key, value)) = trimmed.split_once(['=', ':']) else {
            problem("", format!("{:?} is neither `key = value` nor `[section]`", shortened(trimmed)));
            continue;
        };
        after_key = true;
        let (key, value) = (key.trim().to_lowercase(), value.trim());
        if key.is_empty() {
            problem("", "no key before `=`".to_owned());
            continue;
        }
        if value.contains("%(") {
            problem(&key, "`%(` refers to another key for the seed; write the value out".to_owned());
            continue;
        }
        let Some(section) = current.as_ref().and_then(|name| sections.get_mut(name)) else {
            problem(&key, "stands before any section; put it below [global]".to_owned());
            continue;
        };
        if value.is_empty() {
            continue;
        }
        if let Some(before) = section.entries.get(&key) {
            problem(&key, format!("is there already, in line {}; remove one of them", before.line));
            continue;
        }
        section.entries.insert(key, Entry { value: value.replace("%%", "%"), line });
    }
    if problems.is_empty() { Ok(sections) } else { Err(problems) }
}

/// What stands before the comment of a line.
fn without_comment(line: &[u8]) -> &[u8] {
    let start = line.trim_ascii_start();
    let rem = start.get(..3).is_some_and(|word| word.eq_ignore_ascii_case(b"rem"))
        && start.get(3).is_none_or(u8::is_ascii_whitespace);
    if rem || matches!(start.first(), Some(b'#' | b';')) {
        return b"";
    }
    let comment = line.windows(2).position(|pair| matches!(pair, [b' ' | b'\t', b'#' | b';']));
    &line[..comment.unwrap_or(line.len())]
}

fn shortened(text: &str) -> String {
    const MOST: usize = 60;
    if text.chars().count() <= MOST { text.to_owned() } else { text.chars().take(MOST).chain(['…']).collect() }
}
