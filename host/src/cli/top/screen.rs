//! The screen of `greenroom top`: host, services, largest sessions, and what needs attention.
//!
//! Texts of peers and handlers are escaped before they are drawn.

use super::sample::{ServiceOrder, ServiceRates, View};
use crate::printable::one_line;
use crate::protocol::admin::SessionLine;
use crate::protocol::status::HostStatus;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Block, Paragraph, Row, Table};
use std::time::Duration;

/// Most lines about what needs attention.
const NOTICES_MAX: usize = 6;
/// Rows of each list of sessions, with its frame and head.
const LIST_ROWS: u16 = 11;

/// Draws all of it. A low screen leaves the lists of sessions out.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View) {
    let host = &view.now.status.host;
    let notices = notices(view, host);
    let services = view.services();
    let area = frame.area();
    let notice_rows = notices.len() as u16;
    let lists = if area.height >= 8 + notice_rows + LIST_ROWS { LIST_ROWS } else { 0 };
    let rows = [
        Constraint::Length(2),
        Constraint::Length(notice_rows),
        Constraint::Min(4),
        Constraint::Length(lists),
        Constraint::Length(1),
    ];
    let [head, troubles, middle, below, keys] = Layout::vertical(rows).areas(area);
    frame.render_widget(Paragraph::new(head_lines(view, host)), head);
    frame.render_widget(Paragraph::new(notices), troubles);
    frame.render_widget(services_table(&services, view.order), middle);
    if lists > 0 {
        let [left, right] = Layout::horizontal([Constraint::Percentage(50); 2]).areas(below);
        let [states, outputs] = &view.sessions;
        draw_sessions(frame, left, (" largest states ", "STATE"), states, |s| s.state_bytes);
        draw_sessions(frame, right, (" most output waiting ", "UNSENT"), outputs, |s| s.unsent);
    }
    let words = if view.is_paused { " paused; p goes on, q ends" } else { " q ends, p pauses, s sorts" };
    frame.render_widget(Paragraph::new(words).dim(), keys);
}

/// Lines about the host.
fn head_lines(view: &View, host: &HostStatus) -> Vec<Line<'static>> {
    let up = humantime::format_duration(Duration::from_secs(host.uptime_s));
    let worker = match host.worker_pid {
        0 => format!("worker {}", host.worker),
        pid => format!("worker {pid} {}", host.worker),
    };
    let turns: f64 = view.services().iter().map(|s| s.turns).sum();
    vec![
        Line::from(format!(" greenroom {}, pid {}, {worker}, up {up}", host.version, host.pid)).bold(),
        Line::from(format!(
            " {} connections, {turns:.0} turns/s, longest pass {} ms, {} workers before",
            host.connections, host.longest_pass_ms, host.workers_before
        )),
    ]
}

/// Lines about what needs attention: the host that does not answer, stalls, failures, limits
/// reached.
fn notices(view: &View, host: &HostStatus) -> Vec<Line<'static>> {
    let alarm = |text: String| Line::from(format!(" {}", one_line(&text))).red();
    let mut lines = Vec::new();
    lines.extend(view.failure.iter().map(|why| alarm(format!("no answer: {why}"))));
    lines.extend(host.stalled.iter().map(|s| alarm(format!("stalled: {}", s.text))));
    lines.extend(host.failing.iter().map(|f| alarm(format!("failing: {}: {}", f.what, f.why))));
    lines.extend(host.missing.iter().map(|m| alarm(format!("missing: {m}"))));
    let reached: Vec<_> =
        host.limits.iter().filter(|(_, n)| **n > 0).map(|(l, n)| format!("{l} {n}")).collect();
    if !reached.is_empty() {
        lines.push(Line::from(format!(" limits reached: {}", reached.join(", "))).yellow());
    }
    lines.truncate(NOTICES_MAX);
    lines
}

/// Table of the services.
fn services_table<'t>(services: &[ServiceRates<'_>], order: ServiceOrder) -> Table<'t> {
    let head = ["SERVICE", "LIBRARY", "GEN", "SESSIONS", "TURNS/S", "FAULTS/S", "FAULTS", "JOBS"];
    let row = |s: &ServiceRates<'_>| {
        let status = s.service;
        let cells = Row::new([
            status.name.clone(),
            status.library.clone(),
            status.generation.to_string(),
            status.sessions.to_string(),
            format!("{:.1}", s.turns),
            format!("{:.1}", s.faults),
            status.faults.to_string(),
            format!("{}+{}", status.jobs.running, status.jobs.waiting),
        ]);
        if s.faults > 0.0 { cells.red() } else { cells }
    };
    let widths = [16, 12, 4, 9, 10, 9, 8, 6].map(Constraint::Length);
    let by = match order {
        ServiceOrder::Name => "by name",
        ServiceOrder::Turns => "by turns/s",
        ServiceOrder::Sessions => "by sessions",
    };
    Table::new(services.iter().map(row), widths)
        .header(Row::new(head).style(Style::new().bold()))
        .block(Block::bordered().title(format!(" services {by} ")))
}

