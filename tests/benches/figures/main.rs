//! `./tests/bench ID`: one figure against its reference, both in turns within one run.

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

/// Measures a figure and prints its last lines (see [`line`]).
type Measure = fn() -> anyhow::Result<()>;

/// Each figure's id, and how it is measured.
const FIGURES: &[(&str, Measure)] = &[
    ("P1", p1::measure),
    ("P1b", p1::measure_batches),
    ("P2", p2::measure),
    ("P3", p3::measure),
    ("P4", p4::measure),
    ("P5", p5::measure),
    ("P6", p6::measure),
    ("P7", p7::measure),
    ("P8", p8::measure),
    ("P10", p10::measure),
    ("P11", p11::measure),
];

/// The line a figure ends with. `ratio` is how ours compares with the reference, as `goal` is stated.
pub(crate) fn line(id: &str, what: &str, ratio: f64, ours: f64, reference: f64, unit: &str, goal: &str) {
    println!("{id} {what} ratio={ratio:.3} ours={ours:.3} reference={reference:.3} unit={unit} goal={goal}");
}

/// The middle of `values` (of an even number, the lower of the two in the middle); NaN of none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

fn main() -> anyhow::Result<()> {
    let asked: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let known = || FIGURES.iter().map(|(id, _)| *id).collect::<Vec<_>>().join(", ");
    anyhow::ensure!(!asked.is_empty(), "name a figure: {}", known());
    for id in asked {
        let (_, measure) = FIGURES
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(&id))
            .ok_or_else(|| anyhow::anyhow!("no figure {id:?}; there are {}", known()))?;
        measure()?;
    }
    Ok(())
}
