//! Invariants: what must be so after every step and at the end, one function for each law.

use crate::dialogues::{a_build_sees_the_answers_that_were_given, effects_are_done_once};
use crate::model::{Expected, Subject};
use crate::mortals::entries_that_are_over_are_told_once;
use crate::peers::Peer;
use crate::roads::{ADDR, Road, proxied_client};
use crate::script::{COUNTS, TABLE};
use crate::verbs::TOKENS;
use crate::world::World;
use greenroom_core::effects::inbox::ActionView;
use greenroom_core::ids::Slot;
use greenroom_core::operate::inspect::{Entry, Filter, SessionView};
use greenroom_core::session::blocked::Question;
use greenroom_core::session::life::Life;
use greenroom_core::session::terms::Terms;
use greenroom_core::store::kind::Kind;
use greenroom_state::abi::action;
use std::collections::BTreeMap;

/// Kinds of records of which none is left when every session is closed.
const KINDS_OF_SESSIONS: [Kind; 18] = [
    Kind::Session,
    Kind::State,
    Kind::Input,
    Kind::Output,
    Kind::Shared,
    Kind::Subscription,
    Kind::Name,
    Kind::Terms,
    Kind::Action,
    Kind::Payload,
    Kind::Timer,
    Kind::Job,
    Kind::Connect,
    Kind::Framing,
    Kind::InputTail,
    Kind::Tls,
    Kind::TlsInput,
    Kind::TlsFacts,
];

/// Silence of a session's peer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Silence {
    /// Silences that its session was told of.
    told: u64,
    /// 1: its session has asked, and was not told since; else 0.
    asked: u64,
    /// Bytes that it has sent.
    pub(crate) heard: u64,
}

/// A session as the host shows it, beside what its peer's lines say that it must be.
struct Observed<'a> {
    world: &'a World,
    peer: &'a Peer,
    view: SessionView,
    open: bool,
    /// Lines whose turns ran.
    lines_run: usize,
    expected: &'a Expected,
    /// Entries of all sessions' table, by key.
    entries: &'a [Entry],
}

impl Observed<'_> {
    /// A counter that turns of this session keep.
    fn counter(&self, what: &str) -> u64 {
        self.world.counter(&format!("{what}:{}", self.peer.id))
    }

    /// Counts the actions that wait for their turns.
    fn waiting(&self, which: impl Fn(&ActionView) -> bool) -> u64 {
        self.view.actions.iter().filter(|a| which(a)).count() as u64
    }

    /// Number of dropped notes and messages that the session is yet to be told of.
    fn missing(&self) -> u64 {
        let counts = self.view.actions.iter().filter(|a| a.kind == action::MISSED);
        counts.map(|a| a.from).sum()
    }

    /// A timer of this name is set.
    fn has_timer(&self, name: &str) -> bool {
        self.view.timers.iter().any(|(n, _)| n == name)
    }

    /// Counts the session's notes to itself, and its wakes, that wait for their turns. A session
    /// that is closing has none.
    fn own_notes_waiting(&self) -> u64 {
        let own = |a: &ActionView| a.kind == action::NOTE && a.from == self.peer.id;
        if self.open { self.waiting(own) + self.counter("naps") } else { 0 }
    }
}

impl World {
    /// Checks every law, and adds the step to the trace.
    pub(crate) fn check(&mut self) {
        let service = &self.host.core.services()[0];
        let (turns, faults, sessions) = (service.turns, service.faults, service.sessions as u64);
        self.trace.note("step", &[self.rng.get_seed(), self.host.now_ns, turns, faults, sessions], b"");
        self.trace.steps += 1;

        every_peer_has_one_session(self);
        let mut dialogues = std::mem::take(&mut self.dialogues);
        let run: Vec<_> = self.network.peers.iter().map(|p| lines_run(self, p)).collect();
        for (peer, n) in self.network.peers.iter_mut().zip(&run) {
            peer.run.after(&peer.lines[..*n], self.subject, peer.id);
        }
        let entries = self.entries_of(TABLE, b"");
        let peers = self.network.peers.iter().zip(run);
        let observed: Vec<_> = peers.map(|(peer, n)| observe(self, peer, n, &entries)).collect();
        for o in &observed {
            state_is_what_the_lines_make_it(o);
            if self.subject == Subject::Asks {
                let seen = (o.peer, o.lines_run, o.view.state.as_deref());
                a_build_sees_the_answers_that_were_given(self, &mut dialogues, seen);
            }
            entries_are_what_the_lines_make_them(o);
            output_is_sent_or_waits(o);
            a_header_names_the_peer(o);
            sessions_over_udp_know_their_port(o);
            topics_are_what_the_lines_make_them(o);
            terms_are_what_the_lines_make_them(o);
            messages_on_a_topic_have_no_gap(o);
            if o.open {
                input_is_held_until_the_timer_fires(o);
                notes_arrive_once_or_wait(o);
                whoever_is_woken_has_a_turn(o);
                own_notes_come_before_the_next_line(o);
                timers_fire_once_or_wait(o);
                connects_end_once_or_are_being_made(o);
                outbound_sessions_are_told_once_why_they_are_open(o);
                jobs_end_once_or_wait(o);
            }
        }
        names_have_one_holder_and_never_a_dead_one(self, &observed);
        records_and_sessions_agree(self, &observed);
        limits_change_with_a_commit_alone(self);
        self.dialogues = dialogues;
        self.each_session_has_one_build();
        self.nobody_reads_what_is_over();
    }

