//! What people read in a cell or a line: sizes and spans as everywhere, and times in the local zone.

use console::measure_text_width;
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

/// `text` as one paragraph of lines no wider than `width` where its words allow; what continues begins with `indent`.
pub fn wrapped(text: &str, width: Option<usize>, indent: &str) -> String {
    let Some(width) = width else { return text.to_owned() };
    let (mut lines, mut line) = (String::new(), String::new());
    for word in text.split(' ') {
        if !line.trim().is_empty() && measure_text_width(&line) + 1 + measure_text_width(word) > width {
            lines.push_str(&line);
            lines.push('\n');
            indent.clone_into(&mut line);
        } else if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines + &line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_wrapped_between_words_and_nothing_is_lost() {
        let text = "node 存储五 is paused: the disk at /backup has 连接 1.0 GiB free, and 20.0 GiB are to be kept free";
        for width in 20..100 {
            let wrapped = wrapped(text, Some(width), "    ");
            assert!(wrapped.lines().all(|line| measure_text_width(line) <= width), "{width}: {wrapped}");
            let words: Vec<&str> = wrapped.split_whitespace().collect();
            assert_eq!(words.join(" "), text);
        }
        assert_eq!(wrapped(text, None, ""), text);
        let long = "x".repeat(30);
        assert_eq!(wrapped(&format!("a {long}"), Some(20), "    "), format!("a\n    {long}"));
    }
}
