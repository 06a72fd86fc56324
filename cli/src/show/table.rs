//! Tables whose columns stand one below the other, wide (CJK) characters included, and that fit a given width: first the
//! columns that may be left out go, the rightmost first, then those that may be cut are cut, the widest first. Only what is long
//! is cut to save a column.

use console::{Alignment, Style, measure_text_width, pad_str, truncate_str};

/// No column is cut below this.
const LEAST_WIDTH: usize = 8;
/// No column is cut below this to save another.
const READABLE_WIDTH: usize = 16;
const GAP: &str = "  ";

/// How a column behaves where there is little room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Always shown whole.
    Needed,
    /// Cut at its end where it must be.
    Cut,
    /// Cut in its middle where it must be: names of files differ at their ends.
    Middle,
    /// Left out where it must be.
    Spare,
}

impl Room {
    fn can_be_cut(self) -> bool {
        matches!(self, Self::Cut | Self::Middle)
    }
}

#[derive(Debug, Clone)]
struct Column {
    title: String,
    right: bool,
    room: Room,
}

/// How a cell is meant: colours on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tone {
    /// As it is.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// To be looked at.
    Warn,
    /// Wrong.
    Bad,
}

/// One value of a row.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    text: String,
    tone: Tone,
    is_sentence: bool,
}

