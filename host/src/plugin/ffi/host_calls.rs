//! Functions that a handler calls during a turn: they pass its wishes to the staging area.
//!
//! The functions decide nothing. They turn arguments of the C ABI into slices and texts.
//! [`Staging`] takes these and knows the limits. `state-schema/src/abi.rs` says what each
//! function means.
//!
//! Arguments are believed to keep the ABI, but texts must be UTF-8 and flags known. Other calls
//! are answered with `INVALID` and change nothing. Calls without a turn are answered so, too:
//! only `log` works outside turns. An answer that is lent is valid until the next call with
//! this turn, because the staging area uses its memory again.
//!
//! Calls with a turn come on the thread that runs the turn, and none of them blocks.

use crate::logs::{levels, log_at};
use crate::plugin::ffi::bytes::{lend, slice};
use crate::plugin::ffi::under_way::{staging, under_way, with_name};
use crate::plugin::ffi::{chance_calls, session_calls, stream_calls, table_calls, telnet_calls, topic_calls};
use greenroom_core::turn::fault::Fault;
use greenroom_core::turn::staging::Staging;
use greenroom_state::abi::{self, Bytes, status};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU32;
use std::sync::{Mutex, PoisonError};

thread_local! {
    /// Service whose code runs on this thread outside of turns: a job, or a new instance.
    static SERVICE: Cell<&'static str> = const { Cell::new("") };
}

/// Runs code of a service outside of turns. What it logs is the service's.
pub(super) fn as_service<T>(service: &'static str, f: impl FnOnce() -> T) -> T {
    let before = SERVICE.replace(service);
    let result = f();
    SERVICE.set(before);
    result
}

/// Table of the host's functions for libraries with these services. Its level of the log is theirs,
/// as it is now. The table stays for as long as the process lives, as threads of a library may log
/// at any time; builds with the same services share it.
pub(super) fn host_table(services: Vec<String>) -> &'static abi::Host {
    static TABLES: Mutex<BTreeMap<Vec<String>, &'static abi::Host>> = Mutex::new(BTreeMap::new());
    let mut tables = TABLES.lock().unwrap_or_else(PoisonError::into_inner);
    tables.entry(services).or_insert_with_key(|services| {
        let table: &abi::Host = Box::leak(Box::new(new_table()));
        levels::follow(services.clone(), &table.log_level);
        table
    })
}

/// Makes a table.
fn new_table() -> abi::Host {
    abi::Host {
        size: size_of::<abi::Host>() as u32,
        log_level: AtomicU32::new(abi::level::ERROR),
        turn_ok,
        turn_failed,
        fault_reply,
        state,
        peer,
        send,
        close,
        subscribe: topic_calls::subscribe,
        unsubscribe: topic_calls::unsubscribe,
        broadcast: topic_calls::broadcast,
        table_get: table_calls::table_get,
        table_put: table_calls::table_put,
        table_delete: table_calls::table_delete,
        table_next: table_calls::table_next,
        log,
        table_len: table_calls::table_len,
        set_timer,
        cancel_timer,
        note: session_calls::note,
        publish: topic_calls::publish,
        start_job,
        cancel_job,
        connect: stream_calls::connect,
        wait_for,
        hold,
        send_line,
        close_with,
        fact,
        page,
        negotiate: telnet_calls::negotiate,
        subnegotiate: telnet_calls::subnegotiate,
        prompt: telnet_calls::prompt,
        send_datagram,
        start_tls: stream_calls::start_tls,
        connect_tls: stream_calls::connect_tls,
        wall,
        register_name: session_calls::register_name,
        unregister_name: session_calls::unregister_name,
        whereis: session_calls::whereis,
        name_next: session_calls::name_next,
        wake: session_calls::wake,
        broadcast_any: topic_calls::broadcast_any,
        send_to: session_calls::send_to,
        close_session: session_calls::close_session,
        topic_len: topic_calls::topic_len,
        topic_next: topic_calls::topic_next,
        wake_when_drained: session_calls::wake_when_drained,
        unsent: session_calls::unsent,
        session_next: session_calls::session_next,
        frame_max: session_calls::frame_max,
        idle_after: session_calls::idle_after,
        allow: chance_calls::allow,
        random: chance_calls::random,
        stats: chance_calls::stats,
        table_seek: table_calls::table_seek,
        table_drop_prefix: table_calls::table_drop_prefix,
        table_put_until: table_calls::table_put_until,
    }
}

