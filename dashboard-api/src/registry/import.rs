//! Tables from a file: CSV with a header line, a JSON array of objects, or what the seed's API printed
//! (`{"objects": [...]}`). All rows or none: a row that is wrong is named by its line, and then nothing is written.

use std::{collections::BTreeMap, fmt::Display, str::FromStr};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use utoipa::ToSchema;

/// At most this many wrong rows are told of at once.
const MOST_ERRORS: usize = 100;

/// What an import did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Imported {
    /// Rows read.
    pub rows: u64,
    /// Entries that were not there.
    pub added: u64,
    /// Entries that were there and differed.
    pub changed: u64,
}

/// One wrong row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct RowError {
    /// The line of the file it begins on, counted from 1; of `{"objects": [...]}` the number of the object instead.
    pub line: u64,
    /// What is wrong, and where it can be said, what to do.
    pub error: String,
}

/// Wrong rows, collected up to a limit.
#[derive(Debug, Default)]
pub struct RowErrors {
    /// In the order of the file.
    pub rows: Vec<RowError>,
    /// How many there were in all.
    pub count: usize,
}

impl RowErrors {
    pub(super) fn add(&mut self, line: u64, error: impl Display) {
        self.count += 1;
        if self.rows.len() < MOST_ERRORS {
            self.rows.push(RowError { line, error: error.to_string() });
        }
    }
}

/// The named values of one row.
#[derive(Debug, Clone, PartialEq)]
pub struct Fields {
    /// Where the row begins, counted from 1.
    pub line: u64,
    values: BTreeMap<String, Value>,
}

impl Fields {
    /// Refuses names that are not in `known`, so that a mistyped column is not lost in silence.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), String> {
        let Some(name) = self.values.keys().find(|name| !known.contains(&name.as_str())) else { return Ok(()) };
        let near = known.iter().max_by(|a, b| strsim::jaro(a, name).total_cmp(&strsim::jaro(b, name)));
        Err(format!("unknown column {name:?}; the nearest known one is {:?}", near.copied().unwrap_or_default()))
    }

    /// Whether the row has a value of that name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    fn value(&self, name: &str) -> Option<&Value> {
        self.values
            .get(name)
            .filter(|value| !value.is_null() && value.as_str().is_none_or(|text| !text.trim().is_empty()))
    }

    /// The whole row as an entry that has no other names in the seed. A cell that reads as a number or as true or false is one.
    pub(super) fn entry<T: DeserializeOwned>(&self) -> Result<T, String> {
        let value = |name: &str| match self.value(name)? {
            Value::String(text) => match serde_json::from_str(text) {
                Ok(value @ (Value::Number(_) | Value::Bool(_))) => Some(value),
                _ => Some(Value::String(text.clone())),
            },
            other => Some(other.clone()),
        };
        let given = self.values.keys().filter_map(|name| Some((name.clone(), value(name)?))).collect();
        serde_json::from_value(Value::Object(given)).map_err(|error| error.to_string())
    }

    /// The value, when there is one; an empty cell is none.
    pub(super) fn optional<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, String> {
        self.value(name).map(|value| read(name, value)).transpose()
    }

    /// The value, which must be there.
    pub(super) fn needed<T: FromStr<Err: Display>>(&self, name: &str) -> Result<T, String> {
        self.optional(name)?.ok_or_else(|| format!("{name} is missing"))
    }

    /// Member `inner` of the object in `name`, when there is one.
    pub(super) fn nested<T: FromStr<Err: Display>>(&self, name: &str, inner: &str) -> Result<Option<T>, String> {
        let member = self.value(name).and_then(|value| value.get(inner)).filter(|value| !value.is_null());
        member.map(|value| read(&format!("{name}.{inner}"), value)).transpose()
    }
}

fn read<T: FromStr<Err: Display>>(name: &str, value: &Value) -> Result<T, String> {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        other => return Err(format!("{name} is neither a text nor a number: {other}")),
    };
    text.parse().map_err(|error: T::Err| format!("{name} {text:?}: {error}"))
}

/// Reads the rows of a file. JSON is told from CSV by its first character, `[` or `{`.
///
/// # Errors
/// The lines that could not be read.
pub fn rows(text: &str) -> Result<Vec<Fields>, RowErrors> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match text.trim_start().chars().next() {
        Some('[') => json_array(text),
        Some('{') => json_objects(text),
        _ => csv_rows(text),
    }
}

