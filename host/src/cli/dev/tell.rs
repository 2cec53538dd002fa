//! Words of the command: a line for each swap, what a rehearsal found, and the host's log.

use crate::admin::text::ledger_line;
use crate::cli::output::print_text;
use crate::cli::report::{print_dialogues, print_rehearsal};
use crate::printable::{event, one_line};
use greenroom_core::ledger::{Outcome, Report};
use std::io::{IsTerminal, stderr, stdout};
use std::time::Duration;

/// Escape sequences of the terminal's colours; empty if they are not wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Colours {
    out: bool,
    log: bool,
}

/// Colour of a text.
#[derive(Debug, Clone, Copy)]
enum Colour {
    Red = 31,
    Green = 32,
    Yellow = 33,
    Blue = 34,
    Dim = 2,
}

/// Ways out for an author whose address another process has, behind the line of the log about it.
pub(super) fn ways_out_of_a_taken_address(line: &str) -> String {
    // An address alone is one of TCP.
    let scheme = line.split_once(" can't listen on ").and_then(|(_, behind)| behind.split_once("://"));
    let scheme = scheme.map_or(String::new(), |(scheme, _)| format!("{scheme}://"));
    format!(
        "another process has that address: end it (`ss -tulpn` names it), or take another address: \
         `greenroom dev --listen SERVICE={scheme}127.0.0.1:PORT`, `listen` in greenroom.toml, or PORT in the source"
    )
}

impl Colours {
    /// Colours for terminals, unless `NO_COLOR` is set.
    pub(super) fn wanted() -> Colours {
        let any = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        Colours { out: any && stdout().is_terminal(), log: any && stderr().is_terminal() }
    }

    /// Tells something on standard output.
    pub(super) fn say(self, text: &str) {
        let text = one_line(text);
        print_line(&text, self.out.then_some(Colour::Dim));
    }

    /// Tells of a failure.
    pub(super) fn complain(self, text: &str) {
        print_line(text, self.out.then_some(Colour::Red));
    }

    /// Tells of a build that serves, or of one that does not.
    pub(super) fn report(self, report: &Report, since_edit: Duration) {
        let (library, generation) = (&report.library, report.generation);
        match report.outcome {
            Outcome::Committed => {
                let found = report.rehearsal.as_ref();
                // A shape without a changed field says nothing that the author does not know.
                match found {
                    Some(r) if r.shapes.iter().any(|s| !s.fields.is_empty()) => print_rehearsal(r),
                    // Peers see what becomes of their dialogues at their next line.
                    Some(r) => print_dialogues(r),
                    None => {}
                }
                let line = format!(
                    "{library} generation {generation}: {} kept, {:.2} ms, edit to live {:.1} s",
                    sessions(report.sessions),
                    report.pause_us / 1000.0,
                    since_edit.as_secs_f64()
                );
                print_line(&line, self.out.then_some(Colour::Green));
            }
            // Of a configuration.
            Outcome::Unchanged if report.build.is_empty() => {
                self.say(&format!("{library}: nothing has changed"))
            }
            Outcome::Unchanged => {
                self.say(&format!("{library} generation {generation}: nothing has changed"))
            }
            Outcome::Refused => {
                self.complain(&ledger_line(report));
                report.rehearsal.iter().for_each(print_rehearsal);
            }
            _ => self.say(&ledger_line(report)),
        }
    }

    /// Shows a line of the host's log: those of handlers, and what goes wrong. `own`: the name by
    /// which the host calls this process, whose requests are told anyway.
    pub(super) fn log(self, line: &str, own: &str) {
        let Some((time, level, text)) = parts(line) else {
            // The last words of a host that cannot serve.
            return eprintln_line(line, self.log.then_some(Colour::Red));
        };
        let is_handlers = text.contains(" handler=") || text.starts_with("handler output: ");
        // A refused configuration is this process's own, and told with its report.
        let is_own = text.contains(own) || text.starts_with("configuration refused");
        let is_bad = matches!(level, "WARN" | "ERROR") && !is_own;
        if !is_handlers && !is_bad {
            return;
        }
        let colour = match level {
            "ERROR" => Colour::Red,
            "WARN" => Colour::Yellow,
            "INFO" => Colour::Blue,
            _ => Colour::Dim,
        };
        let shown = match self.log {
            true => format!("\x1b[{}m{time} {level:>5}\x1b[0m {text}", colour as u8),
            false => format!("{time} {level:>5} {text}"),
        };
        eprintln_line(&shown, None);
    }
}

/// Number of sessions, in words.
fn sessions(n: usize) -> String {
    if n == 1 { "1 session".into() } else { format!("{n} sessions") }
}

/// Time of day, level and text of a line of the log.
fn parts(line: &str) -> Option<(&str, &str, &str)> {
    let (stamp, rest) = line.split_once(' ')?;
    let (_, time) = stamp.split_once('T')?;
    let (level, text) = rest.trim_start().split_once(' ')?;
    let known = matches!(level, "ERROR" | "WARN" | "INFO" | "DEBUG" | "TRACE");
    known.then_some((time.get(..12).unwrap_or(time), level, text))
}

/// Prints a line, in a colour if there is one. Only the words are escaped.
fn print_line(text: &str, colour: Option<Colour>) {
    match colour {
        Some(colour) => {
            use std::io::Write;
            let mut out = stdout().lock();
            let text = crate::printable::lines(text);
            let _ = writeln!(out, "\x1b[{}m{text}\x1b[0m", colour as u8);
        }
        None => print_text(&format!("{text}\n")),
    }
}

/// Prints a line to standard error, if somebody reads it. The host has escaped what is in it, but a
/// process that ends in the middle may have written anything.
fn eprintln_line(text: &str, colour: Option<Colour>) {
    use std::io::Write;
    let text = event(text, true);
    let text = text.trim_end_matches('\n');
    let text = match colour {
        Some(colour) => format!("\x1b[{}m{text}\x1b[0m", colour as u8),
        None => text.to_owned(),
    };
    let _ = writeln!(stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_log_has_parts() {
        let line = "2026-11-26T20:42:36.123456Z  INFO answered service=hello handler=hello";
        assert_eq!(parts(line), Some(("20:42:36.123", "INFO", "answered service=hello handler=hello")));
        assert_eq!(parts("greenroom: it can't serve"), None);
        assert_eq!(sessions(1), "1 session");
    }
}
