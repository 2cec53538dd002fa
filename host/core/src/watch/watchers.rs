//! All watchers, and the turns that they have not taken yet.

use super::subject::Subject;
use crate::ids::{ServiceId, Slot};
use crate::session::life::Session;
use crate::turn::turn_record::TurnRecord;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

/// Bytes that a turn counts in a list, beside those that it carries.
const TURN_BYTES: usize = 512;

/// Watchers of turns. Nobody watches, mostly: then a batch asks for one length.
#[derive(Debug, Default)]
pub struct Watchers {
    all: Vec<Watcher>,
    /// Number of the last watcher.
    last: u64,
    /// Turns that were watched and whose pass is not committed.
    uncommitted: Vec<(Vec<u64>, Arc<TurnRecord>)>,
    /// Bytes of those.
    uncommitted_bytes: usize,
}

/// Watcher of turns.
#[derive(Debug)]
struct Watcher {
    number: u64,
    subject: Subject,
    /// Service that the subject names, once there is one.
    service: Option<ServiceId>,
    /// Whether it records.
    records: bool,
    /// Turns that it has not taken, oldest first.
    turns: VecDeque<Arc<TurnRecord>>,
    /// Bytes of those.
    bytes: usize,
    /// Turns that had no room since it last took some.
    left_out: u64,
}

/// Watchers of a turn: their numbers, and whether one of them records.
#[derive(Debug, Default)]
pub(crate) struct Watching {
    pub(crate) by: Vec<u64>,
    pub(crate) records: bool,
}

/// Turns that a watcher takes.
#[derive(Debug, Default)]
pub struct WatchedTurns {
    /// Turns, oldest first.
    pub turns: Vec<Arc<TurnRecord>>,
    /// Turns before these, or among them, that had no room.
    pub left_out: u64,
}

impl Watchers {
    /// Whether nobody watches. One load.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Number of watchers.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Adds a watcher, and returns its number. `service`: the service that the subject names.
    /// `records`: the turns are to be replayed.
    pub(crate) fn add(&mut self, subject: Subject, service: Option<ServiceId>, records: bool) -> u64 {
        self.last += 1;
        let (turns, bytes, left_out) = (VecDeque::new(), 0, 0);
        let number = self.last;
        self.all.push(Watcher { number, subject, service, records, turns, bytes, left_out });
        number
    }

    /// Removes a watcher. A number that is none has no effect.
    pub(crate) fn remove(&mut self, number: u64) {
        self.all.retain(|w| w.number != number);
        if self.all.is_empty() {
            self.uncommitted.clear();
            self.uncommitted_bytes = 0;
        }
    }

    /// Sessions that a watcher names by their numbers; `None`: it names none.
    pub(crate) fn sessions_of(&self, number: u64) -> Option<&[u64]> {
        match &self.all.iter().find(|w| w.number == number)?.subject {
            Subject::Sessions(ids) => Some(ids),
            _ => None,
        }
    }

    /// Whether anybody watches a session. `datagram`: where the datagram of a service's own turn
    /// came from. O(watchers).
    pub(crate) fn is_watched(&self, slot: Slot, s: &Session, datagram: Option<SocketAddr>) -> bool {
        self.all.iter().any(|w| w.covers(slot, s, datagram))
    }

    /// Watchers of a session. O(watchers).
    pub(crate) fn watching(&self, slot: Slot, s: &Session, datagram: Option<SocketAddr>) -> Watching {
        let of: Vec<_> = self.all.iter().filter(|w| w.covers(slot, s, datagram)).collect();
        Watching { by: of.iter().map(|w| w.number).collect(), records: of.iter().any(|w| w.records) }
    }

    /// Adds turns for watchers. They get them with the commit of the pass. Those of one pass have
    /// `bytes_max` bytes, too: a turn beyond it is counted, and left out.
    pub(crate) fn saw(&mut self, by: &[u64], turns: Vec<TurnRecord>, bytes_max: usize) {
        for turn in turns {
            self.uncommitted_bytes += bytes_of(&turn);
            if self.uncommitted_bytes <= bytes_max {
                self.uncommitted.push((by.to_vec(), Arc::new(turn)));
                continue;
            }
            let watchers = self.all.iter_mut().filter(|w| by.contains(&w.number));
            watchers.for_each(|w| w.left_out += 1);
        }
    }

    /// Gives the turns of a committed pass to their watchers. A list holds at most `bytes_max`
    /// bytes: a turn beyond it is counted, and left out. Returns whether one was.
    pub(crate) fn committed(&mut self, bytes_max: usize) -> bool {
        let mut is_full = std::mem::take(&mut self.uncommitted_bytes) > bytes_max;
        for (by, turn) in self.uncommitted.drain(..) {
            let bytes = bytes_of(&turn);
            for w in self.all.iter_mut().filter(|w| by.contains(&w.number)) {
                match w.bytes + bytes <= bytes_max {
                    true => {
                        w.bytes += bytes;
                        w.turns.push_back(turn.clone());
                    }
                    false => {
                        w.left_out += 1;
                        is_full = true;
                    }
                }
            }
        }
        is_full
    }

