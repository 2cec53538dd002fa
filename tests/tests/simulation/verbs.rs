//! Verbs of the scripted service, one function each.

use crate::mortals::MORTAL;
use crate::roads::ADDR;
use crate::script::{Failure, TABLE, Turn};
use greenroom_core::turn::effect::Broadcast;
use greenroom_core::turn::table_reads::Seek;
use greenroom_state::abi;

/// Verbs that peers of this service draw from. A verb that stands twice comes twice as often.
pub(crate) const VERBS: &[&str] = &[
    "add", "add", "trip", "get", "put", "cut", "join", "part", "fail", "peek", "huge", "mute", "bye", "self",
    "tell", "timer", "again", "tick", "work", "once", "cast", "shout", "shout", "shout", "dial", "hold",
    "wait", "wake", "nap", "drain", "pass", "name", "name", "unname", "any", "drop", "many", "until",
    "limit", "long", "hush", "token", "chance", "flood",
];

/// Added to the count by a turn that fails: a state that keeps it is wrong.
pub(crate) const POISON: u64 = 1000;

/// Entries that a turn writes at once.
pub(crate) const MANY: usize = 4;

/// Bytes of the text of a shout. Short ones are copied, long ones are stored once; some are longer
/// than a peer that does not read may leave untaken.
pub(crate) fn shout_len(n: u64) -> usize {
    match n % 8 {
        0 => 1500,
        2 | 4 | 6 => 10,
        _ => 200,
    }
}

/// Bytes of the text of a published message. Short ones are copied, long ones are stored once.
pub(crate) fn published_len(n: u64) -> usize {
    if n.is_multiple_of(2) { 10 } else { 300 }
}

/// Tokens of each bucket, and the time in which one comes back: longer than a run.
pub(crate) const TOKENS: u32 = 3;
const TOKEN_NS: u64 = 1 << 40;

/// Longest message of a peer, by the number in its line; 0: no bound. Every line but `long` is
/// shorter.
pub(crate) fn frame_max(n: u64) -> u32 {
    if n.is_multiple_of(3) { 0 } else { 20 + n as u32 }
}

/// Line of the verb `long`.
pub(crate) fn long_line() -> String {
    format!("long {}", "x".repeat(60))
}

/// Silence to be told, by the number in a line.
pub(crate) fn silence_ns(n: u64) -> u64 {
    n * 500
}

