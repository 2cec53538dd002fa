//! Text of all figures, as collectors read it: OpenMetrics 1.0, or the format of Prometheus.
//!
//! The two formats differ in three points. OpenMetrics names the family of a counter without
//! `_total`, has the unit of a family, and ends with `# EOF`.
//!
//! A histogram has a bucket for each doubling of the time. The finer ones of the host are in
//! `greenroom metrics --json`. All text is made from [`Metrics`] alone.

use super::families::FAMILIES;
use super::samples::{Family, FamilyKind, MetricSamples};
use crate::protocol::metrics::Metrics;
use std::fmt::Write;

/// Format of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricsFormat {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The text format of Prometheus, 0.0.4.
    Prometheus,
}

impl MetricsFormat {
    /// Format that a scraper wants, by its `Accept` header. One that names OpenMetrics gets it.
    pub fn accepted_by(accept: &str) -> MetricsFormat {
        let refuses = |range: &str| {
            let weight = range.split(';').find_map(|p| p.trim().strip_prefix("q="));
            weight.and_then(|q| q.trim().parse::<f32>().ok()) == Some(0.0)
        };
        let is_open = |range: &str| range.trim().starts_with("application/openmetrics-text");
        match accept.to_ascii_lowercase().split(',').any(|range| is_open(range) && !refuses(range)) {
            true => MetricsFormat::OpenMetrics,
            false => MetricsFormat::Prometheus,
        }
    }

    /// Type of the content, for the header of an answer.
    pub fn content_type(self) -> &'static str {
        match self {
            MetricsFormat::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            MetricsFormat::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// The text of all figures in OpenMetrics.
pub fn render(metrics: &Metrics) -> String {
    render_as(metrics, MetricsFormat::OpenMetrics)
}

/// The text of all figures in a format. A family without a value is left out.
pub fn render_as(metrics: &Metrics, format: MetricsFormat) -> String {
    let mut text = String::new();
    for family in FAMILIES {
        let mut samples = MetricSamples { family, text: String::new() };
        (family.figures)(metrics, &mut samples);
        if !samples.text.is_empty() {
            begin(&mut text, family, format);
            text += &samples.text;
        }
    }
    if format == MetricsFormat::OpenMetrics {
        text += "# EOF\n";
    }
    text
}

/// Writes the lines that begin a family.
fn begin(text: &mut String, family: &Family, format: MetricsFormat) {
    let is_open = format == MetricsFormat::OpenMetrics;
    let name = match family.kind {
        FamilyKind::Counter if !is_open => format!("{}_total", family.name),
        _ => family.name.to_owned(),
    };
    let _ = writeln!(text, "# TYPE {name} {}", family.kind.name());
    if let Some(unit) = family.unit().filter(|_| is_open) {
        let _ = writeln!(text, "# UNIT {name} {unit}");
    }
    let _ = writeln!(text, "# HELP {name} {}", family.help);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::histogram::Histogram;
    use crate::observe::samples::{escaped, seconds};
    use std::collections::BTreeSet;

    /// Names that samples of a family may have.
    fn names(family: &Family) -> Vec<String> {
        let suffixes: &[&str] = match family.kind {
            FamilyKind::Gauge => &[""],
            FamilyKind::Counter => &["_total"],
            FamilyKind::Histogram => &["_bucket", "_count", "_sum"],
        };
        suffixes.iter().map(|suffix| format!("{}{suffix}", family.name)).collect()
    }

    #[test]
    fn times_are_exact_and_labels_are_escaped() {
        assert_eq!(
            [0, 1024, 1_500_000_000, 17_179_869_184].map(seconds),
            ["0.0", "0.000001024", "1.5", "17.179869184"]
        );
        assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }

    #[test]
    fn the_buckets_of_a_histogram_are_sums_that_end_with_its_count() {
        let family = FAMILIES.iter().find(|f| f.name == "greenroom_takeover_duration_seconds").unwrap();
        let mut samples = MetricSamples { family, text: String::new() };
        let mut times = Histogram::default();
        [1, 1024, 1025, 3_000, u64::MAX].into_iter().for_each(|ns| times.note(ns));
        samples.histogram(&[], &times);
        let buckets: Vec<u64> = samples
            .text
            .lines()
            .filter(|line| line.contains("_bucket"))
            .map(|line| line.split(' ').nth(1).unwrap().parse().unwrap())
            .collect();
        assert!(buckets.is_sorted() && buckets[..3] == [2, 3, 4], "{buckets:?}");
        assert_eq!((buckets.len(), buckets.last()), (26, Some(&5)));
        assert!(samples.text.contains("greenroom_takeover_duration_seconds_count 5\n"));
        assert!(samples.text.contains("_bucket{le=\"0.000001024\"} 2\n"), "{}", samples.text);
    }

    #[test]
    fn a_scraper_gets_the_format_that_it_names() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2";
        assert_eq!(MetricsFormat::accepted_by(prometheus), MetricsFormat::OpenMetrics);
        for other in ["", "*/*", "text/plain", "application/openmetrics-text;q=0, text/plain"] {
            assert_eq!(MetricsFormat::accepted_by(other), MetricsFormat::Prometheus, "{other}");
        }
    }

    #[test]
    fn the_page_has_each_metric_as_the_host_has_it() {
        let page = include_str!("../../METRICS.md");
        let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `greenroom_")).collect();
        let wanted: Vec<String> = FAMILIES
            .iter()
            .map(|f| {
                let total = if f.kind == FamilyKind::Counter { "_total" } else { "" };
                let labels = f.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>();
                format!("| `{}{total}` | {} | {} | {} |", f.name, f.kind.name(), labels.join(", "), f.help)
            })
            .collect();
        assert_eq!(rows, wanted, "write into METRICS.md:\n{}", wanted.join("\n"));
    }

    #[test]
    fn the_dashboard_and_the_alerts_name_metrics_that_exist() {
        let known: BTreeSet<String> = FAMILIES.iter().flat_map(names).collect();
        for text in
            [include_str!("../../dashboards/greenroom.json"), include_str!("../../dashboards/alerts.yml")]
        {
            let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            let words = text.split(|c: char| !is_name(c)).filter(|word| word.starts_with("greenroom_"));
            let used: BTreeSet<&str> = words.collect();
            assert!(used.len() > 5, "{used:?}");
            let unknown: Vec<_> = used.into_iter().filter(|name| !known.contains(*name)).collect();
            assert!(unknown.is_empty(), "there are no such metrics: {unknown:?}");
        }
        serde_json::from_str::<serde_json::Value>(include_str!("../../dashboards/greenroom.json")).unwrap();
    }
}