/// Draws a list of sessions with one figure each. Those that have none are left out.
fn draw_sessions(
    frame: &mut Frame<'_>,
    area: Rect,
    (title, figure): (&'static str, &'static str),
    sessions: &[SessionLine],
    of: fn(&SessionLine) -> u64,
) {
    let row = |s: &SessionLine| {
        Row::new([s.id.to_string(), s.service.clone(), one_line(&s.peer).into_owned(), of(s).to_string()])
    };
    let rows = sessions.iter().filter(|s| of(s) > 0).map(row);
    let widths = [Constraint::Length(8), Constraint::Length(10), Constraint::Min(10), Constraint::Length(9)];
    let table = Table::new(rows, widths)
        .header(Row::new(["ID", "SERVICE", "PEER", figure]).style(Style::new().bold()))
        .block(Block::bordered().title(title));
    frame.render_widget(table, area);
}

#[cfg(test)]
mod tests {
    use super::super::sample::HostSample;
    use super::*;
    use crate::protocol::status::Status;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use std::time::Instant;

    /// Status as a host gives it, with so many turns.
    fn sample(at: Instant, turns: u64) -> HostSample {
        let status = serde_json::json!({
            "host": {"pid": 7, "worker_pid": 8, "version": "0.1.0", "uptime_s": 61, "worker": "serving",
                "workers_before": 0, "reason": null, "connections": 3, "longest_pass_ms": 4,
                "limits": {"idle_ms": 2, "sessions_max": 0},
                "failing": [{"what": "save", "why": "disk\u{1b}[2J", "since": "x", "times": 1}]},
            "services": [
                {"name": "echo", "library": "echo", "generation": 2, "build": "ab", "state_version": 0,
                    "listen": [], "sessions": 1, "turns": 5, "faults": 0},
                {"name": "tally", "library": "echo", "generation": 2, "build": "ab", "state_version": 1,
                    "listen": [], "sessions": 2, "turns": turns, "faults": 1}],
        });
        let status: Status = serde_json::from_value(status).expect("a status");
        HostSample { at, status, sessions: None }
    }

    /// Text of the screen, line by line, without spaces at the ends.
    fn drawn(view: &View, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        terminal.draw(|frame| draw(frame, view)).expect("a screen");
        let buffer = terminal.backend().buffer();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..height).map(line).collect()
    }

    #[test]
    fn rates_are_those_between_two_samples() {
        let begun = Instant::now();
        let mut view = View::new(sample(begun, 100));
        view.add(Ok(sample(begun + Duration::from_secs(2), 300)));
        view.order = ServiceOrder::Turns;
        assert_eq!(
            drawn(&view, 86, 11),
            [
                " greenroom 0.1.0, pid 7, worker 8 serving, up 1m 1s",
                " 3 connections, 100 turns/s, longest pass 4 ms, 0 workers before",
                r" failing: save: disk\u{1b}[2J",
                " limits reached: idle_ms 2",
                &format!("┌ services by turns/s {}┐", "─".repeat(63)),
                "│SERVICE          LIBRARY      GEN  SESSIONS  TURNS/S    FAULTS/S  FAULTS   JOBS     │",
                "│tally            echo         2    2         100.0      0.0       1        0+0      │",
                "│echo             echo         2    1         0.0        0.0       0        0+0      │",
                "│                                                                                    │",
                "└────────────────────────────────────────────────────────────────────────────────────┘",
                " q ends, p pauses, s sorts",
            ]
        );
    }

    #[test]
    fn a_host_that_is_gone_and_a_small_screen_are_drawn() {
        let mut view = View::new(sample(Instant::now(), 1));
        view.sessions[0] = Vec::new();
        view.add(Err("nobody\nthere".into()));
        assert!(drawn(&view, 60, 8).iter().any(|line| line.contains(r"no answer: nobody\nthere")));
        assert_eq!(drawn(&view, 3, 2).len(), 2);
        let tall = drawn(&view, 100, 40).join("\n");
        assert!(tall.contains("largest states") && tall.contains("most output waiting"), "{tall}");
        view.is_paused = true;
        view.add(Ok(sample(Instant::now(), 2)));
        assert_eq!(view.now.status.services[1].turns, 1);
        assert!(view.failure.is_some());
    }
}