impl Cell {
    /// With a colour.
    pub fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: one_line(&text.into()), tone, is_sentence: false }
    }

    /// Cut at its end also where names are cut in their middle.
    pub fn sentence(text: impl Into<String>) -> Self {
        Self { is_sentence: true, ..text.into().into() }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

/// What comes from hosts may hold newlines and escapes: a table is lines, and a terminal obeys nobody's error text.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A table under construction.
#[derive(Debug, Clone, Default)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// Without columns.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more column, its values to the left.
    #[must_use]
    pub fn column(mut self, title: impl Into<String>, room: Room) -> Self {
        self.columns.push(Column { title: title.into(), right: false, room });
        self
    }

    /// With one more column of numbers, to the right.
    #[must_use]
    pub fn number(mut self, title: impl Into<String>, room: Room) -> Self {
        self.columns.push(Column { title: title.into(), right: true, room });
        self
    }

    /// One more row; missing cells are empty.
    pub fn row<const COLUMNS: usize>(&mut self, cells: [Cell; COLUMNS]) {
        self.rows.push(cells.into());
    }

    /// One more row, of a number of cells that is not known before.
    pub fn cells(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// As text, no line wider than `width` where that can be.
    pub fn render(&self, width: Option<usize>) -> String {
        let mut widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(at, column)| {
                let cells = self.rows.iter().filter_map(|row| row.get(at)).map(|cell| measure_text_width(&cell.text));
                cells.chain([measure_text_width(&column.title)]).max().unwrap_or(0)
            })
            .collect();
        let shown = match width {
            Some(width) => self.fit(&mut widths, width),
            None => (0..widths.len()).collect(),
        };
        let mut text = String::new();
        let titles: Vec<Cell> = self.columns.iter().map(|column| Cell::from(column.title.clone())).collect();
        self.line(&mut text, &titles, &shown, &widths, &Style::new().bold());
        for row in &self.rows {
            self.line(&mut text, row, &shown, &widths, &Style::new());
        }
        text
    }

    /// Which columns are shown; those cut have their new width.
    fn fit(&self, widths: &mut [usize], width: usize) -> Vec<usize> {
        let is_empty = |at: usize| self.rows.iter().all(|row| row.get(at).is_none_or(|cell| cell.text.is_empty()));
        let mut shown: Vec<usize> =
            (0..widths.len()).filter(|at| self.columns[*at].room == Room::Needed || !is_empty(*at)).collect();
        let total = |shown: &[usize], widths: &[usize]| {
            shown.iter().map(|at| widths[*at]).sum::<usize>() + GAP.len() * shown.len().saturating_sub(1)
        };
        // What can be won by cutting, down to a third of what is there: better to cut what is long than to leave out.
        let winnable = |shown: &[usize], widths: &[usize]| {
            let cut = shown.iter().filter(|at| self.columns[**at].room.can_be_cut());
            cut.map(|at| widths[*at] - widths[*at].min(READABLE_WIDTH.max(widths[*at] / 3))).sum::<usize>()
        };
        while total(&shown, widths) > width + winnable(&shown, widths) {
            let Some(last) = shown.iter().rposition(|at| self.columns[*at].room == Room::Spare) else { break };
            shown.remove(last);
        }
        while total(&shown, widths) > width {
            let widest = shown
                .iter()
                .filter(|at| self.columns[**at].room.can_be_cut() && widths[**at] > LEAST_WIDTH)
                .max_by_key(|at| widths[**at]);
            let Some(widest) = widest else { break };
            widths[*widest] -= 1;
        }
        shown
    }

    fn line(&self, text: &mut String, cells: &[Cell], shown: &[usize], widths: &[usize], style: &Style) {
        let empty = Cell::default();
        let mut line = String::new();
        for (place, at) in shown.iter().enumerate() {
            let cell = cells.get(*at).unwrap_or(&empty);
            let cut = match self.columns[*at].room {
                Room::Middle if !cell.is_sentence => middle(&cell.text, widths[*at]),
                _ => truncate_str(&cell.text, widths[*at], "…").into_owned(),
            };
            let side = if self.columns[*at].right { Alignment::Right } else { Alignment::Left };
            let padded = pad_str(&cut, widths[*at], side, None);
            if place > 0 {
                line.push_str(GAP);
            }
            let style = match cell.tone {
                Tone::Plain => style.clone(),
                Tone::Good => style.clone().green(),
                Tone::Warn => style.clone().yellow(),
                Tone::Bad => style.clone().red(),
            };
            // Styles write nothing where standard output is no terminal, or NO_COLOR is set.
            line.push_str(&style.apply_to(padded).to_string());
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

/// `text` in at most `width` columns, its beginning and its end kept.
fn middle(text: &str, width: usize) -> String {
    if measure_text_width(text) <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(1);
    let beginning = truncate_str(text, room / 2, "").into_owned();
    let left = room - measure_text_width(&beginning);
    let mut end = text.len();
    for (at, _) in text.char_indices().rev() {
        if measure_text_width(&text[at..]) > left {
            break;
        }
        end = at;
    }
    format!("{beginning}…{}", &text[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new()
            .column("INSTANCE", Room::Needed)
            .column("NAME", Room::Cut)
            .number("SIZE", Room::Needed)
            .column("NODE", Room::Spare)
            .column("WHY", Room::Cut);
        let long =
            "the script said: 连接失败，请检查数据库的用户名和密码，然后再试一次 and so on, and on, and on, and on";
        table.row(["111111/mysql/3306".into(), "西游主库".into(), "70.0 MiB".into(), "5".into(), "".into()]);
        table.row(["2/r/1".into(), "a".into(), "1 B".into(), "storage-node-5".into(), long.into()]);
        table
    }

    #[test]
    fn wide_characters_keep_the_columns_below_each_other() {
        let text = table().render(None);
        let at = |line: &str, needle: &str| measure_text_width(&line[..line.find(needle).unwrap()]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(at(lines[1], "70.0 MiB") + 8, at(lines[2], "1 B") + 3, "{text}");
        assert_eq!(at(lines[0], "NODE"), at(lines[2], "storage"), "{text}");
    }

    #[test]
    fn nothing_is_wider_than_the_terminal_and_what_is_needed_stays() {
        for width in [60, 80, 120] {
            let text = table().render(Some(width));
            for line in text.lines() {
                assert!(measure_text_width(line) <= width, "{width}: {line}");
            }
            assert!(text.contains("111111/mysql/3306") && text.contains("70.0 MiB"), "{text}");
        }
        assert!(table().render(Some(80)).contains('…'));
        assert!(!table().render(None).contains('…'));
        assert!(!table().render(Some(45)).contains("NODE"));
    }

    #[test]
    fn names_are_cut_in_the_middle_and_never_too_wide() {
        assert_eq!(middle("full-20261120.xb", 20), "full-20261120.xb");
        assert_eq!(middle("site.20261121.002-increment.tar", 15), "site.20…ent.tar");
        for width in 1..20 {
            let cut = middle("备份文件名称很长的一个文件.tar", width);
            assert!(measure_text_width(&cut) <= width.max(1), "{width}: {cut}");
        }
    }

    #[test]
    fn what_a_host_wrote_can_not_command_the_terminal() {
        let mut table = Table::new().column("WHY", Room::Cut);
        table.row(["a\u{1b}[31mred\nnext\r\tx".into()]);
        let text = table.render(None);
        assert_eq!(text.lines().count(), 2, "{text:?}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}
