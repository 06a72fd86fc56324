//! The text of a calendar: parts divided by commas. A part is `HH:MM-HH:MM`, then in any order days, a value and the zone; or
//! `else` and a value; or, alone, a value. One that begins with a day goes on with the hours before it:
//! `08:00-12:00 Mon-Wed,Fri`.

use jiff::tz::TimeZone;

use super::week::{DAY_MINUTES, Days, Hours, Week};

const DAY_NAMES: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// What hours say.
pub(super) trait Value: Copy + PartialEq {
    /// A whole calendar, for errors.
    const EXAMPLE: &'static str;
    /// The value of hours that say none; without one they must.
    const IMPLIED: Option<Self>;
    /// The value at other times where there is no `else`; without one there must be.
    const OTHERWISE: Option<Self>;
    /// The value of a word; `None` when the word is something else.
    fn read(word: &str) -> Option<Result<Self, String>>;
    /// As a word that [`Self::read`] takes.
    fn shown(self) -> String;
}

/// Why a text is no calendar: what is wrong and where, and how to write one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}; write it like {example}")]
pub struct CalendarError {
    what: String,
    example: &'static str,
}

struct Reading<T> {
    hours: Vec<Hours<T>>,
    /// The hours whose days and value are being read; those without days so far have none.
    open: Option<Hours<Option<T>>>,
    otherwise: Option<T>,
    zone: Option<TimeZone>,
}

/// Reads a whole calendar.
pub(super) fn week<T: Value>(text: &str) -> Result<Week<T>, CalendarError> {
    let error = |what: String| CalendarError { what, example: T::EXAMPLE };
    let mut reading = Reading { hours: Vec::new(), open: None, otherwise: None, zone: None };
    for part in text.split(',') {
        if part.trim().is_empty() {
            return Err(error("hours are missing".to_owned()));
        }
        for (number, word) in part.split_whitespace().enumerate() {
            reading.word(word, number == 0).map_err(|what| {
                let before = word.as_ptr().addr() - text.as_ptr().addr();
                let at = text.get(..before).map_or(0, |before| before.chars().count()) + 1;
                let word: String = word.chars().take(40).collect();
                error(format!("{what}: {word:?}, character {at}"))
            })?;
        }
    }
    reading.close().map_err(&error)?;
    let implied = if reading.hours.is_empty() { None } else { T::OTHERWISE };
    let otherwise = reading.otherwise.or(implied);
    let otherwise = otherwise.ok_or_else(|| error("it does not say what is at other times (else)".to_owned()))?;
    Ok(Week { hours: reading.hours, otherwise, zone: reading.zone.unwrap_or(TimeZone::UTC) })
}

impl<T: Value> Reading<T> {
    fn word(&mut self, word: &str, begins_part: bool) -> Result<(), String> {
        if self.otherwise.is_some() {
            return Err("nothing can follow the value of other times".to_owned());
        }
        if begins_part && let Some((from, to)) = hours(word)? {
            self.close()?;
            self.open = Some(Hours { from, to, days: Days(0), value: None });
            return Ok(());
        }
        if begins_part && word == "else" {
            return if self.close()? { Ok(()) } else { Err("there are no hours before".to_owned()) };
        }
        if let Some(value) = T::read(word) {
            let value = value?;
            return match &mut self.open {
                Some(Hours { value: Some(_), .. }) => Err("a second value for the same hours".to_owned()),
                Some(hours) => {
                    hours.value = Some(value);
                    Ok(())
                }
                None => {
                    self.otherwise = Some(value);
                    Ok(())
                }
            };
        }
        let Some(open) = &mut self.open else {
            return Err("hours are expected here".to_owned());
        };
        if let Some(days) = days(word) {
            open.days.0 |= days.0;
            return Ok(());
        }
        if begins_part {
            return Err("hours or days are expected here".to_owned());
        }
        let zone = zone(word)?;
        match &self.zone {
            Some(other) if *other != zone => Err("a calendar has one zone; this is a second".to_owned()),
            _ => {
                self.zone = Some(zone);
                Ok(())
            }
        }
    }

