//! The screen of `greenroom top`: host, services, largest sessions, and what needs attention.
//!
//! Texts of peers and handlers are escaped before they are drawn.

use super::sample::{CallbackTimes, ServiceOrder, ServiceRates, View};
use crate::cli::canary::time_of;
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
/// Rows of the slowest callbacks, with frame and head.
const CALLBACK_ROWS: u16 = 8;
/// Columns of the widest table of services.
const WIDE: u16 = 110;

/// Draws all of it. A low screen leaves the lists of sessions out, and then the callbacks.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View) {
    let host = &view.now.status.host;
    let notices = notices(view, host);
    let services = view.services();
    let area = frame.area();
    let notice_rows = notices.len() as u16;
    let has_room = |rows: u16, more: u16| if area.height >= 8 + notice_rows + rows + more { rows } else { 0 };
    let callbacks = has_room(CALLBACK_ROWS, 0);
    let lists = has_room(LIST_ROWS, callbacks);
    let rows = [
        Constraint::Length(2),
        Constraint::Length(notice_rows),
        Constraint::Min(4),
        Constraint::Length(callbacks),
        Constraint::Length(lists),
        Constraint::Length(1),
    ];
    let [head, troubles, middle, slowest, below, keys] = Layout::vertical(rows).areas(area);
    frame.render_widget(Paragraph::new(head_lines(view, host)), head);
    frame.render_widget(Paragraph::new(notices), troubles);
    draw_services(frame, middle, &services, view.order);
    if callbacks > 0 {
        frame.render_widget(callbacks_table(&view.callbacks()), slowest);
    }
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

/// Draws the table of the services. A narrow screen leaves columns out that `greenroom status` has.
fn draw_services(frame: &mut Frame<'_>, area: Rect, services: &[ServiceRates<'_>], order: ServiceOrder) {
    let is_shown = |column: usize| area.width >= WIDE || ![1, 9, 10].contains(&column);
    fn shown<T>(of: [T; 11], is_shown: impl Fn(usize) -> bool) -> impl Iterator<Item = T> {
        of.into_iter().enumerate().filter(move |(n, _)| is_shown(*n)).map(|(_, of)| of)
    }
    let head = [
        "SERVICE", "LIBRARY", "GEN", "SESSIONS", "TURNS/S", "P50", "P99", "MAX", "FAULTS/S", "FAULTS", "JOBS",
    ];
    let row = |s: &ServiceRates<'_>| {
        let status = s.service;
        let time = |share| s.times.quantile_ns(share).map_or_else(|| "-".to_owned(), time_of);
        let cells = [
            status.name.clone(),
            status.library.clone(),
            status.generation.to_string(),
            status.sessions.to_string(),
            format!("{:.1}", s.turns),
            time(0.5),
            time(0.99),
            time(1.0),
            format!("{:.1}", s.faults),
            status.faults.to_string(),
            format!("{}+{}", status.jobs.running, status.jobs.waiting),
        ];
        let cells = Row::new(shown(cells, is_shown));
        if s.faults > 0.0 { cells.red() } else { cells }
    };
    let widths = [14, 10, 4, 8, 9, 9, 9, 9, 8, 8, 6].map(Constraint::Length);
    let by = match order {
        ServiceOrder::Name => "by name",
        ServiceOrder::Turns => "by turns/s",
        ServiceOrder::Sessions => "by sessions",
    };
    let table = Table::new(services.iter().map(row), shown(widths, is_shown))
        .header(Row::new(shown(head, is_shown)).style(Style::new().bold()))
        .block(Block::bordered().title(format!(" services {by} ")));
    frame.render_widget(table, area);
}

/// Table of the callbacks that ran since the sample before, the slowest first.
fn callbacks_table<'t>(callbacks: &[CallbackTimes<'_>]) -> Table<'t> {
    let row = |c: &CallbackTimes<'_>| {
        let seconds = c.within.as_secs_f64();
        // Turns of generations beyond those that are told apart have no name.
        let service = if c.of.service.is_empty() { "(others)" } else { &c.of.service };
        Row::new([
            service.to_owned(),
            c.action.to_owned(),
            c.of.generation.to_string(),
            time_of(c.mean_ns()),
            format!("{:.1}", c.turns as f64 / seconds),
            format!("{:.1} %", c.ns as f64 / 1e7 / seconds),
        ])
    };
    let widths = [14, 14, 4, 10, 9, 8].map(Constraint::Length);
    Table::new(callbacks.iter().map(row), widths)
        .header(
            Row::new(["SERVICE", "CALLBACK", "GEN", "MEAN", "TURNS/S", "OF LOOP"]).style(Style::new().bold()),
        )
        .block(Block::bordered().title(" slowest callbacks "))
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
    use crate::protocol::metrics::GenerationTurns;
    use crate::protocol::status::Status;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use std::time::Instant;

    /// Sample of a host with so many turns, all of which took 40 µs but for one that took 10 ms.
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
        let mut of = GenerationTurns { service: "tally".into(), generation: 2, ..Default::default() };
        (1..turns).for_each(|_| of.times.note(40_000));
        of.actions = [("message".to_owned(), turns - 1)].into();
        of.action_ns = [("message".to_owned(), (turns - 1) * 40_000)].into();
        if turns > 100 {
            of.times.note(10_000_000);
            of.actions.insert("timer".into(), 1);
            of.action_ns.insert("timer".into(), 10_000_000);
        }
        HostSample { at, status, turns: vec![of], sessions: None }
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
    fn rates_and_times_are_those_between_two_samples() {
        let begun = Instant::now();
        let mut view = View::new(sample(begun, 100));
        view.add(Ok(sample(begun + Duration::from_secs(2), 300)));
        view.order = ServiceOrder::Turns;
        let row = |text: &str| format!("│{text:<110}│");
        assert_eq!(
            drawn(&view, 112, 20),
            [
                " greenroom 0.1.0, pid 7, worker 8 serving, up 1m 1s",
                " 3 connections, 100 turns/s, longest pass 4 ms, 0 workers before",
                r" failing: save: disk\u{1b}[2J",
                " limits reached: idle_ms 2",
                &format!("┌ services by turns/s {}┐", "─".repeat(89)),
                &row(
                    "SERVICE        LIBRARY    GEN  SESSIONS TURNS/S   P50       P99       MAX       FAULTS/S FAULTS   JOBS"
                ),
                &row(
                    "tally          echo       2    2        100.0     36.9 µs   36.9 µs   9437.2 µs 0.0      1        0+0"
                ),
                &row(
                    "echo           echo       2    1        0.0       -         -         -         0.0      0        0+0"
                ),
                &row(""),
                &row(""),
                &format!("└{}┘", "─".repeat(110)),
                &format!("┌ slowest callbacks {}┐", "─".repeat(91)),
                &row("SERVICE        CALLBACK       GEN  MEAN       TURNS/S   OF LOOP"),
                &row("tally          timer          2    10.0 ms    0.5       0.5 %"),
                &row("tally          message        2    40.0 µs    100.0     0.4 %"),
                &row(""),
                &row(""),
                &row(""),
                &format!("└{}┘", "─".repeat(110)),
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
