//! Calls of a turn on the host, through the table that the host passes.
//!
//! Each method is one call across the ABI. What comes back is borrowed until the next call with
//! the same turn, so it is copied at once. Safe code above this file never sees a pointer of
//! the host.
//!
//! The table is the host's for the whole life of the process. The host is of the same minor
//! version of the ABI or a later one, so all functions that are called here exist.

use crate::export::borrowed::slice;
use crate::fault::Fault;
use crate::host::Host;
use crate::log::LogEvent;
use greenroom_state::abi::{self, Bytes, status};

/// Host's table in safe words. Lives as long as one call of an entry point.
pub(super) struct HostCalls<'a> {
    /// Table of the host's functions.
    pub(super) host: &'a abi::Host,
    /// Null outside a turn, where only logging is allowed.
    pub(super) turn: *mut abi::Turn,
}

// SAFETY (of each block below): `turn` is what the host passed to the run under way. What is passed
// is valid for the call. What comes back is valid until the next call, and is copied before that.
impl Host for HostCalls<'_> {
    #[inline]
    fn turn_ok(&mut self) -> bool {
        // SAFETY: as above the impl.
        unsafe { (self.host.turn_ok)(self.turn) == 1 }
    }

    fn turn_failed(&mut self, fault: &Fault) {
        if fault.closes || fault.tells.is_some() {
            let line = fault.tells.as_deref().unwrap_or_default().into();
            let flags = if fault.closes { abi::FAULT_CLOSES } else { 0 };
            // SAFETY: as above the impl. A line over a limit is left out: the turn fails anyway.
            unsafe { (self.host.fault_reply)(self.turn, line, flags) };
        }
        let fault = abi::fault::Fault {
            size: size_of::<abi::fault::Fault<'_>>() as u32,
            kind: fault.kind,
            message: fault.message.as_str().into(),
            file: fault.file.as_str().into(),
            line: fault.line,
        };
        // SAFETY: as above the impl.
        unsafe { (self.host.turn_failed)(self.turn, &fault) }
    }

    fn state(&mut self, bytes: &[u8]) {
        // SAFETY: as above the impl.
        unsafe { (self.host.state)(self.turn, bytes.into()) }
    }

    fn wall(&mut self) -> u64 {
        // SAFETY: as above the impl.
        unsafe { (self.host.wall)(self.turn) }
    }

    fn peer(&mut self) -> String {
        let mut text = Bytes::EMPTY;
        // SAFETY: as above the impl.
        unsafe { (self.host.peer)(self.turn, &mut text) };
        // SAFETY: as above the impl.
        String::from_utf8_lossy(unsafe { slice(text) }).into_owned()
    }

    #[inline]
    fn send(&mut self, bytes: &[u8]) -> u32 {
        let part = Bytes::from(bytes);
        // SAFETY: as above the impl.
        unsafe { (self.host.send)(self.turn, &part, 1) }
    }

    #[inline]
    fn send_line(&mut self, line: &[u8]) -> u32 {
        // SAFETY: as above the impl.
        unsafe { (self.host.send_line)(self.turn, line.into()) }
    }

    fn close_with(&mut self, code: u16, reason: &str) -> u32 {
        // SAFETY: as above the impl.
        unsafe { (self.host.close_with)(self.turn, code.into(), reason.into()) }
    }

    fn fact(&mut self, name: &str) -> Option<Vec<u8>> {
        let mut value = Bytes::EMPTY;
        // SAFETY: as above the impl.
        let status = unsafe { (self.host.fact)(self.turn, name.into(), &mut value) };
        // SAFETY: as above the impl.
        (status == status::OK).then(|| unsafe { slice(value) }.to_vec())
    }

    fn page(&mut self, content_type: &str, page: &[u8]) -> u32 {
        // SAFETY: as above the impl.
        unsafe { (self.host.page)(self.turn, content_type.into(), page.into()) }
    }

    fn close(&mut self) -> u32 {
        // SAFETY: as above the impl.
        unsafe { (self.host.close)(self.turn) }
    }

    fn subscribe(&mut self, topic: &[u8]) -> u32 {
        // SAFETY: as above the impl.
        unsafe { (self.host.subscribe)(self.turn, topic.into()) }
    }

    fn unsubscribe(&mut self, topic: &[u8]) -> u32 {
        // SAFETY: as above the impl.
        unsafe { (self.host.unsubscribe)(self.turn, topic.into()) }
    }

    fn broadcast(&mut self, topic: &[u8], data: &[u8], flags: u32) -> u32 {
        // SAFETY: as above the impl.
        unsafe { (self.host.broadcast)(self.turn, topic.into(), data.into(), flags) }
    }

    fn table_get(&mut self, table: &str, key: &[u8], read: &mut dyn FnMut(&[u8])) -> bool {
        let mut value = Bytes::EMPTY;
        // SAFETY: as above the impl.
        let status = unsafe { (self.host.table_get)(self.turn, table.into(), key.into(), &mut value) };
        if status == status::OK {
            // SAFETY: as above the impl; `read` makes no call, as this one has the host.
            read(unsafe { slice(value) });
        }
        status == status::OK
    }

    fn table_put(&mut self, table: &str, key: &[u8], value: &[u8]) -> u32 {
        // SAFETY: as above the impl.
        unsafe { (self.host.table_put)(self.turn, table.into(), key.into(), value.into()) }
    }

    fn table_put_until(&mut self, table: &str, key: &[u8], value: &[u8], until_ns: u64) -> u32 {
        let (t, k, v) = (table.into(), key.into(), value.into());
        // SAFETY: as above the impl.
        unsafe { (self.host.table_put_until)(self.turn, t, k, v, until_ns) }
    }

    fn table_delete(&mut self, table: &str, key: &[u8]) -> u32 {
        // SAFETY: as above the impl.
        unsafe { (self.host.table_delete)(self.turn, table.into(), key.into()) }
    }

    fn table_drop_prefix(&mut self, table: &str, prefix: &[u8]) -> u32 {
        // SAFETY: as above the impl.
        unsafe { (self.host.table_drop_prefix)(self.turn, table.into(), prefix.into()) }
    }

    fn table_seek(
        &mut self,
        table: &str,
        (prefix, from): (&[u8], &[u8]),
        flags: u32,
        read: &mut dyn FnMut(&[u8]),
    ) -> Option<Vec<u8>> {
        let (mut key, mut value) = (Bytes::EMPTY, Bytes::EMPTY);
        let (t, p, f) = (table.into(), prefix.into(), from.into());
        // SAFETY: as above the impl.
        let status = unsafe { (self.host.table_seek)(self.turn, t, p, f, flags, &mut key, &mut value) };
        if status != status::OK {
            return None;
        }
        // SAFETY: as above the impl.
        let key = unsafe { slice(key) }.to_vec();
        // SAFETY: as above the impl; `read` makes no call, as this one has the host.
        read(unsafe { slice(value) });
        Some(key)
    }

    fn table_len(&mut self, table: &str) -> u64 {
        // SAFETY: as above the impl.
        unsafe { (self.host.table_len)(self.turn, table.into()) }
    }

    fn set_timer(&mut self, name: &str, after_ns: u64, flags: u32) -> u32 {
        // SAFETY: as above the impl.
        unsafe { (self.host.set_timer)(self.turn, name.into(), after_ns, flags) }
    }

    fn cancel_timer(&mut self, name: &str, flags: u32) -> u32 {
        // SAFETY: as above the impl.
        unsafe { (self.host.cancel_timer)(self.turn, name.into(), flags) }
    }

    fn note(&mut self, session: u64, data: &[u8]) -> u32 {
        // SAFETY: as above the impl.
        unsafe { (self.host.note)(self.turn, session, data.into()) }
    }

    fn wake(&mut self, session: u64) -> u32 {
        // SAFETY: as above the impl.
        unsafe { (self.host.wake)(self.turn, session) }
    }

    fn wake_when_drained(&mut self) -> u32 {
        // SAFETY: as above the impl.
        unsafe { (self.host.wake_when_drained)(self.turn) }
    }

    fn unsent(&mut self) -> u64 {
        // SAFETY: as above the impl.
        unsafe { (self.host.unsent)(self.turn) }
    }

    fn session_next(&mut self, after: u64) -> u64 {
        // SAFETY: as above the impl.
        unsafe { (self.host.session_next)(self.turn, after) }
    }

    fn frame_max(&mut self, bytes: u32) -> u32 {
        // SAFETY: as above the impl.
        unsafe { (self.host.frame_max)(self.turn, bytes) }
    }

    fn idle_after(&mut self, after_ns: u64) -> u32 {
        // SAFETY: as above the impl.
        unsafe { (self.host.idle_after)(self.turn, after_ns) }
    }

    fn allow(&mut self, key: &[u8], interval_ns: u64, burst: u32) -> Result<bool, u32> {
        // SAFETY: as above the impl.
        match unsafe { (self.host.allow)(self.turn, key.into(), interval_ns, burst) } {
            status::OK => Ok(true),
            status::ABSENT => Ok(false),
            refused => Err(refused),
        }
    }

    fn random(&mut self) -> u64 {
        // SAFETY: as above the impl.
        unsafe { (self.host.random)(self.turn) }
    }

    fn stats(&mut self) -> abi::Stats {
        let mut stats = abi::Stats { size: size_of::<abi::Stats>() as u32, ..abi::Stats::default() };
        // SAFETY: as above the impl.
        unsafe { (self.host.stats)(self.turn, &mut stats) };
        stats
    }

    fn send_to(&mut self, session: u64, data: &[u8], flags: u32) -> u32 {
        // SAFETY: as above the impl.
        unsafe { (self.host.send_to)(self.turn, session, data.into(), flags) }
    }

    fn close_session(&mut self, session: u64) -> u32 {
        // SAFETY: as above the impl.
        unsafe { (self.host.close_session)(self.turn, session) }
    }

    fn register(&mut self, name: &[u8]) -> Result<Option<u64>, u32> {
        let mut before = 0;
        // SAFETY: as above the impl.
        let status = unsafe { (self.host.register_name)(self.turn, name.into(), &mut before) };
        if status == status::OK { Ok((before != 0).then_some(before)) } else { Err(status) }
    }

    fn unregister(&mut self, name: &[u8]) -> u32 {
        // SAFETY: as above the impl.
        unsafe { (self.host.unregister_name)(self.turn, name.into()) }
    }

    fn whereis(&mut self, name: &[u8]) -> Option<u64> {
        // SAFETY: as above the impl.
        let holder = unsafe { (self.host.whereis)(self.turn, name.into()) };
        (holder != 0).then_some(holder)
    }

    fn name_next(&mut self, from: &[u8]) -> Option<(Vec<u8>, u64)> {
        let mut name = Bytes::EMPTY;
        // SAFETY: as above the impl.
        let holder = unsafe { (self.host.name_next)(self.turn, from.into(), &mut name) };
        // SAFETY: as above the impl.
        (holder != 0).then(|| (unsafe { slice(name) }.to_vec(), holder))
    }

    fn broadcast_any(&mut self, topics: &[&[u8]], data: &[u8], flags: u32) -> u32 {
        let topics: Vec<Bytes<'_>> = topics.iter().map(|topic| (*topic).into()).collect();
        // SAFETY: as above the impl.
        unsafe { (self.host.broadcast_any)(self.turn, topics.as_ptr(), topics.len(), data.into(), flags) }
    }

    fn topic_len(&mut self, topic: &[u8]) -> u64 {
        // SAFETY: as above the impl.
        unsafe { (self.host.topic_len)(self.turn, topic.into()) }
    }

    fn topic_next(&mut self, from: &[u8]) -> Option<Vec<u8>> {
        let mut name = Bytes::EMPTY;
        // SAFETY: as above the impl.
        let status = unsafe { (self.host.topic_next)(self.turn, from.into(), &mut name) };
        // SAFETY: as above the impl.
        (status == status::OK).then(|| unsafe { slice(name) }.to_vec())
    }

    fn publish(&mut self, topic: &[u8], data: &[u8], flags: u32) -> u32 {
        // SAFETY: as above the impl.
        unsafe { (self.host.publish)(self.turn, topic.into(), data.into(), flags) }
    }

    fn start_job(&mut self, name: &str, input: &[u8], flags: u32) -> Result<u64, u32> {
        let mut number = 0;
        // SAFETY: as above the impl.
        let status =
            unsafe { (self.host.start_job)(self.turn, name.into(), input.into(), flags, &mut number) };
        if status == status::OK { Ok(number) } else { Err(status) }
    }

    fn connect(&mut self, service: &str, addr: &str, context: &[u8]) -> Result<u64, u32> {
        let mut number = 0;
        let (s, a, c) = (service.into(), addr.into(), context.into());
        // SAFETY: as above the impl.
        let status = unsafe { (self.host.connect)(self.turn, s, a, c, &mut number) };
        if status == status::OK { Ok(number) } else { Err(status) }
    }

    fn connect_tls(&mut self, service: &str, addr: &str, name: &str, context: &[u8]) -> Result<u64, u32> {
        let mut number = 0;
        let (s, a, n, c) = (service.into(), addr.into(), name.into(), context.into());
        // SAFETY: as above the impl.
        let status = unsafe { (self.host.connect_tls)(self.turn, s, a, n, c, &mut number) };
        if status == status::OK { Ok(number) } else { Err(status) }
    }

    fn start_tls(&mut self, name: &str) -> u32 {
        // SAFETY: as above the impl.
        unsafe { (self.host.start_tls)(self.turn, name.into()) }
    }

    fn wait_for(&mut self, session: u64) -> u32 {
        // SAFETY: as above the impl.
        unsafe { (self.host.wait_for)(self.turn, session) }
    }

    fn hold(&mut self, on: bool) -> u32 {
        // SAFETY: as above the impl.
        unsafe { (self.host.hold)(self.turn, u32::from(on)) }
    }

    fn negotiate(&mut self, verb: u8, option: u8) -> u32 {
        // SAFETY: as above the impl.
        unsafe { (self.host.negotiate)(self.turn, verb.into(), option.into()) }
    }

    fn subnegotiate(&mut self, option: u8, bytes: &[u8]) -> u32 {
        // SAFETY: as above the impl.
        unsafe { (self.host.subnegotiate)(self.turn, option.into(), bytes.into()) }
    }

    fn send_datagram(&mut self, to: &str, bytes: &[u8]) -> u32 {
        // SAFETY: as above the impl.
        unsafe { (self.host.send_datagram)(self.turn, to.into(), bytes.into()) }
    }

    fn prompt(&mut self, text: &[u8]) -> u32 {
        // SAFETY: as above the impl.
        unsafe { (self.host.prompt)(self.turn, text.into()) }
    }

    fn cancel_job(&mut self, number: u64) -> u32 {
        // SAFETY: as above the impl.
        unsafe { (self.host.cancel_job)(self.turn, number) }
    }

    fn log(&mut self, event: &LogEvent) {
        let event = abi::level::LogEvent {
            size: size_of::<abi::level::LogEvent<'_>>() as u32,
            level: event.level,
            target: event.target.into(),
            message: event.message.as_str().into(),
        };
        // SAFETY: as above the impl.
        unsafe { (self.host.log)(self.turn, &event) }
    }
}
