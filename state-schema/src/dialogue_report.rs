//! Dialogues in a rehearsal: what a build makes of the answers that peers have given so far.
//!
//! A library says it of one session ([`Retraced`]), and the report of a rehearsal adds them up.

use serde::{Deserialize, Serialize};

/// Changes that are told one by one. The rest is counted.
pub const CHANGES_MAX: usize = 8;
/// Longest name of a question, in characters: a prompt may be a whole screen.
const NAME_CHARS_MAX: usize = 60;

/// Dialogue of a session, run along its answers by a build: the message of
/// [`crate::abi::fault::DIALOGUE`], as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retraced {
    /// Question that waits for its answer, or the first one whose answer is dropped.
    pub asked: String,
    /// Question that the peer is asked next; none: the dialogue comes to its end.
    pub asks: Option<String>,
    /// Answers that are kept.
    pub kept: u64,
    /// Answers that are dropped.
    pub dropped: u64,
}

/// Dialogues of a service's sessions.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DialogueReport {
    /// Name of the service.
    pub service: String,
    /// Sessions in the middle of a dialogue.
    pub sessions: u64,
    /// Sessions of those that go on where they are.
    pub go_on: u64,
    /// Changes for the others, those of most sessions first.
    pub changes: Vec<DialogueChange>,
    /// Sessions whose changes are not among those.
    #[serde(default)]
    pub others: u64,
    /// Sessions of which the build can't tell what becomes of them.
    #[serde(default)]
    pub untold: u64,
    /// Reason of the first of those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Change of a dialogue, for the sessions in one place of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DialogueChange {
    /// Sessions in that place.
    pub sessions: u64,
    /// Question that the build before has there.
    pub asked: String,
    /// Question that the build has there; none: the end of its dialogue.
    pub asks: Option<String>,
    /// Answers that are dropped, of all these sessions.
    pub dropped: u64,
}

impl DialogueReport {
    /// Report on a service of which no session was seen.
    pub fn new(service: &str) -> DialogueReport {
        DialogueReport { service: service.to_owned(), ..DialogueReport::default() }
    }

    /// Adds a session. An error is the reason why nobody can tell what becomes of it.
    pub fn saw(&mut self, found: Result<Retraced, String>) {
        self.sessions += 1;
        let Retraced { asked, asks, dropped, .. } = match found {
            Ok(found) => found,
            Err(why) => {
                self.untold += 1;
                self.why.get_or_insert(why);
                return;
            }
        };
        if dropped == 0 && asks.as_deref() == Some(&asked) {
            self.go_on += 1;
            return;
        }
        let (asked, asks) = (short(&asked), asks.as_deref().map(short));
        let has_room = self.changes.len() < CHANGES_MAX;
        match self.changes.iter_mut().find(|c| c.asked == asked && c.asks == asks) {
            Some(same) => {
                same.sessions += 1;
                same.dropped += dropped;
            }
            None if has_room => self.changes.push(DialogueChange { sessions: 1, asked, asks, dropped }),
            None => self.others += 1,
        }
    }

    /// Report with the most frequent changes first; `None`: no session is in a dialogue.
    pub fn ended(mut self) -> Option<DialogueReport> {
        self.changes.sort_by_key(|c| std::cmp::Reverse(c.sessions));
        (self.sessions > 0).then_some(self)
    }

    /// Sentences on the dialogues: first on all of them, then on each change.
    pub fn told(&self) -> Vec<String> {
        let all = match (self.go_on, self.sessions) {
            (0, _) => "none goes on where it is".to_owned(),
            (1, 1) => "it goes on where it is".to_owned(),
            (1, _) => "1 goes on where it is".to_owned(),
            (n, of) if n == of => "all go on where they are".to_owned(),
            (n, _) => format!("{n} go on where they are"),
        };
        let mut told = vec![format!("{} in the middle of a dialogue, {all}", sessions(self.sessions))];
        for DialogueChange { sessions: n, asked, asks, dropped } in &self.changes {
            let lost = match dropped {
                0 => String::new(),
                n => format!(", answers dropped: {n}"),
            };
            told.push(match asks {
                Some(asks) if asks == asked => format!("{}: asked {asks:?} again{lost}", sessions(*n)),
                Some(asks) => format!("{}: asked {asks:?} in place of {asked:?}{lost}", sessions(*n)),
                None => format!("{}: at the end, in place of {asked:?}{lost}", sessions(*n)),
            });
        }
        if self.others > 0 {
            told.push(format!("{}: asked otherwise in other places", sessions(self.others)));
        }
        if let Some(why) = &self.why {
            told.push(format!("{}: the build can't tell: {why}", sessions(self.untold)));
        }
        told
    }
}

fn sessions(n: u64) -> String {
    format!("{n} {}", if n == 1 { "session" } else { "sessions" })
}

/// Name of a question, cut where it is too long for a line.
fn short(name: &str) -> String {
    let name = name.trim();
    match name.char_indices().nth(NAME_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &name[..at]),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(asked: &str, asks: Option<&str>, dropped: u64) -> Result<Retraced, String> {
        Ok(Retraced { asked: asked.into(), asks: asks.map(str::to_owned), kept: 1, dropped })
    }

    #[test]
    fn a_report_says_what_becomes_of_each_place() {
        let mut report = DialogueReport::new("door");
        assert_eq!(report.clone().ended(), None);
        report.saw(found("age", Some("age"), 0));
        assert_eq!(report.told(), ["1 session in the middle of a dialogue, it goes on where it is"]);
        report.saw(found("age", None, 0));
        report.saw(found("nick", Some("nick"), 2));
        for _ in 0..2 {
            report.saw(found("age", Some("color"), 1));
        }
        report.saw(Err("it failed".into()));
        for n in 0..CHANGES_MAX {
            report.saw(found(&format!("{n}{}", "x".repeat(100)), Some("y"), 0));
        }
        let report = report.ended().expect("sessions");
        let told = report.told();
        assert_eq!(told[0], "14 sessions in the middle of a dialogue, 1 goes on where it is");
        assert_eq!(told[1], r#"2 sessions: asked "color" in place of "age", answers dropped: 2"#);
        assert_eq!(told[2], r#"1 session: at the end, in place of "age""#);
        assert_eq!(told[3], r#"1 session: asked "nick" again, answers dropped: 2"#);
        assert!(told[4].ends_with("xxx…\""), "{told:?}");
        assert_eq!(told[told.len() - 2], "3 sessions: asked otherwise in other places");
        assert_eq!(told[told.len() - 1], "1 session: the build can't tell: it failed");
    }
}
