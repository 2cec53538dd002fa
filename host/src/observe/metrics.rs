//! Metrics in the text format of OpenMetrics.

use crate::protocol::status::Status;
use std::fmt::Write;

/// Type of the text.
pub(super) const KIND: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Metrics of a status.
pub(super) fn render(status: &Status) -> String {
    let mut text =
        String::from("# TYPE greenroom_sessions gauge\n# HELP greenroom_sessions Sessions alive.\n");
    for service in &status.services {
        let _ = writeln!(text, "greenroom_sessions{{service=\"{}\"}} {}", service.name, service.sessions);
    }
    text + "# EOF\n"
}
