//! Figures, by name: quantiles of times, and their output as JSON or text.

use hdrhistogram::Histogram;
use std::time::Duration;

/// Times, in nanoseconds, to three digits.
pub type Times = Histogram<u64>;

/// Makes an empty histogram, for times up to 600 s. Longer ones can't be recorded.
pub fn times() -> Times {
    Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("bounds")
}

/// A time as [`Times`] takes it: at least 1 ns.
pub fn ns(time: Duration) -> u64 {
    (time.as_nanos() as u64).max(1)
}

/// A quantile in microseconds.
pub fn us(times: &Times, quantile: f64) -> f64 {
    times.value_at_quantile(quantile) as f64 / 1e3
}

/// Prints one JSON object on one line.
pub fn print_json(figures: &[(&str, f64)]) {
    let fields: Vec<_> = figures.iter().map(|(k, v)| format!("\"{k}\":{}", short(*v))).collect();
    println!("{{{}}}", fields.join(","));
}

/// Prints each figure on a line of its own.
pub fn print_text(figures: &[(&str, f64)]) {
    for (k, v) in figures {
        println!("{k:>26} {}", short(*v));
    }
}

/// A figure with three decimals, or none if it is whole.
fn short(v: f64) -> String {
    if v.fract() == 0.0 { format!("{v:.0}") } else { format!("{v:.3}") }
}