    /// Ends the hours that were being read; whether there are any.
    fn close(&mut self) -> Result<bool, String> {
        if let Some(Hours { from, to, days, value }) = self.open.take() {
            let value = value.or(T::IMPLIED).ok_or_else(|| "hours without a value".to_owned())?;
            let days = if days == Days(0) { Days::ALL } else { days };
            self.hours.push(Hours { from, to, days, value });
        }
        Ok(!self.hours.is_empty())
    }
}

/// `HH:MM-HH:MM`, in minutes; `None` when the word is nothing of the kind.
fn hours(word: &str) -> Result<Option<(u16, u16)>, String> {
    if !word.contains(':') {
        return Ok(None);
    }
    let wrong = || "these are no hours from 00:00 to 24:00".to_owned();
    let (from, to) = word.split_once('-').ok_or_else(wrong)?;
    let (from, to) = (minutes(from).ok_or_else(wrong)?, minutes(to).ok_or_else(wrong)?);
    if from == to || from == DAY_MINUTES {
        return Err("these hours are empty (a whole day is 00:00-24:00)".to_owned());
    }
    Ok(Some((from, to)))
}

/// `24:00` is the end of a day.
fn minutes(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let digits = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    let minutes = match (digits(hour) || hour.len() == 1, digits(minute)) {
        (true, true) => hour.parse::<u16>().ok()? * 60 + minute.parse::<u16>().ok().filter(|minute| *minute < 60)?,
        _ => return None,
    };
    (minutes <= DAY_MINUTES).then_some(minutes)
}

/// `Mon` or `Fri-Mon`; `None` when the word is nothing of the kind.
fn days(word: &str) -> Option<Days> {
    let day = |text: &str| DAY_NAMES.iter().position(|name| name.eq_ignore_ascii_case(text));
    let (first, last) = match word.split_once('-') {
        Some((first, last)) => (day(first)?, day(last)?),
        None => (day(word)?, day(word)?),
    };
    let count = (last + 7 - first) % 7 + 1;
    Some(Days((first..first + count).fold(0, |days, day| days | 1 << (day % 7))))
}

fn zone(word: &str) -> Result<TimeZone, String> {
    let zone = TimeZone::get(word).ok().filter(|zone| zone.iana_name().is_some());
    zone.ok_or_else(|| "this is no day, value or time zone that this machine's time zone database knows".to_owned())
}

/// As a text that reads as the same calendar. The zone stands after the first hours, also where it was not said.
pub(super) fn shown<T: Value>(week: &Week<T>) -> String {
    let mut parts: Vec<String> = Vec::new();
    for Hours { from, to, days, value } in &week.hours {
        let clock = |minutes: &u16| format!("{:02}:{:02}", minutes / 60, minutes % 60);
        let mut part = format!("{}-{}", clock(from), clock(to));
        if *days != Days::ALL {
            part = format!("{part} {}", days_shown(*days));
        }
        if Some(*value) != T::IMPLIED {
            part = format!("{part} {}", value.shown());
        }
        if parts.is_empty() {
            part = format!("{part} {}", week.zone.iana_name().unwrap_or("UTC"));
        }
        parts.push(part);
    }
    let otherwise = week.otherwise.shown();
    match parts.is_empty() {
        true => parts.push(otherwise),
        false if Some(week.otherwise) == T::OTHERWISE => {}
        false => parts.push(format!("else {otherwise}")),
    }
    parts.join(", ")
}

/// Ranges of days; `Mon-Fri`, `Sat,Sun`.
fn days_shown(days: Days) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for day in (0..DAY_NAMES.len()).filter(|day| days.0 >> day & 1 == 1) {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == day => *last = day,
            _ => ranges.push((day, day)),
        }
    }
    let range = |(first, last): (usize, usize)| match first == last {
        true => DAY_NAMES[first].to_owned(),
        false => format!("{}-{}", DAY_NAMES[first], DAY_NAMES[last]),
    };
    ranges.into_iter().map(range).collect::<Vec<_>>().join(",")
}