impl Turn<'_, '_> {
    /// Runs the turn of a line. Every verb but `shout` replies last. `bye` closes after its reply.
    pub(crate) fn message(&mut self, line: &str) -> Result<(), Failure> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb {
            "trip" if self.script.flawed => return Err(self.trip()),
            "add" | "trip" => self.set_count(self.count + 1),
            "put" => self.put(rest, line),
            "cut" => self.cut(rest),
            "drop" => self.drop_own(rest, line),
            "until" => self.put_until(rest),
            "many" => self.put_many(line),
            "join" => self.join(rest),
            "part" => _ = self.staging.unsubscribe(rest.as_bytes()),
            "fail" | "peek" | "huge" | "mute" => return Err(self.misbehave(verb, rest)),
            "self" => _ = self.staging.note(self.session, b"to itself"),
            "tell" => self.tell(rest, 1),
            "flood" => self.tell(rest, 6),
            "timer" => self.set_own_timer(rest),
            "tick" => self.set_service_timer(rest),
            "again" => self.set_one_timer_and_cancel_another(rest),
            "work" | "once" => self.start_job(verb, rest),
            "wake" => self.wake(number(rest)),
            "nap" => self.nap(),
            "drain" => self.drain(),
            "limit" => _ = self.staging.frame_max(frame_max(number(rest))),
            "hush" => self.hush(number(rest)),
            "token" => self.take_token(rest),
            "chance" => self.draw(),
            "name" => self.take_name(rest),
            "unname" => self.give_up_name(rest),
            "cast" => self.publish(rest),
            "shout" => {
                self.shout(rest, line);
                return Ok(());
            }
            "pass" => {
                self.pass(rest, line);
                return Ok(());
            }
            "any" => {
                self.shout_to_any(rest, line);
                return Ok(());
            }
            "dial" => self.connect(),
            "hold" => self.hold(rest),
            "wait" => _ = self.staging.wait_for(number(rest)),
            _ => {}
        }
        self.reply(line);
        if verb == "bye" {
            self.staging.close();
        }
        Ok(())
    }

    /// Panics halfway: none of its effects may be seen.
    fn trip(&mut self) -> Failure {
        self.staging.send(b"never to be seen\n");
        self.staging.table_put(TABLE, b"never", b"to be seen");
        self.set_count(self.count + POISON);
        Failure::Panic
    }

    /// Asks for every kind of effect, and fails: none of them may be seen.
    fn misbehave(&mut self, verb: &str, topic: &str) -> Failure {
        self.staging.broadcast(topic.as_bytes(), b"never to be heard\n", Broadcast::ALL);
        self.staging.send(b"never to be seen\n");
        self.staging.table_put(TABLE, b"never", b"to be seen");
        self.staging.table_drop_prefix(TABLE, b"");
        self.staging.table_put_until(MORTAL, b"never", b"0", u64::MAX);
        self.staging.subscribe(b"never");
        let _ = self.staging.register(topic.as_bytes());
        self.staging.wake(self.session);
        self.staging.send_to(self.session, b"never", Broadcast::ALL);
        self.staging.set_timer("never", 0, false);
        self.staging.frame_max(1);
        self.staging.allow(topic.as_bytes(), TOKEN_NS, TOKENS);
        self.staging.idle_after(1);
        self.staging.note(self.session, b"never");
        let _ = self.staging.start_job("never", b"", false);
        let _ = self.staging.connect("script", ADDR, None, b"never");
        self.staging.wait_for(1);
        self.staging.hold(true);
        self.staging.close();
        if verb != "peek" {
            self.set_count(self.count + POISON);
        }
        match verb {
            "huge" => Failure::StateTooLarge,
            "mute" => Failure::NoOutcome,
            _ => Failure::Panic,
        }
    }

    /// Writes an entry of the session's own, and reads it back.
    fn put(&mut self, key: &str, line: &str) {
        let key = format!("{}:{key}", self.session);
        self.staging.table_put(TABLE, key.as_bytes(), line.as_bytes());
        let read = self.staging.table_get(TABLE, key.as_bytes());
        assert_eq!(read, Some(line.as_bytes()), "own writes are seen");
    }

    /// Deletes an entry of the session's own, and reads it back.
    fn cut(&mut self, key: &str) {
        let key = format!("{}:{key}", self.session);
        self.staging.table_delete(TABLE, key.as_bytes());
        assert_eq!(self.staging.table_get(TABLE, key.as_bytes()), None, "own deletions are seen");
        self.scan_own(key.as_bytes(), false);
    }

    /// Scans the session's own entries in both directions.
    fn scan_own(&mut self, key: &[u8], is_there: bool) {
        let prefix = format!("{}:", self.session);
        let mut scan = |backwards: bool| {
            let (mut keys, mut from) = (Vec::new(), Vec::new());
            let seek = Seek { backwards, key_alone: backwards };
            while let Some((key, _)) = self.staging.table_seek(TABLE, prefix.as_bytes(), &from, seek) {
                keys.push(key.to_vec());
                from = [key, if backwards { &[] } else { &[0][..] }].concat();
            }
            keys
        };
        let (keys, mut back) = (scan(false), scan(true));
        back.reverse();
        assert!(keys == back && keys.is_sorted(), "a scan is the same in both directions");
        assert_eq!(keys.iter().any(|k| k == key), is_there, "own writes are scanned");
    }

    /// Writes so many entries that their drop is not done at once.
    fn put_many(&mut self, line: &str) {
        for n in 0..MANY {
            self.staging.table_put(TABLE, format!("{}:m{n}", self.session).as_bytes(), line.as_bytes());
        }
        self.scan_own(format!("{}:m0", self.session).as_bytes(), true);
    }

    /// Drops all entries of the session's own, and writes one.
    fn drop_own(&mut self, key: &str, line: &str) {
        let prefix = format!("{}:", self.session);
        self.staging.table_drop_prefix(TABLE, prefix.as_bytes());
        let first = self.staging.table_seek(TABLE, prefix.as_bytes(), b"", Seek::default());
        assert_eq!(first, None, "what was dropped is gone");
        self.put(key, line);
    }

    /// Subscribes to a topic, after a name that no topic may have.
    fn join(&mut self, topic: &str) {
        assert_eq!(self.staging.subscribe(b""), abi::status::INVALID);
        self.staging.subscribe(topic.as_bytes());
        self.forget_last(topic);
    }

    /// Sends notes to another session. Those that find too many waiting are dropped.
    fn tell(&mut self, other: &str, notes: u64) {
        for _ in 0..notes {
            self.staging.note(number(other), b"told");
        }
        self.add("sent", other, notes);
    }

    /// Sets a timer of the session under a new name.
    fn set_own_timer(&mut self, delay: &str) {
        let n = self.add_own("set");
        self.staging.set_timer(&format!("t{n}"), number(delay) * 500, false);
    }

    /// Sets a timer of the service under a new name.
    fn set_service_timer(&mut self, delay: &str) {
        let n = self.add("set", "service", 1);
        self.staging.set_timer(&format!("t{n}"), number(delay) * 500, true);
    }

    /// Sets a timer under an old name, and one that must never fire.
    fn set_one_timer_and_cancel_another(&mut self, delay: &str) {
        self.staging.set_timer("again", number(delay) * 500, false);
        self.staging.cancel_timer("off", false);
        self.staging.set_timer("off", 0, false);
        self.staging.cancel_timer("off", false);
    }

    /// Starts a job. One that is to run once is lost if the process dies meanwhile.
    fn start_job(&mut self, verb: &str, input: &str) {
        self.add_own("asked");
        self.staging.start_job(verb, input.as_bytes(), verb == "once").expect("a number");
    }

    /// Publishes to a topic, but not to this session, which therefore misses one.
    fn publish(&mut self, topic: &str) {
        let n = self.add("casts", topic, 1);
        self.forget_last(topic);
        self.staging.publish(
            topic.as_bytes(),
            format!("{n} {}", "x".repeat(published_len(n))).as_bytes(),
            true,
        );
    }

    /// Broadcasts after the reply: a line, or two pieces, as a turn that fails may continue a
    /// broadcast.
    fn shout(&mut self, topic: &str, line: &str) {
        let n = self.add("shouted", topic, 1);
        self.reply(line);
        if n.is_multiple_of(3) {
            let shout = format!("~{topic} {n} {}", "x".repeat(shout_len(n)));
            let how = Broadcast::LINE;
            self.staging.broadcast(topic.as_bytes(), shout.as_bytes(), how);
            return;
        }
        for part in [format!("~{topic} {n} "), format!("{}\n", "x".repeat(shout_len(n)))] {
            self.staging.broadcast(topic.as_bytes(), part.as_bytes(), Broadcast::ALL);
        }
    }

    /// Sends a line to another session, behind the reply.
    fn pass(&mut self, other: &str, line: &str) {
        let n = self.add("shouted", &format!("@{other}"), 1);
        self.reply(line);
        let how = Broadcast::LINE;
        let text = format!("~@{other} {n} {}", "x".repeat(shout_len(n)));
        self.staging.send_to(number(other), text.as_bytes(), how);
    }

    /// Sends a line to all on the topic or on another one, behind the reply. A session on both
    /// hears it once, as no session joins `none`.
    fn shout_to_any(&mut self, topic: &str, line: &str) {
        let n = self.add("shouted", topic, 1);
        self.reply(line);
        let how = Broadcast::LINE;
        let text = format!("~{topic} {n} {}", "x".repeat(shout_len(n)));
        let topics = [topic, "none", topic].map(str::as_bytes);
        self.staging.broadcast_any(topics.into_iter(), text.as_bytes(), how);
    }

    /// Wakes a session. Each wake has a number, and the woken turn notes the last one.
    fn wake(&mut self, other: u64) {
        self.add("wakes", &other.to_string(), 1);
        self.staging.wake(other);
    }

    /// Wakes the session itself: the woken turn comes before its next line, and is answered.
    fn nap(&mut self) {
        self.add_own("naps");
        self.wake(self.session);
    }

    /// Has the session woken once its output is sent. Its next line does not wait for that.
    fn drain(&mut self) {
        self.add_own("wakes");
        self.staging.wake_when_drained();
    }

    /// Takes a token, of which none comes back in a whole run. If none is left, all were taken.
    fn take_token(&mut self, key: &str) {
        let allowed = self.staging.allow(key.as_bytes(), TOKEN_NS, TOKENS) == abi::status::OK;
        let taken = self.add("tokens", key, u64::from(allowed));
        assert!(allowed || taken >= TOKENS.into() || self.script.damaged, "{taken} of {key} are taken");
    }

    /// Draws random numbers, each of them once.
    fn draw(&mut self) {
        for _ in 0..2 {
            let n = self.staging.random();
            let drawn = self.add("once", &format!("number {n}"), 1);
            assert!(drawn == 1 || self.script.damaged, "{n} comes again");
        }
    }

    /// Has the session told of its peer's silence, or not any more.
    fn hush(&mut self, n: u64) {
        let (owner, now_ns) = (self.owner.clone(), self.now_ns);
        self.staging.idle_after(silence_ns(n));
        self.set("hush", &owner, u64::from(n > 0));
        self.set("hush_until", &owner, now_ns + silence_ns(n));
    }

    /// Told of its peer's silence: once, and not too early.
    pub(crate) fn silent(&mut self) {
        let owner = self.owner.clone();
        self.add_own("acts");
        self.add_own("silences");
        let early = self.add("hush_until", &owner, 0).saturating_sub(self.now_ns);
        assert!(early == 0 || self.script.damaged, "{owner} is told {early} ns too early");
        self.set("hush", &owner, 0);
    }

    /// Woken, perhaps by several sessions at once. Every fifth wake causes one more, in a slice of
    /// its own.
    pub(crate) fn woken(&mut self) {
        self.add_own("acts");
        let owner = self.owner.clone();
        let wakes = self.add("wakes", &owner, 0);
        self.set("woken", &owner, wakes);
        if self.add("naps", &owner, 0) > 0 {
            self.set("naps", &owner, 0);
            self.set_count(self.count + 1);
            self.reply("awake");
        }
        if wakes % 5 == 4 {
            self.wake(self.session);
        }
    }

    /// Takes a name, whoever holds it. The table says who that was, unless it is gone.
    fn take_name(&mut self, name: &str) {
        assert_eq!(self.staging.register(b""), Err(abi::status::INVALID));
        if name.is_empty() && self.script.damaged {
            return;
        }
        let noted = self.add("holder", name, 0);
        let holder = self.staging.whereis(name.as_bytes());
        assert!(holder.is_none_or(|id| id == noted) || self.script.damaged, "{name}: {holder:?}, {noted}");
        assert_eq!(self.staging.register(name.as_bytes()), Ok(holder));
        assert_eq!(self.staging.whereis(name.as_bytes()), Some(self.session), "own names are seen");
        let next = self.staging.name_next(name.as_bytes()).map(|(name, id)| (name.to_vec(), id));
        assert_eq!(next, Some((name.as_bytes().to_vec(), self.session)));
        self.set("holder", name, self.session);
    }

    /// Gives up a name, if the session holds it.
    fn give_up_name(&mut self, name: &str) {
        self.staging.unregister(name.as_bytes());
        if self.add("holder", name, 0) == self.session {
            self.set("holder", name, 0);
        }
        assert_ne!(self.staging.whereis(name.as_bytes()), Some(self.session));
    }

    /// Asks for a connection. The owner's name is the context that its session is told.
    pub(crate) fn connect(&mut self) {
        self.add_own("dials");
        let context = self.owner.clone();
        self.staging.connect("script", ADDR, None, context.as_bytes()).expect("a number");
    }

    /// Holds the session's input until its timer `go` fires.
    fn hold(&mut self, delay: &str) {
        self.staging.hold(true);
        self.staging.set_timer("go", number(delay) * 100, false);
    }
}

/// Number in a text; 0 if there is none.
pub(crate) fn number(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}