    /// Checks that a connection is a session, unless there are too many.
    pub(crate) fn check_admission(&mut self, slot: Slot) {
        if self.host.core.sessions().get(slot).is_none() {
            sessions_are_refused_at_the_limit_alone(self);
            self.limited.refused += 1;
            self.network.turn_away(slot);
        }
    }

    /// Silences of peers by session. Sessions that wait, or have lines to run, are left out.
    pub(crate) fn silences(&self) -> BTreeMap<u64, Silence> {
        let silent = |peer: &Peer| {
            let session = self.host.core.sessions().get(peer.slot).expect("no session is lost");
            let waits = session.life != Life::Open || session.blocked_by(Question::ExpectPeer).is_some();
            let filter = Filter { session: Some(peer.id), contents: true, ..Filter::default() };
            if waits || !self.host.core.sessions_after(0, &filter).items[0].input.is_empty() {
                return None;
            }
            let of = |what: &str| self.counter(&format!("{what}:{}", peer.id));
            let silence = Silence { told: of("silences"), asked: of("hush"), heard: session.bytes_in };
            Some((peer.id, silence))
        };
        self.network.peers.iter().filter_map(silent).collect()
    }

    /// Checks, behind a silence of all peers, that each session which asked was told of it, and
    /// once: `before` are the silences a while ago, and `earlier` those as long before. Returns how
    /// many were told.
    pub(crate) fn check_silence(
        &self,
        earlier: &BTreeMap<u64, Silence>,
        before: &BTreeMap<u64, Silence>,
    ) -> u64 {
        let after = self.silences();
        for (id, began) in before {
            let Some(ended) = after.get(id) else { continue };
            assert_eq!(ended.asked, 0, "{id} is told of a silence");
            // A peer that spoke behind a silence that was told may have fallen silent again.
            let again = u64::from(earlier.get(id).is_none_or(|silence| silence.heard != began.heard));
            let least = began.told + began.asked;
            let most = began.told + began.asked.max(again);
            assert!(
                (least..=most).contains(&ended.told),
                "{id} is told of a silence once: {began:?}, {ended:?}"
            );
        }
        after.values().map(|silence| silence.told).sum()
    }

    /// Checks the end of a run: nothing is left, and what was counted twice is equal.
    pub(crate) fn check_end(&self) {
        the_services_own_turns_come_once(self);
        no_process_gives_more_tokens_than_a_bucket_has(self);
        limits_are_reported_as_often_as_they_are_reached(self);
        no_record_of_a_session_is_left(self);
        nothing_that_was_dropped_is_left(self);
        entries_that_are_over_are_told_once(self);
        self.check_datagrams();
        failed_turns_leave_nothing(self);
        effects_are_done_once(self);
    }

    /// A counter in the table of counters.
    pub(crate) fn counter(&self, key: &str) -> u64 {
        self.host.core.entry(COUNTS, key.as_bytes()).map_or(0, |v| number(&v))
    }

    /// Counters whose keys begin with `prefix`. O(counters).
    pub(crate) fn counters_of(&self, prefix: &str) -> Vec<(Vec<u8>, u64)> {
        self.entries_of(COUNTS, prefix.as_bytes()).into_iter().map(|(k, v)| (k, number(&v))).collect()
    }

    /// Entries of a table whose keys begin with `prefix`, by key. O(entries).
    fn entries_of(&self, table: &str, prefix: &[u8]) -> Vec<Entry> {
        let mut found = Vec::new();
        let mut from = Some(prefix.to_vec());
        while let Some(key) = from {
            let (mut entries, next) = self.host.core.entries_from(table, &key);
            entries.retain(|(key, _)| key.starts_with(prefix));
            found.append(&mut entries);
            from = next;
        }
        found
    }
}

