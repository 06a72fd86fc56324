//! What people read: tables, sizes, ages, local times. JSON goes out as the server gave it.

pub mod table;
pub mod text;

use std::io::Write as _;

use console::{Alignment, measure_text_width, pad_str};
use serde_json::Value;

use crate::failure::Failure;

/// Prints `value` for programs.
pub(crate) fn json(value: &Value) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string());
    lines(&text)
}

/// Prints `value` for programs that read one value a line.
pub(crate) fn line(value: &Value) -> Result<(), Failure> {
    lines(&value.to_string())
}

/// Prints text, with a newline where it has none.
pub(crate) fn lines(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.is_empty() && !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

/// Tells a person something beside the output, on standard error. Who closed it wants to know nothing.
pub(crate) fn beside(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", plain(text));
}

/// Prints a table as wide as the terminal; where there is none, nothing is cut unless COLUMNS says how wide.
pub(crate) fn table(table: &table::Table) -> Result<(), Failure> {
    lines(&rendered(table))
}

/// A table as text, as wide as the terminal.
pub(crate) fn rendered(table: &table::Table) -> String {
    table.render(width())
}

fn width() -> Option<usize> {
    let term = console::Term::stdout();
    if term.is_term() {
        return Some(usize::from(term.size().1));
    }
    std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).filter(|columns| *columns >= 20)
}

/// One sentence for people as lines of the terminal's width, without what could command it.
pub(crate) fn note(text: &str) -> String {
    text::wrapped(&plain(text).replace('\n', " "), width(), "    ") + "\n"
}

/// Prints names and values, one below the other; long values are wrapped. What a host wrote may have several lines; control
/// characters are not passed on.
pub(crate) fn fields(fields: &[(&str, String)]) -> Result<(), Failure> {
    lines(&laid_out(fields, width()))
}

fn laid_out(fields: &[(&str, String)], width: Option<usize>) -> String {
    let names: Vec<String> = fields.iter().map(|(name, _)| plain(name).replace('\n', " ")).collect();
    let widest = names.iter().map(|name| measure_text_width(name)).max().unwrap_or(0);
    // A terminal too narrow for two columns wraps by itself.
    let room = width.and_then(|width| width.checked_sub(widest + 2)).filter(|room| *room >= 20);
    let mut text = String::new();
    for (name, (_, value)) in names.iter().zip(fields) {
        let value: Vec<String> = plain(value).lines().map(|line| text::wrapped(line, room, "")).collect();
        let value = value.join("\n").replace('\n', &format!("\n{:widest$}  ", ""));
        text.push_str(&format!("{}  {value}\n", pad_str(name, widest, Alignment::Left, None)));
    }
    text
}

/// Without control characters but newlines: a terminal obeys nobody's error text.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_and_no_value_commands_the_terminal_and_wide_ones_line_up() {
        let shown = laid_out(&[("a\x1b]0;x\x07", "one\ntwo".to_owned()), ("北京", "\x1b[2J".to_owned())], Some(60));
        assert_eq!(shown, "a ]0;x   one\n         two\n北京     [2J\n");
        assert!(!shown.contains('\x1b') && !shown.contains('\x07'));
    }
}
