//! The seed's INI files, read as Python's ConfigParser of the seed reads them, line by line, with everything kept as written.
//!
//! - `[section]`, then `key = value` or `key: value`; the first `=` or `:` ends the key, so a value may hold more of them.
//!   Keys are compared in lower case. A section that comes again goes on; a key that comes again in it is an error.
//! - A line that starts with `#`, `;` or `rem` is a comment. Behind a value, `#` starts one only after a blank: `sh a.sh # note`
//!   is `sh a.sh`, `a#b` is itself. For `;` the seed looked at the first one of a value only, and so do we:
//!   `a ; note` is `a`, but `a; b ; c` is itself.
//! - Backslashes, quotes and `%` stay. What only ConfigParser could resolve (`%(key)s`, `[DEFAULT]`, a value continued on
//!   an indented line) is an error, never a guess.
//! - A byte order mark, CRLF and comments in any encoding are accepted; values are UTF-8.
//! - An empty value, also `""`, is the same as no line.

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
            let what = "an indented line, which continues the value above for UBackup; write that value in one line, \
                        or remove the blanks before this one";
            problem("", what.to_owned());
            continue;
        }
        if let Some(header) = trimmed.strip_prefix('[') {
            after_key = false;
            let name = match header.split_once(']') {
                Some((name, rest)) if !name.trim().is_empty() && is_comment(rest) => name.trim(),
                _ => {
                    problem("", format!("{:?} is not a section; write [name]", shortened(trimmed)));
                    "" // collects what belongs to the broken header
                }
            };
            if name == "DEFAULT" {
                problem("", "[DEFAULT] is not supported; write its keys into [global] or each section".to_owned());
            }
            sections.entry(name.to_owned()).or_insert_with(|| Section { line, ..Section::default() });
            current = Some(name.to_owned());
            continue;
        }
        let Some((key, value)) = trimmed.split_once(['=', ':']) else {
            problem("", format!("{:?} is neither `key = value` nor `[section]`", shortened(trimmed)));
            continue;
        };
        after_key = true;
        let (key, value) = (key.trim().to_lowercase(), value.trim());
        let value = match value.find(';') {
            Some(at) if value[..at].ends_with([' ', '\t']) => value[..at].trim_end(),
            _ => value,
        };
        if key.is_empty() {
            problem("", "no key before `=`".to_owned());
            continue;
        }
        if value.contains("%(") {
            problem(&key, "`%(` refers to another key for UBackup; write the value out".to_owned());
            continue;
        }
        let Some(section) = current.as_ref().and_then(|name| sections.get_mut(name)) else {
            problem(&key, "stands before any section; put it below [global]".to_owned());
            continue;
        };
        if matches!(value, "" | "\"\"") {
            continue;
        }
        if let Some(before) = section.entries.get(&key) {
            problem(&key, format!("is there already, in line {}; remove one of them", before.line));
            continue;
        }
        section.entries.insert(key, Entry { value: value.to_owned(), line });
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
    let comment = line.windows(2).position(|pair| matches!(pair, [b' ' | b'\t', b'#']));
    &line[..comment.unwrap_or(line.len())]
}

/// Whether nothing but a comment stands behind a section's name.
fn is_comment(rest: &str) -> bool {
    let rest = rest.trim_start();
    rest.is_empty() || rest.starts_with(['#', ';'])
}

fn shortened(text: &str) -> String {
    const MOST: usize = 60;
    if text.chars().count() <= MOST { text.to_owned() } else { text.chars().take(MOST).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> BTreeMap<String, BTreeMap<String, String>> {
        let sections = parse(text, &Path::new("x.conf").into()).unwrap_or_else(|problems| panic!("{problems:?}"));
        let values = |section: Section| section.entries.into_iter().map(|(key, entry)| (key, entry.value)).collect();
        sections.into_iter().map(|(name, section)| (name, values(section))).collect()
    }

    fn value(line: &str) -> String {
        let sections = read(format!("[s]\n{line}\n").as_bytes());
        sections["s"].values().next().cloned().unwrap_or_default()
    }

    fn wrong(text: &[u8]) -> String {
        let problems = parse(text, &Path::new("x.conf").into()).expect_err("something is wrong");
        problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_value_is_kept_as_written_up_to_its_comment() {
        for (line, kept) in [
            ("a=1", "1"),
            ("a = 1   # note", "1"),
            ("a = 1 #全局队列地址", "1"),
            ("a = 1\t# note", "1"),
            ("a: 1", "1"),
            ("a = x=y=z", "x=y=z"),
            ("a = http://h:80/", "http://h:80/"),
            ("a = 1#2", "1#2"),
            ("a = sh x.sh ; note", "sh x.sh"),
            ("a = ;x", ";x"),
            ("a = cd /x; sh y ; sh z", "cd /x; sh y ; sh z"),
            (r"a = s/\.t\n//", r"s/\.t\n//"),
            ("a = date +%F 100% %%", "date +%F 100% %%"),
            ("a = \"quoted\"", "\"quoted\""),
            ("A_Key = v", "v"),
            ("a = \"\"", ""),
            ("a = # nothing", ""),
            ("a =", ""),
        ] {
            assert_eq!(value(line), kept, "{line}");
        }
    }

    #[test]
    fn comment_lines_and_section_comments_are_passed_over() {
        let sections = read(b"# c\n; c\nREM c\nrem\n\n  # c\n[s]   # c\n[t]#c\nremote = 1\n");
        assert_eq!(sections.keys().collect::<Vec<_>>(), ["s", "t"]);
        assert_eq!(sections["t"]["remote"], "1");
    }

    #[test]
    fn a_section_that_comes_again_goes_on() {
        let sections = read(b"[s]\na = 1\n[t]\na = 2\n[s]\nb = 3\n");
        assert_eq!(sections["s"].len(), 2);
    }

    #[test]
    fn a_comment_may_be_in_any_encoding_and_a_value_not() {
        assert_eq!(read(b"[s]\na = 1 # \xb1\xb8\xb7\xdd\n")["s"]["a"], "1");
        insta::assert_snapshot!(wrong(b"[s]\na = \xb1\xb8\n"), @"x.conf:2: not UTF-8; save the file as UTF-8 (comments may be in any encoding)");
    }

    #[test]
    fn every_line_that_cannot_be_understood_is_told() {
        let text = b"early = 1\n[s]\nno delimiter\n= 1\na = 1\n  continued\nA = 2\nb = %(a)s\n[\n[]\nc = 1\n[DEFAULT]\n[x] y\n";
        insta::assert_snapshot!(wrong(text), @r#"
        x.conf:1: early: stands before any section; put it below [global]
        x.conf:3: "no delimiter" is neither `key = value` nor `[section]`
        x.conf:4: no key before `=`
        x.conf:6: an indented line, which continues the value above for UBackup; write that value in one line, or remove the blanks before this one
        x.conf:7: a: is there already, in line 5; remove one of them
        x.conf:8: b: `%(` refers to another key for UBackup; write the value out
        x.conf:9: "[" is not a section; write [name]
        x.conf:10: "[]" is not a section; write [name]
        x.conf:12: [DEFAULT] is not supported; write its keys into [global] or each section
        x.conf:13: "[x] y" is not a section; write [name]
        "#);
    }
}