/// Counts a peer's lines whose turns ran.
fn lines_run(world: &World, peer: &Peer) -> usize {
    let session = world.host.core.sessions().get(peer.slot).expect("no session is lost");
    assert_eq!(session.id, peer.id);
    let open = session.life == Life::Open;
    // The first turn is the opening, and the last one the end; some were caused by no line.
    let actions = world.counter(&format!("acts:{}", peer.id));
    let lines_run = session.turns.saturating_sub(1 + u64::from(!open) + actions) as usize;
    assert!(lines_run <= peer.lines.len(), "more turns than lines");
    lines_run
}

/// Reads a session, whose model has run its lines.
fn observe<'a>(world: &'a World, peer: &'a Peer, lines_run: usize, entries: &'a [Entry]) -> Observed<'a> {
    let session = world.host.core.sessions().get(peer.slot).expect("no session is lost");
    let open = session.life == Life::Open;
    let filter = Filter { session: Some(peer.id), contents: true, ..Filter::default() };
    let view = world.host.core.sessions_after(0, &filter).items.swap_remove(0);
    Observed { world, peer, view, open, lines_run, expected: peer.run.expected(), entries }
}

fn number(digits: &[u8]) -> u64 {
    String::from_utf8_lossy(digits).parse().expect("a number")
}

// --- sessions -----------------------------------------------------------------------------------

/// No session is lost, and none outlives its peer.
fn every_peer_has_one_session(world: &World) {
    assert_eq!(world.host.core.sessions().len(), world.network.peers.len(), "sessions and peers");
}

/// A connection is refused only if the host, or the service, has `sessions_max` sessions.
fn sessions_are_refused_at_the_limit_alone(world: &World) {
    let all = world.host.core.sessions().len();
    let limits = &world.host.limits;
    let limit = limits.host.sessions_max.min(limits.of(world.subject.name()).sessions_max);
    assert!(all >= limit, "{all} sessions, and one was refused");
}

// --- data of a session --------------------------------------------------------------------------

/// The stored state is that of the lines that ran. A note of the session to itself that waits is
/// added to the count later.
fn state_is_what_the_lines_make_it(o: &Observed<'_>) {
    let count = o.expected.count;
    match (o.world.subject, &o.view.state) {
        (Subject::Script, None) => assert_eq!(count, o.own_notes_waiting()),
        (Subject::Script, Some(bytes)) => {
            let stored = u64::from_le_bytes(bytes[1..9].try_into().expect("eight bytes"));
            assert_eq!(
                (bytes.len(), stored),
                (9, count - o.own_notes_waiting()),
                "session {} ({:?}, {}) after {} lines",
                o.peer.id,
                o.peer.road,
                o.peer.framing.kind(),
                o.lines_run
            );
        }
        (Subject::Tally, None) => assert_eq!(count, 0),
        (Subject::Tally, Some(bytes)) => {
            let json = greenroom_state::json::to_json(bytes).expect("MessagePack");
            assert_eq!(json["count"], count);
        }
        // A law of its own looks at the whole record.
        (Subject::Asks, _) => {}
    }
}

/// The table holds the session's entries, and no entry of a turn that failed.
fn entries_are_what_the_lines_make_them(o: &Observed<'_>) {
    let prefix = format!("{}:", o.peer.id);
    let from = o.entries.partition_point(|(key, _)| key[..] < *prefix.as_bytes());
    let own = o.entries[from..].iter().take_while(|(key, _)| key.starts_with(prefix.as_bytes()));
    let own = own.map(|(key, value)| (&key[..], &value[..]));
    let expected = o.expected.table.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes()));
    assert!(own.eq(expected), "session {}: {:?}, not {:?}", o.peer.id, o.entries, o.expected.table);
}

/// Bytes produced are bytes that the kernel took and bytes that wait. None is lost, none doubled.
fn output_is_sent_or_waits(o: &Observed<'_>) {
    let record = &o.view.record;
    assert_eq!(record.bytes_out, record.bytes_sent + o.view.output.len() as u64);
}

/// From its first turn on, a session behind a proxy has the peer that the header names.
fn a_header_names_the_peer(o: &Observed<'_>) {
    let Some(session) = o.world.host.core.sessions().get(o.peer.slot) else { return };
    if o.peer.road == Road::Proxied && session.turns > 0 {
        let named = format!("{} via {ADDR}", proxied_client(o.peer.id));
        assert_eq!(session.peer.to_string(), named, "session {}", o.peer.id);
    }
}