    /// Takes the turns of a watcher. `None`: there is nothing new.
    pub fn take(&mut self, number: u64) -> Option<WatchedTurns> {
        let w = self.all.iter_mut().find(|w| w.number == number)?;
        if w.turns.is_empty() && w.left_out == 0 {
            return None;
        }
        w.bytes = 0;
        Some(WatchedTurns { turns: w.turns.drain(..).collect(), left_out: std::mem::take(&mut w.left_out) })
    }
}

impl Watcher {
    fn covers(&self, slot: Slot, s: &Session, datagram: Option<SocketAddr>) -> bool {
        self.subject.covers(self.service, slot, s)
            || datagram.is_some_and(|from| self.subject.covers_datagram(from))
    }
}

/// Bytes of a turn in a list, about.
fn bytes_of(turn: &TurnRecord) -> usize {
    let states = [&turn.before, &turn.after].into_iter().flatten().map(|s| s.packed.0.len());
    let effect = |e: &crate::turn::effect_record::EffectRecord| {
        let parts = [&e.name, &e.table, &e.key, &e.data].into_iter().flatten().map(|p| p.0.len());
        TURN_BYTES / 2 + parts.chain(e.topics.iter().map(|t| t.0.len())).sum::<usize>()
    };
    let read = |r: &crate::turn::reads::Read| {
        r.name.0.len() + r.key.0.len() + r.answer.as_ref().map_or(0, |(_, b)| b.0.len()) + TURN_BYTES / 4
    };
    let reads = turn.seen.iter().flat_map(|s| s.reads.iter().flatten()).map(read);
    let log = turn.log.iter().map(|l| l.message.len() + l.target.len());
    let own = TURN_BYTES + turn.action.data.0.len() + turn.action.name.0.len();
    own + states.chain(turn.effects.iter().map(effect)).chain(reads).chain(log).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use crate::ids::Slot;
    use crate::input::Input;
    use crate::limits::host::Limits;
    use crate::test_support::{Stub, open, serve};
    use crate::turn::staging::Staging;
    use crate::turn::turn_record::TurnRecord;
    use crate::watch::subject::Subject;
    use greenroom_state::abi::Action;

    /// Lines that came in one read are turns of their own for who watches, and only committed ones
    /// are seen. What has no room is counted.
    #[test]
    fn a_watcher_sees_each_turn_behind_its_commit() {
        let limits = Limits { watchers_max: 1, watcher_bytes_max: 4000, ..Limits::default() };
        let (mut core, service) = serve(
            limits,
            Stub(|_: &Action<'_>, staging: &mut Staging<'_>| {
                staging.send(b"ok");
                Ok(())
            }),
        );
        core.handle(Input::PassBegins { now_ns: 1 });
        open(&mut core, service, 0..2);
        core.handle(Input::Commit);
        let mut desk = core.watching();
        assert!(desk.begin(Subject::Sessions(vec![9]), false).is_err());
        let watch = desk.begin(Subject::Sessions(vec![1]), false).unwrap();
        assert!(desk.begin(Subject::Sessions(vec![2]), false).unwrap_err().contains("watchers_max"));
        core.handle(Input::PassBegins { now_ns: 2 });
        for slot in [0, 1] {
            core.handle(Input::Received { slot: Slot(slot), bytes: b"a\nb\nc\n" });
        }
        assert!(core.watching().take(watch).is_none());
        core.handle(Input::Commit);
        let seen = core.watching().take(watch).unwrap();
        let turn = |t: &TurnRecord| (t.session, t.turn, t.action.action.clone(), t.effects.len());
        let turns: Vec<_> = seen.turns.iter().map(|t| turn(t)).collect();
        assert_eq!(turns, [1, 2, 3].map(|n| (1, n, "message".to_owned(), 1)));
        assert_eq!((seen.left_out, core.sessions().get(Slot(1)).unwrap().turns), (0, 4));
        assert!(core.watching().take(watch).is_none());
        core.handle(Input::PassBegins { now_ns: 3 });
        core.handle(Input::Received { slot: Slot(0), bytes: &b"x\n".repeat(50) });
        core.handle(Input::Commit);
        let seen = core.watching().take(watch).unwrap();
        assert_eq!(seen.turns.len() + seen.left_out as usize, 50);
        assert!(seen.left_out > 0 && !seen.turns.is_empty(), "{}", seen.left_out);
        core.watching().end(watch);
        assert!(core.watching().take(watch).is_none());
    }
}
