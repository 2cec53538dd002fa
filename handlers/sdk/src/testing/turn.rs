//! Host that one turn sees.

use super::shared::{Caused, EPOCH, Peer, Shared, Silence};
use crate::fault::Fault;
use crate::host::Host;
use crate::log::LogEvent;
use greenroom_state::abi;
use greenroom_state::abi::table::{BACKWARDS, KEY_ALONE};
use greenroom_state::abi::{BROADCAST_OTHERS, TIMER_OF_SERVICE, status};
use std::hash::{DefaultHasher, Hasher};
use std::net::SocketAddr;
use std::time::Duration;

/// Number of the service itself, in place of a session's.
pub(super) const SERVICE: u64 = 0;
/// Turns that may follow one from another, as in a host of default limits.
const CASCADE_MAX: u16 = 16;

/// Host of one turn.
pub(super) struct Staging {
    pub(super) session: u64,
    /// Version of the states that the build writes.
    pub(super) version: u32,
    /// Number of the build.
    pub(super) generation: u64,
    /// Kind of the session's endpoint.
    pub(super) endpoint: &'static str,
    /// Address of the datagram that the turn is of.
    pub(super) from: Option<SocketAddr>,
    /// Number of turns between this one and an action from outside.
    pub(super) depth: u16,
    pub(super) shared: Shared,
    /// Reason why the turn failed.
    pub(super) fault: Option<String>,
    /// Place of the fault in the source, `src/lib.rs:7`; empty: unknown.
    pub(super) fault_at: String,
    /// Line that the peer is told if it failed, and whether the session is closed.
    pub(super) fault_reply: (Option<String>, bool),
}

impl Staging {
    /// Changes the peer of the session; refused in a turn of the service itself.
    fn change(&mut self, change: impl FnOnce(&mut Peer)) -> u32 {
        if self.session == SERVICE {
            return status::INVALID;
        }
        change(self.shared.sessions.entry(self.session).or_default());
        status::OK
    }

    /// Owner of a timer: the session, or the service itself.
    fn owner(&self, flags: u32) -> u64 {
        if flags == TIMER_OF_SERVICE { SERVICE } else { self.session }
    }
}