fn csv_rows(text: &str) -> Result<Vec<Fields>, RowErrors> {
    let mut errors = RowErrors::default();
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    let header = match reader.headers() {
        Ok(header) => header.clone(),
        Err(error) => {
            errors.add(1, error);
            return Err(errors);
        }
    };
    let mut rows = Vec::new();
    for record in reader.records() {
        match record {
            Ok(record) => {
                let line = record.position().map_or(0, csv::Position::line);
                let cells = record.iter().map(|cell| Value::String(cell.to_owned()));
                rows.push(Fields { line, values: header.iter().map(str::to_owned).zip(cells).collect() });
            }
            Err(error) => errors.add(error.position().map_or(0, csv::Position::line), &error),
        }
    }
    if errors.count > 0 { Err(errors) } else { Ok(rows) }
}

/// Element by element, so that each one's line is known and a wrong one is not the end.
fn json_array(text: &str) -> Result<Vec<Fields>, RowErrors> {
    let mut errors = RowErrors::default();
    let mut rows = Vec::new();
    let mut at = text.find('[').map_or(0, |at| at + 1);
    let line_of = |at: usize| 1 + text[..at].bytes().filter(|byte| *byte == b'\n').count() as u64;
    loop {
        at += text[at..].len() - text[at..].trim_start_matches(|c: char| c.is_whitespace() || c == ',').len();
        if text[at..].starts_with(']') {
            break;
        }
        let mut values = serde_json::Deserializer::from_str(&text[at..]).into_iter::<Value>();
        match values.next() {
            Some(Ok(Value::Object(object))) => {
                rows.push(Fields { line: line_of(at), values: object.into_iter().collect() });
            }
            Some(Ok(other)) => errors.add(line_of(at), format!("not an object: {other}")),
            Some(Err(error)) => {
                errors.add(line_of(at) + error.line() as u64 - 1, error);
                break;
            }
            None => {
                errors.add(line_of(at), "the array does not end with ]");
                break;
            }
        }
        at += values.byte_offset();
    }
    if errors.count > 0 { Err(errors) } else { Ok(rows) }
}

fn json_objects(text: &str) -> Result<Vec<Fields>, RowErrors> {
    let mut errors = RowErrors::default();
    let value: Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(error) => {
            errors.add(error.line() as u64, error);
            return Err(errors);
        }
    };
    let Some(objects) = value.get("objects").and_then(Value::as_array) else {
        errors.add(1, "a JSON object is read only when it has an array named \"objects\"");
        return Err(errors);
    };
    let mut rows = Vec::new();
    for (index, object) in objects.iter().enumerate() {
        match object {
            Value::Object(object) => {
                rows.push(Fields { line: index as u64 + 1, values: object.clone().into_iter().collect() });
            }
            other => errors.add(index as u64 + 1, format!("not an object: {other}")),
        }
    }
    if errors.count > 0 { Err(errors) } else { Ok(rows) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_and_both_json_forms_give_the_same_rows() {
        let csv = rows("id,name\n3,mysql\n4, redis \n").unwrap();
        let array = rows("[{\"id\":3,\"name\":\"mysql\"},\n {\"id\":4,\"name\":\"redis\"}]").unwrap();
        let objects =
            rows("{\"num_results\":2,\"objects\":[{\"id\":3,\"name\":\"mysql\"},{\"id\":4,\"name\":\"redis\"}]}")
                .unwrap();
        for rows in [&csv, &array, &objects] {
            assert_eq!(rows[1].needed::<u64>("id").unwrap(), 4);
            assert_eq!(rows[1].needed::<String>("name").unwrap(), "redis");
        }
        assert_eq!((csv[1].line, array[1].line), (3, 2));
    }

    #[test]
    fn wrong_rows_are_named_by_their_line() {
        let errors = rows("id,name\n1,a\n2\n3,c,d\n").unwrap_err();
        assert_eq!(errors.rows.iter().map(|row| row.line).collect::<Vec<_>>(), [3, 4]);
        let errors = rows("[\n{\"id\":1},\n7,\n{\"id\"}\n]").unwrap_err();
        assert_eq!(errors.rows.iter().map(|row| row.line).collect::<Vec<_>>(), [3, 4]);
        assert!(rows("[{\"id\":1}").is_err());
        assert!(rows("{\"things\":[]}").is_err());
    }

    #[test]
    fn a_mistyped_column_is_answered_with_the_nearest_one() {
        let error = rows("buisness_id\n1\n").unwrap()[0].only(&["business_id", "name"]).unwrap_err();
        assert!(error.contains("buisness_id") && error.contains("\"business_id\""), "{error}");
    }
}
