//! Answers of the host to a turn, kept for a recording, or played back from one.
//!
//! A turn is a function of its session's state, of its action, and of what it asks the host. A
//! recording keeps each question and its answer. A replay gives the same answers to other code.
//! Questions that no recorded turn has asked have no answer then, and are told.
//!
//! Nobody asks here unless the turn is recorded or played: `TurnContext` and
//! `stored_tables` look first.

use greenroom_state::byte_text::ByteText;
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap, HashSet};

/// Bytes that the answers of one turn may have. Beyond it they are not kept, and the turn can't be
/// replayed.
const READS_BYTES_MAX: usize = 1 << 20;
/// Unknown questions that are named.
const UNKNOWN_MAX: usize = 8;

/// Kind of a question to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Topic {
    /// Entry of a table: version and value.
    Entry,
    /// Bytes of an entry.
    EntryBytes,
    /// Next key of a table.
    NextKey,
    /// Last key of a table before one.
    PreviousKey,
    /// Last key of a table.
    LastKey,
    /// Entries of a table.
    TableLen,
    /// Bytes of a table.
    TableBytes,
    /// Whether there is a table.
    HasTable,
    /// Number of tables.
    Tables,
    /// Entries under a prefix, and their bytes.
    UnderPrefix,
    /// Whether a deadline of an entry is over.
    IsOver,
    /// Number of a token bucket, and the time when it is full.
    Bucket,
    /// Random number.
    Random,
    /// Numbers of the host.
    HostNumbers,
    /// Number of the next job.
    NextJob,
    /// Jobs of the host.
    Jobs,
    /// Jobs of the session.
    OwnJobs,
    /// Number of the next connection.
    NextConnection,
    /// Connections that are being made.
    Connections,
    /// Number of a service that the host may connect for.
    Service,
    /// Names that the session holds.
    OwnNames,
    /// Holder of a name.
    Holder,
    /// Next name, and its holder.
    NextName,
    /// Whether the session is on a topic.
    IsOn,
    /// Topics that the session is on.
    OwnTopics,
    /// Sessions on a topic.
    Subscribers,
    /// Next topic.
    NextTopic,
    /// Whether broadcasts are kept apart.
    KeepsApart,
    /// Next session of the service.
    NextSession,
    /// Timers of an owner.
    Timers,
    /// Whether an owner has a timer of a name.
    HasTimer,
    /// Fact about the connection or the build.
    Fact,
}

impl Topic {
    /// Whether an answer that is missing makes the turn another one. The others only bound what a
    /// turn may ask for.
    fn matters(self) -> bool {
        use Topic::{
            Bucket, Entry, Fact, Holder, HostNumbers, LastKey, NextKey, NextName, NextSession, NextTopic,
            PreviousKey, Random, Service, TableLen,
        };
        let decide = [Entry, NextKey, PreviousKey, LastKey, TableLen, Bucket, Random, HostNumbers, Service];
        decide.contains(&self) || [Holder, NextName, NextTopic, NextSession, Fact].contains(&self)
    }
}

/// HostQuestion to the host: its kind, and what it is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HostQuestion<'a> {
    pub(crate) topic: Topic,
    /// Name of what is asked for, such as a table's.
    pub(crate) name: &'a [u8],
    /// Further bytes, such as a key.
    pub(crate) key: &'a [u8],
    /// Further number.
    pub(crate) at: u64,
}

impl<'a> HostQuestion<'a> {
    /// HostQuestion about a name.
    pub(crate) fn of(topic: Topic, name: &'a [u8]) -> HostQuestion<'a> {
        HostQuestion { topic, name, key: b"", at: 0 }
    }

    /// HostQuestion about a name and a key.
    pub(crate) fn at_key(topic: Topic, name: &'a [u8], key: &'a [u8]) -> HostQuestion<'a> {
        HostQuestion { topic, name, key, at: 0 }
    }

    /// HostQuestion about a number.
    pub(crate) fn at(topic: Topic, at: u64) -> HostQuestion<'a> {
        HostQuestion { topic, name: b"", key: b"", at }
    }

    fn owned(&self) -> OwnedQuestion {
        (self.topic, self.name.to_vec(), self.key.to_vec(), self.at)
    }
}

type OwnedQuestion = (Topic, Vec<u8>, Vec<u8>, u64);

/// HostQuestion of a turn, and the answer that it got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    /// Kind of the question.
    pub asked: Topic,
    /// Name of what was asked for.
    #[serde(default, skip_serializing_if = "ByteText::is_empty")]
    pub name: ByteText,
    /// Further bytes of the question, such as a key.
    #[serde(default, skip_serializing_if = "ByteText::is_empty")]
    pub key: ByteText,
    /// Further number of the question.
    #[serde(default)]
    pub at: u64,
    /// Answer: a number, and bytes; none: there is no such thing.
    pub answer: Option<(u64, ByteText)>,
}

/// Answers of one turn, which are kept or played back.
#[derive(Debug)]
pub(crate) enum Reads {
    /// Each answer is kept.
    Kept(KeptReads),
    /// Answers come from a recording.
    Played(PlayedReads),
}

