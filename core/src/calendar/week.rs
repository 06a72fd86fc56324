//! A value that changes by the hour of the week, as a clock in one zone shows it.

use std::time::Duration;

use jiff::tz::TimeZone;

use crate::Millis;

const MINUTE: i64 = 60_000;
pub(super) const DAY_MINUTES: u16 = 24 * 60;
const DAY: i64 = DAY_MINUTES as i64 * MINUTE;
const WEEK: i64 = 7 * DAY;

/// Whatever is skipped or repeated meanwhile, a value that changes at all has changed within this.
const HORIZON: Duration = Duration::from_secs(35 * 24 * 3600);

/// `hours` in the order that they count, `otherwise` where none is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Week<T> {
    pub(super) hours: Vec<Hours<T>>,
    pub(super) otherwise: T,
    pub(super) zone: TimeZone,
}

/// A value from one minute of the day to another, on the days on which it begins; over midnight when `to` is not after
/// `from`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hours<T> {
    pub(super) from: u16,
    pub(super) to: u16,
    pub(super) days: Days,
    pub(super) value: T,
}

/// Days of the week, one bit each, Monday the lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Days(pub(super) u8);

impl Days {
    pub(super) const ALL: Self = Self(0x7f);

    /// `day`: 0 is Monday, -1 and 6 are Sunday.
    pub(super) fn has(self, day: i64) -> bool {
        self.0 >> day.rem_euclid(7) & 1 == 1
    }
}

impl<T> Hours<T> {
    /// When they begin and end, in the week, on one of their days; the end may be in the next.
    fn on(&self, day: i64) -> (i64, i64) {
        let (from, to) = (i64::from(self.from) * MINUTE, i64::from(self.to) * MINUTE);
        let midnight = day * DAY;
        (midnight + from, if to > from { midnight + to } else { midnight + DAY + to })
    }

    /// Every one of their weekly begins and ends.
    fn edges(&self) -> impl Iterator<Item = i64> {
        (0..7).filter(|day| self.days.has(*day)).map(|day| self.on(day)).flat_map(|(from, to)| [from, to])
    }

    /// Whether they cover this point of the week: they began on its day, or on the day before.
    fn cover(&self, at: i64) -> bool {
        let day = at.div_euclid(DAY);
        [day - 1, day].into_iter().filter(|day| self.days.has(*day)).any(|day| {
            let (from, to) = self.on(day);
            (from..to).contains(&at)
        })
    }
}

impl<T: Copy + PartialEq> Week<T> {
    pub(super) fn constant(value: T) -> Self {
        Self { hours: Vec::new(), otherwise: value, zone: TimeZone::UTC }
    }

    pub(super) fn at(&self, at: Millis) -> T {
        self.at_point(self.point(at))
    }

    /// The first moment after `at` with another value than at `at`. Between two edges, and between two changes of the
    /// zone's offset, the wall clock runs evenly and the value stays: so it is enough to look at those.
    pub(super) fn next_change(&self, at: Millis) -> Option<Millis> {
        let (now, end) = (self.at(at), at.plus(HORIZON));
        let mut look = at;
        while look < end {
            let point = self.point(look);
            let ahead = |edge: i64| match (edge - point).rem_euclid(WEEK) {
                0 => WEEK,
                ahead => ahead,
            };
            let edge = self.hours.iter().flat_map(Hours::edges).map(ahead).min()?;
            let edge = Millis(look.0.saturating_add(edge));
            let offset = self.zone.following(look.timestamp()).next();
            let offset = offset.map_or(edge, |transition| Millis(transition.timestamp().as_millisecond()));
            look = edge.min(offset);
            if self.at(look) != now {
                return Some(look);
            }
        }
        None
    }

    fn at_point(&self, point: i64) -> T {
        self.hours.iter().find(|hours| hours.cover(point)).map_or(self.otherwise, |hours| hours.value)
    }

    /// Milliseconds of the zone's wall clock since Monday's midnight.
    fn point(&self, at: Millis) -> i64 {
        let local = self.zone.to_datetime(at.timestamp());
        let (hour, minute, second) = (i64::from(local.hour()), i64::from(local.minute()), i64::from(local.second()));
        let day = i64::from(local.weekday().to_monday_zero_offset());
        day * DAY + (hour * 60 + minute) * MINUTE + second * 1000 + i64::from(local.millisecond())
    }
}
