//! Record of a dialogue, and the run of a turn along it.

use crate::bytes::Bytes;
use crate::turn::Turn;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Record of a dialogue, for a field of the state: the answers so far.
///
/// Answers to hidden questions are in it as well, until the dialogue ends or forgets them.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Talk {
    /// Answers and values, oldest first.
    #[serde(default)]
    pub(crate) answers: Vec<Entry>,
    /// Name of the question that waits for its answer.
    #[serde(default)]
    pub(crate) asked: Option<String>,
    /// Whether the peer was told not to show what is typed.
    #[serde(default)]
    pub(crate) hidden: bool,
    /// Values of what was done once, whose places are gone.
    #[serde(default)]
    pub(crate) done: Vec<Entry>,
}

impl Talk {
    /// Whether a question waits for its answer.
    pub fn waits(&self) -> bool {
        self.asked.is_some()
    }

    /// Drops the answers from a place on. Values of what was done once are kept by their names.
    fn cut(&mut self, from: usize) {
        let dropped = self.answers.drain(from..).filter(|entry| matches!(entry, Entry::Once(..)));
        self.done.extend(dropped);
    }
}

/// Part of a record: the name, and what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) enum Entry {
    /// Question with its answer.
    Ask(String, String),
    /// Value of something that was done once, as MessagePack.
    Once(String, Bytes),
}

/// Place of the run in its dialogue, beside the turn that it has.
pub(crate) struct Run {
    pub(crate) record: Talk,
    /// Number of the next entry.
    pub(crate) at: usize,
    /// Number of entries from which on nothing has happened yet.
    pub(crate) live_from: usize,
    /// Whether the peer's answer was taken in this run, so that what follows is new.
    pub(crate) live: bool,
    /// Answer of the peer, until its question takes it.
    pub(crate) answer: Option<String>,
    /// Whether the function runs again from its top.
    pub(crate) again: bool,
}

impl Run {
    /// Drops what does not match the function, and has it run again from its top. What is behind
    /// the last answer that matches happens anew.
    pub(crate) fn ask_anew<S>(&mut self, turn: &mut Turn<'_, S>) {
        self.record.cut(self.at);
        self.record.asked = None;
        self.answer = None;
        (self.live_from, self.live) = (self.at, true);
        self.again = true;
        self.show_input(turn);
    }

    /// Has the peer show what is typed, if it was told not to.
    pub(crate) fn show_input<S>(&mut self, turn: &mut Turn<'_, S>) {
        if std::mem::take(&mut self.record.hidden) {
            turn.hide_input(false);
            // The end of the hidden line was not shown.
            if turn.fact("endpoint").as_deref() == Some("telnet") {
                turn.send("\n");
            }
        }
    }

    /// Inserts an entry here, and passes it.
    pub(crate) fn insert(&mut self, entry: Entry) {
        self.record.answers.insert(self.at, entry);
        // Nothing behind it has happened now that had not before.
        self.live_from += usize::from(self.at < self.live_from);
        self.at += 1;
    }

    /// Takes the value of something that was done once from its place in another build.
    pub(crate) fn take_thing(&mut self, is_it: impl Fn(&Entry) -> bool) -> Option<Entry> {
        if let Some(before) = self.record.done.iter().position(&is_it) {
            return Some(self.record.done.remove(before));
        }
        let later = self.at + self.record.answers.get(self.at..)?.iter().position(is_it)?;
        self.live_from -= usize::from(later < self.live_from);
        Some(self.record.answers.remove(later))
    }

    /// Passes by what another build did once in front of the next question.
    pub(crate) fn pass_things(&mut self) {
        while matches!(self.record.answers.get(self.at), Some(Entry::Once(..))) {
            let entry = self.record.answers.remove(self.at);
            self.record.done.push(entry);
            self.live_from -= usize::from(self.at < self.live_from);
        }
    }

    /// Whether what happens here happens for the first time.
    pub(crate) fn is_live(&self) -> bool {
        self.live && self.at >= self.live_from
    }
}