/// Answers that were kept so far.
#[derive(Debug, Default)]
pub(crate) struct KeptReads {
    all: RefCell<Vec<Read>>,
    asked: RefCell<HashSet<OwnedQuestion>>,
    bytes: Cell<usize>,
    is_cut: Cell<bool>,
}

/// Answers of a recorded turn, by their questions.
#[derive(Debug, Default)]
pub(crate) struct PlayedReads {
    answers: HashMap<OwnedQuestion, Option<(u64, Vec<u8>)>>,
    unknown: RefCell<BTreeSet<String>>,
}

impl PlayedReads {
    /// Takes the answers of a recorded turn.
    pub(crate) fn of(reads: &[Read]) -> PlayedReads {
        let answer = |r: &Read| r.answer.as_ref().map(|(number, bytes)| (*number, bytes.0.clone()));
        let entry = |r: &Read| ((r.asked, r.name.0.clone(), r.key.0.clone(), r.at), answer(r));
        PlayedReads { answers: reads.iter().map(entry).collect(), unknown: RefCell::default() }
    }

    /// Questions without an answer so far, in words. Only those that decide what a turn does.
    pub(crate) fn unknown(&self) -> Vec<String> {
        self.unknown.borrow().iter().cloned().collect()
    }

    fn find(&self, q: &HostQuestion<'_>) -> Option<(u64, &[u8])> {
        match self.answers.get(&q.owned()) {
            Some(answer) => answer.as_ref().map(|(number, bytes)| (*number, bytes.as_slice())),
            None => {
                let mut unknown = self.unknown.borrow_mut();
                if q.topic.matters() && unknown.len() < UNKNOWN_MAX {
                    unknown.insert(in_words(q));
                }
                None
            }
        }
    }
}

/// HostQuestion in words.
fn in_words(q: &HostQuestion<'_>) -> String {
    let mut words = serde_plain(q.topic);
    for part in [q.name, q.key] {
        if !part.is_empty() {
            words.push(' ');
            words.push_str(&String::from_utf8_lossy(part));
        }
    }
    words
}

/// Name of a kind of question.
fn serde_plain(topic: Topic) -> String {
    format!("{topic:?}")
        .chars()
        .flat_map(|c| {
            let begins_word = c.is_uppercase();
            begins_word.then_some(' ').into_iter().chain(c.to_lowercase())
        })
        .collect::<String>()
        .trim_start()
        .to_owned()
}

impl KeptReads {
    fn keep(&self, q: &HostQuestion<'_>, answer: Option<(u64, &[u8])>) {
        let bytes = q.name.len() + q.key.len() + answer.map_or(0, |(_, bytes)| bytes.len()) + 64;
        if self.is_cut.get() || !self.asked.borrow_mut().insert(q.owned()) {
            return;
        }
        if self.bytes.get() + bytes > READS_BYTES_MAX {
            self.is_cut.set(true);
            return;
        }
        self.bytes.set(self.bytes.get() + bytes);
        let answer = answer.map(|(number, bytes)| (number, ByteText::from(bytes)));
        let (name, key) = (q.name.into(), q.key.into());
        self.all.borrow_mut().push(Read { asked: q.topic, name, key, at: q.at, answer });
    }

    /// Takes what was kept, and begins anew: another build may run the turn again.
    /// `None`: some of it was left out.
    pub(crate) fn take(&self) -> Option<Vec<Read>> {
        self.asked.borrow_mut().clear();
        self.bytes.set(0);
        let all = self.all.take();
        (!self.is_cut.take()).then_some(all)
    }
}

impl Reads {
    /// Answer of bytes and a number: the live one, which is kept, or the recorded one.
    pub(crate) fn bytes<'a>(
        &'a self,
        q: HostQuestion<'_>,
        live: impl FnOnce() -> Option<(u64, &'a [u8])>,
    ) -> Option<(u64, &'a [u8])> {
        match self {
            Reads::Kept(kept) => {
                let answer = live();
                kept.keep(&q, answer);
                answer
            }
            Reads::Played(played) => played.find(&q),
        }
    }

    /// The same, for an answer that is made anew.
    pub(crate) fn made(
        &self,
        q: HostQuestion<'_>,
        live: impl FnOnce() -> Option<(u64, Vec<u8>)>,
    ) -> Option<(u64, Vec<u8>)> {
        match self {
            Reads::Kept(kept) => {
                let answer = live();
                kept.keep(&q, answer.as_ref().map(|(number, bytes)| (*number, bytes.as_slice())));
                answer
            }
            Reads::Played(played) => played.find(&q).map(|(number, bytes)| (number, bytes.to_vec())),
        }
    }

    /// The same, for an answer that is a number or none.
    pub(crate) fn number(&self, q: HostQuestion<'_>, live: impl FnOnce() -> Option<u64>) -> Option<u64> {
        match self {
            Reads::Kept(kept) => {
                let answer = live();
                kept.keep(&q, answer.map(|number| (number, &b""[..])));
                answer
            }
            Reads::Played(played) => played.find(&q).map(|(number, _)| number),
        }
    }
}