/// Without its port a session over UDP could answer nothing.
fn sessions_over_udp_know_their_port(o: &Observed<'_>) {
    let session = o.world.host.core.sessions().get(o.peer.slot);
    let port = session.and_then(|s| s.udp_end());
    assert_eq!(port.is_some(), o.peer.road == Road::Udp, "session {}", o.peer.id);
}

/// Subscriptions are those of the lines that ran; a session that is closing has none.
fn topics_are_what_the_lines_make_them(o: &Observed<'_>) {
    let topics = if o.open { &o.expected.topics[..] } else { &[] };
    let on: Vec<_> = o.view.topics.iter().map(|t| String::from_utf8_lossy(t)).collect();
    assert_eq!(on, topics, "session {}'s topics", o.peer.id);
}

/// Terms of the peer are those of the lines that ran; a session that is closing has none.
fn terms_are_what_the_lines_make_them(o: &Observed<'_>) {
    let expected = if o.open { (o.expected.frame_max, o.expected.idle_after_ns) } else { (0, 0) };
    let terms = (o.view.terms.frame_max(), o.view.terms.idle_after_ns());
    assert_eq!(terms, expected, "terms of {}", o.peer.id);
}

/// The last message that ran and those that wait are all that were published since, unless their
/// session is yet to be told of dropped ones.
fn messages_on_a_topic_have_no_gap(o: &Observed<'_>) {
    for topic in o.view.topics.iter().map(|t| String::from_utf8_lossy(t)) {
        let waiting = o.waiting(|a| a.kind == action::PUBLISHED && a.name == topic);
        let last = o.world.counter(&format!("last:{}:{topic}", o.peer.id));
        let published = o.world.counter(&format!("casts:{topic}"));
        let told = last == 0 || last + waiting == published;
        assert!(told || o.missing() > 0, "messages on {topic} to {}", o.peer.id);
    }
}

// --- actions of a session -----------------------------------------------------------------------

/// Input is held as long as the timer that ends the hold is set.
fn input_is_held_until_the_timer_fires(o: &Observed<'_>) {
    assert_eq!(o.view.record.held, o.has_timer("go"), "{} waits for its timer", o.peer.id);
}

/// Notes that others sent have run once, or wait, or their session is told of them.
fn notes_arrive_once_or_wait(o: &Observed<'_>) {
    let waiting = o.waiting(|a| a.kind == action::NOTE && a.from != o.peer.id);
    let dropped = o.counter("sent") - o.counter("got") - waiting;
    // Messages are among those that were dropped.
    assert!(dropped <= o.counter("missed") + o.missing(), "notes to {}: {dropped} dropped", o.peer.id);
}

/// The last wake has had its turn, or one waits for it.
fn whoever_is_woken_has_a_turn(o: &Observed<'_>) {
    let waiting = o.waiting(|a| a.kind == action::WOKEN);
    let all_seen = o.counter("wakes") == o.counter("woken");
    assert!(waiting <= 1 && (all_seen || waiting == 1), "wakes of {}: {waiting} wait", o.peer.id);
}

/// At most the note of the last line waits.
fn own_notes_come_before_the_next_line(o: &Observed<'_>) {
    assert!(o.own_notes_waiting() <= 1, "its own notes come before its next line");
}

/// Timers that were set have fired once, or are set.
fn timers_fire_once_or_wait(o: &Observed<'_>) {
    let uncounted = usize::from(o.has_timer("again")) + usize::from(o.has_timer("go"));
    let waiting = (o.view.timers.len() - uncounted) as u64;
    assert_eq!(o.counter("set"), o.counter("fired") + waiting, "timers of {}", o.peer.id);
}

/// Connections that were asked for have ended once, or are being made.
fn connects_end_once_or_are_being_made(o: &Observed<'_>) {
    let outcomes = o.waiting(|a| a.kind == action::CONNECT);
    let waiting = o.view.connects.len() as u64 + outcomes;
    assert_eq!(o.counter("dials"), o.counter("told") + waiting, "connections for {}", o.peer.id);
    let made = o.view.connects.iter().all(|c| o.world.network.dialing.contains(&c.number));
    assert!(made, "somebody makes the connections for {}", o.peer.id);
}

/// The first action of an outbound session names the request.
fn outbound_sessions_are_told_once_why_they_are_open(o: &Observed<'_>) {
    let waiting = o.waiting(|a| a.kind == action::DIALED);
    let outbound = u64::from(o.peer.dialed.is_some());
    assert_eq!(o.counter("dialed") + waiting, outbound, "what {} was opened for", o.peer.id);
}