// Each function below gets, by the ABI, the turn of the run under way and arguments that are valid
// for the call.

/// Stages a datagram to an address.
unsafe extern "C" fn send_datagram(turn: *mut abi::Turn, to: Bytes<'_>, data: Bytes<'_>) -> u32 {
    // SAFETY: see above.
    let data = unsafe { slice(data) };
    // SAFETY: see above.
    unsafe { with_name(turn, to, |s, to| s.send_datagram(to, data)) }
}

/// Returns the time of the calendar; 0 outside a turn.
unsafe extern "C" fn wall(turn: *mut abi::Turn) -> u64 {
    // SAFETY: see above.
    unsafe { staging(turn) }.map_or(0, |s| s.wall())
}

/// Ends a turn that succeeded. Returns 1: go on with the next action.
unsafe extern "C" fn turn_ok(turn: *mut abi::Turn) -> u32 {
    // SAFETY: see above.
    unsafe { under_way(turn) }.map_or(0, |r| {
        // From here on a death is blamed on the next turn of the batch, if there is one.
        r.board.step();
        u32::from(r.staging.turn_ok())
    })
}

/// Ends a turn that failed, with its reason. Text that is not UTF-8 is replaced, so the reason
/// is never lost.
unsafe extern "C" fn turn_failed(turn: *mut abi::Turn, fault: *const abi::fault::Fault<'_>) {
    // SAFETY: see above.
    let (Some(s), Some(f)) = (unsafe { staging(turn) }, unsafe { fault.as_ref() }) else { return };
    // SAFETY: see above.
    let owned = |b| String::from_utf8_lossy(unsafe { slice(b) }).into_owned();
    s.turn_failed(Fault { kind: f.kind, message: owned(f.message), file: owned(f.file), line: f.line });
}

/// Notes what the peer is told if the turn fails.
unsafe extern "C" fn fault_reply(turn: *mut abi::Turn, line: Bytes<'_>, flags: u32) -> u32 {
    // SAFETY: see above.
    let (Some(s), line) = (unsafe { staging(turn) }, unsafe { slice(line) }) else { return status::INVALID };
    s.fault_reply(line, flags)
}

/// Takes the state that the successful turns left.
unsafe extern "C" fn state(turn: *mut abi::Turn, state: Bytes<'_>) {
    // SAFETY: see above.
    let (Some(s), bytes) = (unsafe { staging(turn) }, unsafe { slice(state) }) else { return };
    s.state(bytes);
}

/// Lends the address of the peer.
unsafe extern "C" fn peer(turn: *mut abi::Turn, text: *mut Bytes<'static>) -> u32 {
    // SAFETY: see above.
    let Some(s) = (unsafe { staging(turn) }) else { return status::INVALID };
    let answer = lend(s.peer());
    // SAFETY: see above.
    unsafe { text.write(answer) };
    status::OK
}

/// Stages bytes for the peer, given in `count` parts, as one send.
unsafe extern "C" fn send(turn: *mut abi::Turn, parts: *const Bytes<'_>, count: usize) -> u32 {
    // SAFETY: see above.
    let Some(s) = (unsafe { staging(turn) }) else { return status::INVALID };
    s.send_parts((0..count).map(|i| {
        // SAFETY: the array has `count` items.
        let part = unsafe { parts.add(i) };
        // SAFETY: see above.
        let part = unsafe { *part };
        // SAFETY: see above.
        unsafe { slice(part) }
    }))
}

/// Stages a line for the peer, given without its ending.
unsafe extern "C" fn send_line(turn: *mut abi::Turn, line: Bytes<'_>) -> u32 {
    // SAFETY: see above.
    let (Some(s), line) = (unsafe { staging(turn) }, unsafe { slice(line) }) else { return status::INVALID };
    s.send_line(line)
}

/// Stages the end of the session, with a code and a reason for the peer.
unsafe extern "C" fn close_with(turn: *mut abi::Turn, code: u32, reason: Bytes<'_>) -> u32 {
    // SAFETY: see above.
    unsafe { with_name(turn, reason, |s, reason| s.close_with(code, reason)) }
}