impl Host for Staging {
    /// Ends the batch: each turn of a test is a batch of its own.
    fn turn_ok(&mut self) -> bool {
        false
    }
    fn turn_failed(&mut self, fault: &Fault) {
        self.fault = Some(fault.message.clone());
        if !fault.file.is_empty() {
            self.fault_at = format!("{}:{}", fault.file, fault.line);
        }
        self.fault_reply = (fault.tells.clone(), fault.closes);
    }
    fn state(&mut self, bytes: &[u8]) {
        let version = self.version;
        self.change(|own| own.state = Some((version, bytes.to_vec())));
    }
    fn wall(&mut self) -> u64 {
        (EPOCH + self.shared.now).as_nanos() as u64
    }
    fn peer(&mut self) -> String {
        self.from.map_or_else(|| format!("127.0.0.1:{}", self.session), |from| format!("udp://{from}"))
    }
    fn send(&mut self, bytes: &[u8]) -> u32 {
        match self.from {
            Some(to) => self.send_datagram(&to.to_string(), bytes),
            None => self.change(|own| own.output.extend(bytes)),
        }
    }
    fn send_datagram(&mut self, to: &str, bytes: &[u8]) -> u32 {
        let Ok(to) = to.parse() else { return status::INVALID };
        self.shared.datagrams.push((to, bytes.to_vec()));
        status::OK
    }
    fn send_line(&mut self, line: &[u8]) -> u32 {
        self.send(&[line, b"\n"].concat())
    }
    fn close_with(&mut self, _: u16, _: &str) -> u32 {
        self.close()
    }
    fn fact(&mut self, name: &str) -> Option<Vec<u8>> {
        if name == "endpoint" {
            return Some(self.endpoint.as_bytes().to_vec());
        }
        (name == "generation").then(|| self.generation.to_string().into_bytes())
    }
    fn page(&mut self, _: &str, _: &[u8]) -> u32 {
        status::INVALID
    }
    fn close(&mut self) -> u32 {
        self.change(|own| own.closed = true)
    }
    fn subscribe(&mut self, topic: &[u8]) -> u32 {
        match topic.is_empty() {
            true => status::INVALID,
            false => self.change(|own| own.topics.extend([topic.to_owned()])),
        }
    }
    fn unsubscribe(&mut self, topic: &[u8]) -> u32 {
        self.change(|own| own.topics.retain(|t| t != topic))
    }
    fn broadcast(&mut self, topic: &[u8], data: &[u8], flags: u32) -> u32 {
        self.broadcast_any(&[topic], data, flags)
    }
    fn broadcast_any(&mut self, topics: &[&[u8]], data: &[u8], flags: u32) -> u32 {
        for (id, peer) in &mut self.shared.sessions {
            let is_on = topics.iter().any(|topic| peer.topics.contains(*topic));
            if is_on && !(flags & BROADCAST_OTHERS != 0 && *id == self.session) {
                peer.take(data, flags);
            }
        }
        status::OK
    }
    fn send_to(&mut self, session: u64, data: &[u8], flags: u32) -> u32 {
        let is_left_out = flags & BROADCAST_OTHERS != 0 && session == self.session;
        if let Some(peer) = self.shared.sessions.get_mut(&session).filter(|_| !is_left_out) {
            peer.take(data, flags);
        }
        status::OK
    }
    fn close_session(&mut self, session: u64) -> u32 {
        if session == self.session {
            return self.close();
        }
        self.shared.caused.push_back((session, 0, Caused::CloseAsked));
        status::OK
    }
    fn wake(&mut self, session: u64) -> u32 {
        let own = session == self.session;
        if !own && self.depth >= CASCADE_MAX {
            return status::LIMIT;
        }
        let is_same = |(to, _, c): &(u64, u16, Caused)| *to == session && matches!(c, Caused::Woken);
        if !self.shared.caused.iter().any(is_same) {
            let depth = if own { 0 } else { self.depth + 1 };
            self.shared.caused.push_back((session, depth, Caused::Woken));
        }
        status::OK
    }
    /// Peers of a test take all output at once.
    fn wake_when_drained(&mut self) -> u32 {
        self.wake(self.session)
    }
    fn unsent(&mut self) -> u64 {
        0
    }
    fn session_next(&mut self, after: u64) -> u64 {
        let mut next = self.shared.sessions.range(after + 1..).filter(|(_, peer)| !peer.closed);
        next.next().map_or(0, |(id, _)| *id)
    }
    fn frame_max(&mut self, bytes: u32) -> u32 {
        self.change(|own| own.frame_max = bytes as usize)
    }
    fn idle_after(&mut self, after_ns: u64) -> u32 {
        let (now, after) = (self.shared.now, Duration::from_nanos(after_ns));
        let silence = (after_ns > 0).then(|| Silence { after, at: Some(now + after) });
        self.change(|own| own.silence = silence)
    }
    fn allow(&mut self, key: &[u8], interval_ns: u64, burst: u32) -> Result<bool, u32> {
        if interval_ns == 0 || burst == 0 {
            return Err(status::INVALID);
        }
        let (now, interval) = (self.shared.now, Duration::from_nanos(interval_ns));
        let full_at = self.shared.buckets.entry((key.to_vec(), interval_ns, burst)).or_default();
        let next = (*full_at).max(now) + interval;
        let allows = next - now <= interval.saturating_mul(burst);
        if allows {
            *full_at = next;
        }
        Ok(allows)
    }
    /// The same numbers in each run of a test.
    fn random(&mut self) -> u64 {
        self.shared.randoms += 1;
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.shared.randoms);
        hasher.finish()
    }
    fn stats(&mut self) -> abi::Stats {
        let sessions = self.shared.sessions.values().filter(|peer| !peer.closed).count() as u64;
        let uptime_ns = self.shared.now.as_nanos() as u64;
        abi::Stats {
            sessions,
            service_sessions: sessions,
            generation: self.generation,
            uptime_ns,
            ..abi::Stats::default()
        }
    }
    fn register(&mut self, name: &[u8]) -> Result<Option<u64>, u32> {
        match name.is_empty() || self.session == SERVICE {
            true => Err(status::INVALID),
            false => Ok(self.shared.names.insert(name.to_owned(), self.session)),
        }
    }
    fn unregister(&mut self, name: &[u8]) -> u32 {
        if self.whereis(name) == Some(self.session) {
            self.shared.names.remove(name);
        }
        status::OK
    }
    fn whereis(&mut self, name: &[u8]) -> Option<u64> {
        self.shared.names.get(name).copied()
    }
    fn name_next(&mut self, from: &[u8]) -> Option<(Vec<u8>, u64)> {
        self.shared.names.range(from.to_vec()..).next().map(|(name, holder)| (name.clone(), *holder))
    }
    fn topic_len(&mut self, topic: &[u8]) -> u64 {
        self.shared.sessions.values().filter(|peer| peer.topics.contains(topic)).count() as u64
    }
    fn topic_next(&mut self, from: &[u8]) -> Option<Vec<u8>> {
        let all = self.shared.sessions.values().flat_map(|peer| peer.topics.range(from.to_vec()..));
        all.min().cloned()
    }
    fn table_get(&mut self, table: &str, key: &[u8], read: &mut dyn FnMut(&[u8])) -> bool {
        let found = self.shared.tables.get(&(table.to_owned(), key.to_vec()));
        found.map(|value| read(value)).is_some()
    }
    fn table_put(&mut self, table: &str, key: &[u8], value: &[u8]) -> u32 {
        self.shared.deadlines.remove(&(table.to_owned(), key.to_vec()));
        self.shared.tables.insert((table.to_owned(), key.to_vec()), value.to_vec());
        status::OK
    }
    fn table_put_until(&mut self, table: &str, key: &[u8], value: &[u8], until_ns: u64) -> u32 {
        if until_ns <= self.wall() {
            return self.table_delete(table, key);
        }
        self.table_put(table, key, value);
        let until = Duration::from_nanos(until_ns);
        self.shared.deadlines.insert((table.to_owned(), key.to_vec()), until);
        status::OK
    }
    fn table_delete(&mut self, table: &str, key: &[u8]) -> u32 {
        self.shared.deadlines.remove(&(table.to_owned(), key.to_vec()));
        self.shared.tables.remove(&(table.to_owned(), key.to_vec()));
        status::OK
    }
    fn table_drop_prefix(&mut self, table: &str, prefix: &[u8]) -> u32 {
        let stays = |(t, key): &(String, Vec<u8>)| t != table || !key.starts_with(prefix);
        self.shared.tables.retain(|at, _| stays(at));
        self.shared.deadlines.retain(|at, _| stays(at));
        status::OK
    }
    fn table_seek(
        &mut self,
        table: &str,
        (prefix, from): (&[u8], &[u8]),
        flags: u32,
        read: &mut dyn FnMut(&[u8]),
    ) -> Option<Vec<u8>> {
        let backwards = flags & BACKWARDS != 0;
        let is_wanted = |key: &[u8]| match backwards {
            true => from.is_empty() || key < from,
            false => key >= from,
        };
        let has = |(t, key): &&(String, Vec<u8>)| t == table && key.starts_with(prefix) && is_wanted(key);
        let mut keys = self.shared.tables.keys();
        let key = if backwards { keys.rfind(has) } else { keys.find(has) }?;
        read(if flags & KEY_ALONE != 0 { &[] } else { &self.shared.tables[key] });
        Some(key.1.clone())
    }
    fn table_len(&mut self, table: &str) -> u64 {
        self.shared.tables.keys().filter(|(t, _)| t == table).count() as u64
    }
    fn set_timer(&mut self, name: &str, after_ns: u64, flags: u32) -> u32 {
        let at = self.shared.now + Duration::from_nanos(after_ns);
        self.shared.timers.insert((self.owner(flags), name.to_owned()), at);
        status::OK
    }
    fn cancel_timer(&mut self, name: &str, flags: u32) -> u32 {
        self.shared.timers.remove(&(self.owner(flags), name.to_owned()));
        status::OK
    }
    fn note(&mut self, session: u64, data: &[u8]) -> u32 {
        if self.depth >= CASCADE_MAX {
            return status::LIMIT;
        }
        if session != SERVICE {
            let note = Caused::Note(self.session, data.to_vec());
            self.shared.caused.push_back((session, self.depth + 1, note));
        }
        status::OK
    }
    fn publish(&mut self, topic: &[u8], data: &[u8], flags: u32) -> u32 {
        if self.depth >= CASCADE_MAX {
            return status::LIMIT;
        }
        for (id, peer) in &self.shared.sessions {
            if peer.topics.contains(topic) && !(flags == BROADCAST_OTHERS && *id == self.session) {
                let caused = Caused::Published(topic.to_owned(), self.session, data.to_vec());
                self.shared.caused.push_back((*id, self.depth + 1, caused));
            }
        }
        status::OK
    }
    fn start_job(&mut self, name: &str, input: &[u8], _: u32) -> Result<u64, u32> {
        self.shared.jobs += 1;
        let number = self.shared.jobs;
        let job = Caused::Job(number, name.to_owned(), input.to_vec());
        self.shared.caused.push_back((self.session, 0, job));
        Ok(number)
    }
    fn cancel_job(&mut self, number: u64) -> u32 {
        let session = self.session;
        let it = |to: u64, c: &Caused| to == session && matches!(c, Caused::Job(n, ..) if *n == number);
        self.shared.caused.retain(|(to, _, c)| !it(*to, c));
        status::OK
    }
    fn connect(&mut self, service: &str, addr: &str, context: &[u8]) -> Result<u64, u32> {
        self.shared.connects.push((self.session, service.to_owned(), addr.to_owned(), context.to_vec()));
        Ok(self.shared.connects.len() as u64)
    }
    fn connect_tls(&mut self, service: &str, addr: &str, name: &str, context: &[u8]) -> Result<u64, u32> {
        self.connect(service, &format!("{addr} as {name}"), context)
    }
    fn start_tls(&mut self, _: &str) -> u32 {
        self.shared.caused.push_back((self.session, 0, Caused::TlsStarted));
        status::OK
    }
    fn wait_for(&mut self, _: u64) -> u32 {
        status::OK
    }
    fn hold(&mut self, _: bool) -> u32 {
        status::OK
    }
    fn negotiate(&mut self, _: u8, _: u8) -> u32 {
        status::OK
    }
    fn subnegotiate(&mut self, _: u8, _: &[u8]) -> u32 {
        status::OK
    }
    fn prompt(&mut self, text: &[u8]) -> u32 {
        self.send(text)
    }
    fn log(&mut self, _: &LogEvent) {}
}