/// Jobs that were asked for have ended once, or wait, or run.
fn jobs_end_once_or_wait(o: &Observed<'_>) {
    let waiting = o.view.jobs.len() as u64 + o.waiting(|a| a.kind == action::JOB);
    assert_eq!(o.counter("asked"), o.counter("done") + waiting, "jobs of {}", o.peer.id);
}

// --- the host -----------------------------------------------------------------------------------

/// The last session that took a name holds it, unless it is gone or has given it up.
fn names_have_one_holder_and_never_a_dead_one(world: &World, observed: &[Observed<'_>]) {
    let holder = |name: &Vec<u8>| world.counter(&format!("holder:{}", String::from_utf8_lossy(name)));
    for o in observed {
        let taken = o.expected.named.iter().filter(|name| o.open && holder(name) == o.peer.id);
        assert!(o.view.names.iter().eq(taken), "names of {}: {:?}", o.peer.id, o.view.names);
    }
}

/// Buckets begin anew with a process, and give no more tokens meanwhile.
fn no_process_gives_more_tokens_than_a_bucket_has(world: &World) {
    let most = u64::from(TOKENS) * (1 + world.counts.kills);
    for key in 0..20 {
        assert!(world.counter(&format!("tokens:{key}")) <= most, "tokens of {key}");
    }
}

/// The store holds one record for each state, subscription, terms and held name. The counts of
/// states by version and of sessions by service add up.
fn records_and_sessions_agree(world: &World, observed: &[Observed<'_>]) {
    let states = observed.iter().filter(|o| o.view.state.is_some()).count();
    let subscribed: usize = observed.iter().map(|o| o.view.topics.len()).sum();
    let core = &world.host.core;
    let with_terms = observed.iter().filter(|o| o.view.terms != Terms::default()).count();
    let held: usize = observed.iter().map(|o| o.view.names.len()).sum();
    let records = core.store().counts([Kind::State, Kind::Subscription, Kind::Terms, Kind::Name]);
    assert_eq!(records, [states, subscribed, with_terms, held], "states, subscriptions, terms, names");
    let stored: usize = core.services().iter().flat_map(|s| s.stored.values()).sum();
    assert_eq!(stored, states, "versions are counted");
    assert_eq!(core.services()[0].sessions, core.sessions().len());
}

/// The limits in force are those of the last configuration that was committed.
fn limits_change_with_a_commit_alone(world: &World) {
    assert_eq!(*world.host.core.limits(), world.host.limits.host);
}

// --- the end of a run ---------------------------------------------------------------------------

/// The service's own timers and connections came once, and none is left.
fn the_services_own_turns_come_once(world: &World) {
    let pair = |asked: &str, came: &str| (world.counter(asked), world.counter(came));
    let (set, fired) = pair("set:service", "fired:service");
    assert_eq!(set, fired, "the service's own timers");
    let (dialed, told) = pair("dials:service", "told:service");
    assert_eq!(dialed, told, "the service's own connections");
}

/// Each refusal and each reset is counted once; each reset is logged with its bytes.
fn limits_are_reported_as_often_as_they_are_reached(world: &World) {
    let l = &world.limited;
    assert_eq!(l.refused, l.refusals_reported, "each refusal is counted");
    assert_eq!(l.reset, l.resets_reported, "each session that is reset is counted");
    assert_eq!(l.reset, l.resets_noticed, "each session that is reset is told with its bytes");
}

/// The store holds no record of a session that was closed.
fn no_record_of_a_session_is_left(world: &World) {
    for kind in KINDS_OF_SESSIONS {
        assert_eq!(world.host.core.store().count(kind), 0, "{kind:?} records are left");
    }
}

/// Each record of an entry is that of an entry which can be read, and no drop is under way.
fn nothing_that_was_dropped_is_left(world: &World) {
    let core = &world.host.core;
    let readable: usize = core.tables().names().map(|table| core.tables().count(table)).sum();
    let records = core.store().count(Kind::Entry) + core.store().count(Kind::Expiring);
    assert_eq!(records, readable, "records of entries");
    assert_eq!(core.store().count(Kind::Drop), 0, "drops under way");
}

/// No table and no entry of a turn that failed exists.
fn failed_turns_leave_nothing(world: &World) {
    let core = &world.host.core;
    assert!(!core.table_names().contains(&"never".to_owned()));
    assert!(!core.entries_from(TABLE, b"never").0.iter().any(|(k, _)| k == b"never"));
}
