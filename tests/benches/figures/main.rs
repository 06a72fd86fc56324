//! `./tests/bench ID`: figures against their references, both in turns within one run. What happens meanwhile goes to stderr, the
//! last lines, one for each id, to stdout at the end.

use std::sync::{Mutex, PoisonError};

mod p6;
mod p7;
mod p8;
mod sample;

mod fetching;
mod large;
mod p1;
mod p10;
mod p11;
mod p2;
mod p3;
mod p4;
mod p5;

/// Measures a figure and notes its last lines (see [`line`]).
type Measure = fn() -> anyhow::Result<()>;

/// Each figure: its ids, the parts of each id (`P3.flat`), what it measures, and how. `tests/bench` reads these lines, too.
#[rustfmt::skip]
const FIGURES: &[(&str, &str, &str, Measure)] = &[
    ("P1", "", "small files, each by its own rsync, against tuned parallel rsync", p1::measure),
    ("P1b", "", "small files of 20 hosts, in batches, against the same", p1::measure_batches),
    ("P2 P2p", "one four", "4 GiB in one file and in four, direct and through the proxy (P2p), against rsync -W --fsync", p2::measure),
    ("P3", "rate flat miss", "what a claim costs with 1,000,000 jobs waiting, and when nothing fits", p3::measure),
    ("P4", "", "share of bytes against weight", p4::measure),
    ("P5", "error obey fair", "one bandwidth: error over 10 s, time to obey a change, fairness", p5::measure),
    ("P6", "bulk post", "reports through the indexer into Elasticsearch, against bare requests", p6::measure),
    ("P7", "sqlite elasticsearch", "restore lookup at 1,000,000 backups", p7::measure),
    ("P8", "time memory", "what the agent costs its host beside the script", p8::measure),
    ("P10", "memory direct proxy", "the puller's memory with 64 slots busy; its CPU for a GB against rsync's", p10::measure),
    ("P11", "", "500 small files over two queues, against the loop of UBackup's puller", p11::measure),
];

/// Last lines so far.
static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Prints the last lines when all is over, also when the last figure failed.
struct LastLines;

impl Drop for LastLines {
    fn drop(&mut self) {
        for line in LINES.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            println!("{line}");
        }
    }
}

/// The line of an id, one for each. `ratio` is how ours compares with the reference, as `goal` is stated. Words have no blanks.
pub(crate) fn line(id: &str, what: &str, ratio: f64, ours: f64, reference: f64, unit: &str, goal: &str) {
    let line = format!("{id} {what} ratio={ratio:.3} ours={ours:.3} reference={reference:.3} unit={unit} goal={goal}");
    LINES.lock().unwrap_or_else(PoisonError::into_inner).push(line);
}

/// The same of rounds in which both sides took part: the ratio is the median of the rounds' own, since what disturbs a round
/// disturbs both sides of it; ours and the reference are their medians.
pub(crate) fn line_of_rounds(id: &str, what: &str, ours: &[f64], reference: &[f64], unit: &str, goal: &str) {
    let ratios: Vec<f64> = ours.iter().zip(reference).map(|(ours, reference)| ours / reference).collect();
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let most = ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let ratio = median(ratios);
    eprintln!("{id}: {ratio:.3} of {} rounds, least {least:.3}, most {most:.3}", ours.len());
    line(id, what, ratio, median(ours.to_vec()), median(reference.to_vec()), unit, goal);
}

/// Who takes part in a round.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    Ours,
    Reference,
}

/// Who comes first in a round, and who second: by turns, so that a trend of the machine hits both alike.
pub(crate) fn turns(round: usize) -> [Side; 2] {
    if round.is_multiple_of(2) { [Side::Reference, Side::Ours] } else { [Side::Ours, Side::Reference] }
}

/// The middle of `values` (of an even number, the lower of the two in the middle); NaN of none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

/// Where the figure of an id is that may name a part of it.
fn figure_of(asked: &str) -> Option<usize> {
    let (id, part) = asked.split_once('.').map_or((asked, None), |(id, part)| (id, Some(part)));
    let has = |words: &str, word: &str| words.split_whitespace().any(|known| known.eq_ignore_ascii_case(word));
    FIGURES.iter().position(|(ids, parts, ..)| has(ids, id) && part.is_none_or(|part| has(parts, part)))
}

fn main() -> anyhow::Result<()> {
    let known = || FIGURES.iter().map(|(ids, ..)| ids.replace(' ', ", ")).collect::<Vec<_>>().join(", ");
    let mut figures = Vec::new();
    for asked in std::env::args().skip(1).filter(|word| word != "--bench") {
        let figure = figure_of(&asked).ok_or_else(|| anyhow::anyhow!("no figure {asked:?}; there are {}", known()))?;
        if !figures.contains(&figure) {
            figures.push(figure);
        }
    }
    anyhow::ensure!(!figures.is_empty(), "name a figure: {}", known());
    let _printed_at_the_end = LastLines;
    for figure in figures {
        let (.., measure) = FIGURES[figure];
        measure()?;
    }
    Ok(())
}
