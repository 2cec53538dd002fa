//! Record of a dialogue, and the run of a turn along it.
//!
//! Entries are stored as one text: each turn reads and writes all of them, and a list of lists
//! costs ten times as much. An entry is `?` for a question or `!` for what was done once, then its
//! name and its answer, each behind its bytes as `5:Name?`. A value is in base64.

use crate::turn::Turn;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Record of a dialogue, for a field of the state: the answers so far.
///
/// Answers to hidden questions are in it as well, until the dialogue ends or forgets them.
///
/// ```
/// use greenroom_handler::{Talk, Turn};
///
/// #[derive(Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// struct Guest {
///     name: Option<String>,
///     /// `default`: states of builds without the dialogue are read, too.
///     #[serde(default)]
///     talk: Talk,
/// }
///
/// fn is_asked(turn: &Turn<Guest>) -> bool {
///     turn.state.talk.waits()
/// }
/// ```
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Talk {
    /// Answers and values, oldest first.
    #[serde(default, with = "flat")]
    #[schemars(with = "String")]
    pub(crate) answers: Vec<Entry>,
    /// Name of the question that waits for its answer.
    #[serde(default)]
    pub(crate) asked: Option<String>,
    /// Whether the peer was told not to show what is typed.
    #[serde(default)]
    pub(crate) hidden: bool,
    /// Values of what was done once, whose places are gone.
    #[serde(default, with = "flat")]
    #[schemars(with = "String")]
    pub(crate) done: Vec<Entry>,
}

impl Talk {
    /// Whether a question waits for its answer.
    pub fn waits(&self) -> bool {
        self.asked.is_some()
    }

    /// Names of the questions that were answered.
    pub(crate) fn questions(&self) -> impl Iterator<Item = &str> {
        self.answers.iter().filter_map(|entry| match entry {
            Entry::Ask(name, _) => Some(name.as_str()),
            Entry::Once(..) => None,
        })
    }

    /// Drops the answers from a place on. Values of what was done once are kept by their names.
    fn cut(&mut self, from: usize) {
        let dropped = self.answers.drain(from..).filter(|entry| matches!(entry, Entry::Once(..)));
        self.done.extend(dropped);
    }
}

/// Part of a record: the name, and what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Question with its answer.
    Ask(String, String),
    /// Value of something that was done once, as MessagePack.
    Once(String, Vec<u8>),
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
    /// The peer's line was not shown, and nothing has ended it on the screen.
    hidden_line: bool,
}

impl Run {
    /// Run along a record. `answer` is the peer's to the question that waits.
    pub(crate) fn along(record: Talk, answer: Option<String>) -> Run {
        let live = record.asked.is_none();
        let hidden_line = record.hidden;
        Run { live_from: record.answers.len(), record, at: 0, live, answer, again: false, hidden_line }
    }

    /// Drops what does not match the function, and has it run again from its top. What is behind
    /// the last answer that matches happens anew.
    pub(crate) fn ask_anew<S>(&mut self, turn: &mut Turn<'_, S>) {
        self.record.cut(self.at);
        self.record.asked = None;
        self.answer = None;
        (self.live_from, self.live) = (self.at, true);
        self.again = true;
        self.end_hidden_line(turn);
    }

    /// Ends a line that the peer was told not to show: its end was not shown either. Typing stays
    /// hidden until [`Run::show_input`]: another hidden question may follow.
    pub(crate) fn end_hidden_line<S>(&mut self, turn: &mut Turn<'_, S>) {
        if std::mem::take(&mut self.hidden_line) && turn.fact("endpoint").as_deref() == Some("telnet") {
            turn.send("\n");
        }
    }

    /// Has the peer show what is typed, if it was told not to.
    pub(crate) fn show_input<S>(&mut self, turn: &mut Turn<'_, S>) {
        if std::mem::take(&mut self.record.hidden) {
            turn.hide_input(false);
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

/// Entries as one text.
mod flat {
    use super::Entry;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD as BASE64;
    use serde::de::{Deserializer, Error, Visitor};
    use serde::ser::Serializer;
    use std::fmt::{self, Write};

    /// Writes the entries.
    pub(super) fn serialize<S: Serializer>(entries: &[Entry], serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = String::new();
        let mut part = |mark, name: &str, value: &str| {
            write!(text, "{mark}{}:{name}{}:{value}", name.len(), value.len())
                .map_err(serde::ser::Error::custom)
        };
        for entry in entries {
            match entry {
                Entry::Ask(name, answer) => part('?', name, answer)?,
                Entry::Once(name, value) => part('!', name, &BASE64.encode(value))?,
            }
        }
        serializer.serialize_str(&text)
    }

    /// Reads the entries.
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Entry>, D::Error> {
        deserializer.deserialize_str(Entries)
    }

    struct Entries;

    impl Visitor<'_> for Entries {
        type Value = Vec<Entry>;

        fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
            to.write_str("the record of a dialogue, as `?5:Name?3:ann`")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Vec<Entry>, E> {
            let (mut entries, mut rest) = (Vec::new(), text);
            while !rest.is_empty() {
                let (entry, behind) = entry(rest).ok_or_else(|| {
                    E::custom(format!(
                        "no entry of a dialogue at byte {} of {text:?}",
                        text.len() - rest.len()
                    ))
                })?;
                entries.push(entry);
                rest = behind;
            }
            Ok(entries)
        }
    }

    /// First entry of a text, and what is behind it.
    fn entry(text: &str) -> Option<(Entry, &str)> {
        let mark = text.chars().next().filter(|mark| ['?', '!'].contains(mark))?;
        let (name, rest) = part(&text[1..])?;
        let (value, rest) = part(rest)?;
        let name = name.to_owned();
        let entry = match mark {
            '?' => Entry::Ask(name, value.to_owned()),
            _ => Entry::Once(name, BASE64.decode(value).ok()?),
        };
        Some((entry, rest))
    }

    /// Text behind the number of its bytes, and what is behind it.
    fn part(text: &str) -> Option<(&str, &str)> {
        let (len, rest) = text.split_once(':')?;
        rest.split_at_checked(len.parse().ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_one_text_that_comes_back() {
        let ask = |name: &str, answer: &str| Entry::Ask(name.into(), answer.into());
        let mut talk = Talk { answers: vec![ask("Näme?", "a:1?\n"), ask("", "")], ..Talk::default() };
        talk.done.push(Entry::Once("once".into(), vec![0, 255]));
        let json = serde_json::to_string(&talk).unwrap();
        assert!(json.contains(r#""answers":"?6:Näme?5:a:1?\n?0:0:","#), "{json}");
        assert_eq!(serde_json::from_str::<Talk>(&json).unwrap(), talk);
        let bytes = rmp_serde::to_vec_named(&talk).unwrap();
        assert_eq!(rmp_serde::from_slice::<Talk>(&bytes).unwrap(), talk);
        for bad in ["x", "?", "?1:", "?1:ab", "?2:ä0:x", "?9:ab0:", "!1:a1:*", "?-1:a0:", "?1:ä0:"] {
            let json = serde_json::json!({ "answers": bad }).to_string();
            let said = serde_json::from_str::<Talk>(&json).unwrap_err().to_string();
            assert!(said.contains("no entry of a dialogue at byte "), "{bad}: {said}");
        }
    }
}
