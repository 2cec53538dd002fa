//! MetricSamples of a metric, as lines of the text formats.

use crate::memory::histogram::{Histogram, bound_ns};
use crate::protocol::metrics::Metrics;
use std::fmt::Write;

/// Kind of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FamilyKind {
    /// Goes up and down.
    Gauge,
    /// Only grows while the host lives.
    Counter,
    /// Counts of times by bucket.
    Histogram,
}

impl FamilyKind {
    /// Name of the kind, as both formats have it.
    pub(super) fn name(self) -> &'static str {
        match self {
            FamilyKind::Gauge => "gauge",
            FamilyKind::Counter => "counter",
            FamilyKind::Histogram => "histogram",
        }
    }
}

/// Metric with all of its labels.
pub(super) struct Family {
    /// Name, of a counter without `_total`.
    pub(super) name: &'static str,
    /// Kind.
    pub(super) kind: FamilyKind,
    /// Names of its labels.
    pub(super) labels: &'static [&'static str],
    /// Meaning, as a sentence.
    pub(super) help: &'static str,
    /// Writes its samples.
    pub(super) figures: fn(&Metrics, &mut MetricSamples<'_>),
}

impl Family {
    /// Unit, which is the end of the name.
    pub(super) fn unit(&self) -> Option<&'static str> {
        ["seconds", "bytes"].into_iter().find(|unit| self.name.ends_with(&format!("_{unit}")))
    }
}

/// Writer of the samples of one family.
pub(super) struct MetricSamples<'a> {
    /// The family.
    pub(super) family: &'a Family,
    /// Lines so far.
    pub(super) text: String,
}

impl MetricSamples<'_> {
    /// Writes a number. `labels`: values of the family's labels, in their order.
    pub(super) fn number(&mut self, labels: &[&str], value: u64) {
        self.sample("", labels, None, &value.to_string());
    }

    /// Writes a time, in seconds.
    pub(super) fn seconds(&mut self, labels: &[&str], ns: u64) {
        self.sample("", labels, None, &seconds(ns));
    }

    /// Writes a histogram: a bucket for each doubling, the count and the sum.
    pub(super) fn histogram(&mut self, labels: &[&str], histogram: &Histogram) {
        let mut below = 0;
        for (bucket, count) in histogram.buckets.iter().enumerate() {
            below += count;
            // Every fourth bound is a power of two.
            let bound = bound_ns(bucket).filter(|ns| ns.is_power_of_two());
            if let Some(bound) = bound {
                self.sample("_bucket", labels, Some(&seconds(bound)), &below.to_string());
            }
        }
        self.sample("_bucket", labels, Some("+Inf"), &below.to_string());
        self.sample("_count", labels, None, &below.to_string());
        self.sample("_sum", labels, None, &seconds(histogram.sum_ns));
    }

    /// Writes one line.
    fn sample(&mut self, suffix: &str, labels: &[&str], le: Option<&str>, value: &str) {
        debug_assert_eq!(labels.len(), self.family.labels.len(), "{}", self.family.name);
        let total = if self.family.kind == FamilyKind::Counter { "_total" } else { suffix };
        let _ = write!(self.text, "{}{total}", self.family.name);
        let le = le.map(|bound| ("le", bound));
        let all = self.family.labels.iter().copied().zip(labels.iter().copied()).chain(le);
        for (n, (name, value)) in all.clone().enumerate() {
            let _ = write!(self.text, "{}{name}=\"{}\"", if n == 0 { '{' } else { ',' }, escaped(value));
        }
        let end = if all.count() > 0 { "} " } else { " " };
        let _ = writeln!(self.text, "{end}{value}");
    }
}

/// A label's value, as it stands between quotes.
pub(super) fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Nanoseconds in seconds, exactly and without trailing zeros: `0.000001024`.
pub(super) fn seconds(ns: u64) -> String {
    let text = format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000);
    let trimmed = text.trim_end_matches('0');
    match trimmed.ends_with('.') {
        true => format!("{trimmed}0"),
        false => trimmed.to_owned(),
    }
}