/// Lends a fact about the connection; `ABSENT`: there is none of the name.
unsafe extern "C" fn fact(turn: *mut abi::Turn, name: Bytes<'_>, value: *mut Bytes<'static>) -> u32 {
    let find = |s: &mut Staging<'_>, name: &str| match s.fact(name) {
        Some(found) => {
            // SAFETY: see above.
            unsafe { value.write(lend(found)) };
            status::OK
        }
        None => status::ABSENT,
    };
    // SAFETY: see above.
    unsafe { with_name(turn, name, find) }
}

/// Stages the answer to a request for a page.
unsafe extern "C" fn page(turn: *mut abi::Turn, content_type: Bytes<'_>, page: Bytes<'_>) -> u32 {
    // SAFETY: see above.
    let (content_type, page) = (unsafe { slice(content_type) }, unsafe { slice(page) });
    // SAFETY: see above.
    unsafe { staging(turn) }.map_or(status::INVALID, |s| s.page(content_type, page))
}

/// Stages the end of the session.
unsafe extern "C" fn close(turn: *mut abi::Turn) -> u32 {
    // SAFETY: see above.
    unsafe { staging(turn) }.map_or(status::INVALID, Staging::close)
}

/// Logs an event: in a turn with the batch, else at once. Outside turns any thread may call it,
/// and the limits of a turn do not hold.
unsafe extern "C" fn log(turn: *mut abi::Turn, event: *const abi::level::LogEvent<'_>) {
    // SAFETY: see above.
    let Some(event) = (unsafe { event.as_ref() }) else { return };
    // SAFETY: see above.
    let owned = |b| String::from_utf8_lossy(unsafe { slice(b) });
    let (target, message) = (owned(event.target), owned(event.message));
    // SAFETY: see above.
    match unsafe { staging(turn) } {
        Some(s) => s.log(event.level, &target, &message),
        None => match SERVICE.get() {
            "" => log_at!(event.level, handler = %target, "{message}"),
            service => log_at!(event.level, %service, handler = %target, "{message}"),
        },
    }
}

/// Stages a timer of the session, or of the service.
unsafe extern "C" fn set_timer(turn: *mut abi::Turn, name: Bytes<'_>, after_ns: u64, flags: u32) -> u32 {
    if flags & !abi::TIMER_OF_SERVICE != 0 {
        return status::INVALID;
    }
    // SAFETY: see above.
    unsafe { with_name(turn, name, |s, name| s.set_timer(name, after_ns, flags != 0)) }
}

/// Stages the end of a timer.
unsafe extern "C" fn cancel_timer(turn: *mut abi::Turn, name: Bytes<'_>, flags: u32) -> u32 {
    if flags & !abi::TIMER_OF_SERVICE != 0 {
        return status::INVALID;
    }
    // SAFETY: see above.
    unsafe { with_name(turn, name, |s, name| s.cancel_timer(name, flags != 0)) }
}

/// Stages a job. Writes its number only if that is accepted.
unsafe extern "C" fn start_job(
    turn: *mut abi::Turn,
    name: Bytes<'_>,
    input: Bytes<'_>,
    flags: u32,
    number: *mut u64,
) -> u32 {
    if flags & !abi::JOB_ONCE != 0 {
        return status::INVALID;
    }
    // SAFETY: see above.
    let input = unsafe { slice(input) };
    let start = |s: &mut Staging<'_>, name: &str| match s.start_job(name, input, flags != 0) {
        Ok(started) => {
            // SAFETY: see above.
            unsafe { number.write(started) };
            status::OK
        }
        Err(status) => status,
    };
    // SAFETY: see above.
    unsafe { with_name(turn, name, start) }
}

/// Stages that this session waits for another session's output to drain.
unsafe extern "C" fn wait_for(turn: *mut abi::Turn, session: u64) -> u32 {
    // SAFETY: see above.
    unsafe { staging(turn) }.map_or(status::INVALID, |s| s.wait_for(session))
}

/// Stages that the session's input is held, or released.
unsafe extern "C" fn hold(turn: *mut abi::Turn, on: u32) -> u32 {
    // SAFETY: see above.
    unsafe { staging(turn) }.map_or(status::INVALID, |s| s.hold(on != 0))
}

/// Stages the end of a job.
unsafe extern "C" fn cancel_job(turn: *mut abi::Turn, number: u64) -> u32 {
    // SAFETY: see above.
    unsafe { staging(turn) }.map_or(status::INVALID, |s| s.cancel_job(number))
}
