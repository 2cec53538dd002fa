//! Model of a session: what its lines make of it, computed apart from the host.

use crate::verbs::{MANY, frame_max, number, silence_ns};
use std::collections::{BTreeMap, BTreeSet};

/// The service under test.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Subject {
    /// The scripted service of this test.
    Script,
    /// The shipped `tally`, through the real ABI.
    Tally,
    /// The service of this test that asks its peers, through the real ABI.
    Asks,
}

impl Subject {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Subject::Script => "script",
            Subject::Tally => "tally",
            Subject::Asks => "asks",
        }
    }

    /// Whether it has builds that fail at some lines.
    pub(crate) fn has_flaws(self) -> bool {
        self != Subject::Tally
    }
}

/// A session after some of its lines.
#[derive(Default, PartialEq, Debug, Clone)]
pub(crate) struct Expected {
    /// Count in its state.
    pub(crate) count: u64,
    /// Entries in the table of the peers.
    pub(crate) table: BTreeMap<String, String>,
    /// Topics that it is subscribed to, in order.
    pub(crate) topics: Vec<String>,
    /// Names that it has taken at some time.
    pub(crate) named: BTreeSet<Vec<u8>>,
    /// Replies so far, without the generation, which the peer checks apart.
    pub(crate) replies: Vec<String>,
    /// Number of answers, also those whose words the builds decide.
    pub(crate) answers: usize,
    /// Longest line that its peer may send; 0: any.
    pub(crate) frame_max: u32,
    /// Silence that it is told of, in nanoseconds; 0: none.
    pub(crate) idle_after_ns: u64,
    /// The handler closes it, or a limit that its handler has set.
    pub(crate) closed: bool,
}

/// Model that goes along a session's lines, and runs each once.
#[derive(Default)]
pub(crate) struct Model {
    /// Lines that it ran.
    ran: usize,
    expected: Expected,
}

impl Model {
    /// Goes on to the end of `lines`, which are those of the last call and what follows, or fewer:
    /// then the model begins anew, for a killed process may have run more than it committed.
    pub(crate) fn after(&mut self, lines: &[String], subject: Subject, session: u64) -> &Expected {
        if lines.len() < self.ran {
            *self = Model::default();
        }
        for line in &lines[self.ran..] {
            self.expected.line(line, subject, session);
        }
        self.ran = lines.len();
        &self.expected
    }

    /// The session after the lines of the last [`Model::after`].
    pub(crate) fn expected(&self) -> &Expected {
        &self.expected
    }
}

impl Expected {
    /// Runs a line, unless one before has closed the session.
    fn line(&mut self, line: &str, subject: Subject, session: u64) {
        match subject {
            _ if self.closed => {}
            Subject::Script => self.script_line(session, line),
            Subject::Tally => {
                self.count += 1;
                self.reply(line);
            }
            Subject::Asks => self.answers += 1,
        }
    }

    /// Runs a line of the scripted service.
    fn script_line(&mut self, session: u64, line: &str) {
        if self.frame_max > 0 && line.len() > self.frame_max as usize {
            self.closed = true;
            return;
        }
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let key = format!("{session}:{rest}");
        match verb {
            "add" | "trip" => self.count += 1,
            "put" => _ = self.table.insert(key, line.to_owned()),
            "cut" => _ = self.table.remove(&key),
            "drop" => self.table = BTreeMap::from([(key, line.to_owned())]),
            "many" => self.table.extend((0..MANY).map(|n| (format!("{session}:m{n}"), line.to_owned()))),
            // A turn that fails has no effect and no reply.
            "fail" | "peek" | "huge" | "mute" => return,
            "join" if !self.topics.iter().any(|t| t == rest) => {
                self.topics.push(rest.to_owned());
                self.topics.sort_unstable();
            }
            "part" => self.topics.retain(|t| t != rest),
            "name" => _ = self.named.insert(rest.as_bytes().to_vec()),
            "limit" => self.frame_max = frame_max(number(rest)),
            "hush" => self.idle_after_ns = silence_ns(number(rest)),
            "bye" => self.closed = true,
            _ => {}
        }
        self.reply(line);
        if verb == "self" || verb == "nap" {
            // The session's own note or wake comes before its next line.
            self.count += 1;
            self.reply(if verb == "self" { "noted" } else { "awake" });
        }
    }

    fn reply(&mut self, text: &str) {
        self.answers += 1;
        self.replies.push(format!("{} {text}", self.count));
    }
}
