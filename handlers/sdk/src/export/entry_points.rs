//! Entry points: functions that the host calls, and the tables that lead to them.
//!
//! | function | thread | turns |
//! | --- | --- | --- |
//! | `create`, `destroy` | any | none |
//! | `run_ffi` | one at a time for an instance | one batch |
//! | `page_ffi` | the same | one, of a page |
//! | `convert_ffi` | any | none |
//! | `job_ffi` | a job's own, while turns run | none |
//!
//! Tables are made at the first call and leaked. The ABI says that they are valid until the
//! process ends. So nothing has to track when the host has read them for the last time.
//!
//! Arguments are believed to keep the ABI. Panics of the author's code are caught and become
//! error texts or faults, because nothing may unwind into the host.

use crate::action::{Action, Closed, Job, JobEnd, Started};
use crate::bounds::{HasSchema as _, Settings as _};
use crate::convert::{check, convert, schema_text};
use crate::export::borrowed::{hand_over, slice};
use crate::export::framing::{cut_ffi, encode_ffi, framing_offer, own_framing};
use crate::export::host_calls::HostCalls;
use crate::fault::{self, Fault};
use crate::framing::Endpoint;
use crate::handler::Handler;
use crate::host::Host as _;
use crate::log;
use crate::run::{Session, has_state, retrace, run, run_page, run_service};
use crate::table::Owned;
use crate::telnet::Verb;
use greenroom_state::abi::{self, Bytes, action, closed, connect, job, started};
use std::ffi::c_void;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;

pub use greenroom_state::abi::Library;

/// Table of the library, made at the first call and never freed. A static of each library.
pub struct Once(OnceLock<Leaked>);

/// Pointer to a table that is never freed.
struct Leaked(*const Library);
// SAFETY: the table and all that it points to are never written after they were made, and never
// freed.
unsafe impl Send for Leaked {}
// SAFETY: as above.
unsafe impl Sync for Leaked {}

impl Once {
    /// Table that is not made yet.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Once {
        Once(OnceLock::new())
    }

    /// Returns the table, or null if making it panicked. The host refuses a library that
    /// returns null.
    pub fn get(&self, name: &'static str, services: impl FnOnce() -> Vec<abi::Service>) -> *const Library {
        // Before any code of the author: building schemas and migrations may panic, too.
        fault::install_hook();
        let made = fault::catch(|| {
            let leaked = self.0.get_or_init(|| {
                let services = services().leak();
                Leaked(Box::leak(Box::new(Library {
                    size: size_of::<Library>() as u32,
                    abi_major: abi::MAJOR,
                    abi_minor: abi::MINOR,
                    name: name.into(),
                    services: services.as_ptr(),
                    service_count: services.len() as u32,
                    service_stride: size_of::<abi::Service>() as u32,
                })))
            });
            Ok(leaked.0)
        });
        made.unwrap_or(std::ptr::null())
    }
}

/// Table of one service. Builds schemas and lists of versions, all of them leaked.
pub fn service<H: Handler>() -> abi::Service {
    // An empty schema tells the host that the service keeps no state.
    let schema: &'static str = match has_state::<H>() {
        true => schema_text(H::State::schema(), &H::migrations()).leak(),
        false => "",
    };
    let migrations = H::migrations().versions().leak();
    let downgrades = H::migrations().downgrades().leak();
    let tables: Vec<_> = H::tables().owned.into_iter().map(table).collect();
    let tables = tables.leak();
    let (framing, bytes_max, parameters) = framing_offer(H::FRAMING);
    let endpoints = H::ENDPOINTS.iter().map(endpoint).collect::<Vec<_>>().leak();
    let own = own_framing::<H>().is_some();
    abi::Service {
        size: size_of::<abi::Service>() as u32,
        state_version: H::STATE_VERSION,
        name: H::SERVICE.into(),
        port: H::PORT,
        flags: if H::DIALS { abi::SERVICE_DIALS } else { 0 },
        framing,
        frame_bytes_max: bytes_max,
        migration_count: migrations.len() as u32,
        migrations: migrations.as_ptr(),
        state_schema: schema.into(),
        create: create::<H>,
        destroy: destroy::<H>,
        run: run_ffi::<H>,
        downgrade_count: downgrades.len() as u32,
        table_count: tables.len() as u32,
        downgrades: downgrades.as_ptr(),
        tables: tables.as_ptr(),
        table_stride: size_of::<abi::table::Table>() as u32,
        reserved2: 0,
        convert: Some(convert_ffi::<H>),
        job: Some(job_ffi::<H>),
        framing_parameters: parameters.into(),
        endpoint_count: endpoints.len() as u32,
        endpoint_stride: size_of::<abi::OfferedEndpoint>() as u32,
        endpoints: endpoints.as_ptr(),
        page: Some(page_ffi::<H>),
        cut: own.then_some(cut_ffi::<H>),
        encode: own.then_some(encode_ffi::<H>),
    }
}

/// Table of the ABI for an endpoint beside the service's first one.
fn endpoint(endpoint: &Endpoint) -> abi::OfferedEndpoint {
    let (framing, _, parameters) = framing_offer(endpoint.framing);
    abi::OfferedEndpoint {
        size: size_of::<abi::OfferedEndpoint>() as u32,
        framing,
        framing_parameters: parameters.into(),
        port: endpoint.port,
        flags: 0,
        reserved: 0,
    }
}

/// Table of the ABI for a table that the service owns.
fn table(t: Owned) -> abi::table::Table {
    let (migrations, downgrades) = (t.migrations.versions().leak(), t.migrations.downgrades().leak());
    let schema: &'static str = schema_text((t.schema)(), &t.migrations).leak();
    abi::table::Table {
        size: size_of::<abi::table::Table>() as u32,
        version: t.version,
        name: t.name.into(),
        schema: schema.into(),
        migration_count: migrations.len() as u32,
        downgrade_count: downgrades.len() as u32,
        migrations: migrations.as_ptr(),
        downgrades: downgrades.as_ptr(),
        flags: t.flags(),
        reserved: 0,
    }
}

/// Converts a value: [`abi::Service::convert`]. Needs no instance and no turn, so any thread
/// may call.
unsafe extern "C" fn convert_ffi<H: Handler>(
    which: u32,
    from: u32,
    to: u32,
    value: Bytes<'_>,
    result: abi::Sink,
    error: abi::Sink,
) -> u32 {
    // SAFETY: the value is valid for this call.
    let value = unsafe { slice(value) };
    let converted = fault::catch(|| convert::<H>(which, from, to, value).map_err(Fault::new));
    // SAFETY: the sinks are valid for this call.
    unsafe { hand_over(converted, result, error) }
}

/// Runs a job: [`abi::Service::job`]. Runs on any thread, while turns run.
///
/// Log events of the job go to the host at its end, without a session: the thread has no turn.
unsafe extern "C" fn job_ffi<H: Handler>(
    instance: *const c_void,
    name: Bytes<'_>,
    input: Bytes<'_>,
    cancelled: *const AtomicU32,
    result: abi::Sink,
    error: abi::Sink,
) -> u32 {
    // SAFETY: `instance` is what `create` returned, and `destroy` is not called before this
    // returns.
    let handler = unsafe { &*instance.cast::<H>() };
    // SAFETY: the name is valid for this call.
    let name = String::from_utf8_lossy(unsafe { slice(name) });
    // SAFETY: the input is valid for this call.
    let input = unsafe { slice(input) };
    // SAFETY: the flag is valid for this call.
    let cancelled = unsafe { &*cancelled };
    // SAFETY: the host's table is valid for the whole life of the process.
    let host = HOST.get().map(|KeptHost(host)| unsafe { &**host });
    host.iter().for_each(|host| log::follow(&host.log_level));
    let done = fault::catch(|| handler.job(&Job { name: &name, input, cancelled }));
    if let Some(host) = host {
        let mut calls = HostCalls { host, turn: std::ptr::null_mut() };
        log::take().iter().for_each(|event| calls.log(event));
    }
    // SAFETY: the sinks are valid for this call.
    unsafe { hand_over(done, result, error) }
}

/// Host's table, through which jobs log. Set by the first `create`; all hosts of a process are
/// one.
static HOST: OnceLock<KeptHost> = OnceLock::new();

/// Pointer to the host's table.
struct KeptHost(*const abi::Host);
// SAFETY: only the table's level changes, which is atomic. Its functions may be called from any
// thread where no turn is involved.
unsafe impl Send for KeptHost {}
// SAFETY: as above.
unsafe impl Sync for KeptHost {}

/// Builds an instance: [`abi::Service::create`]. Null if the settings are refused or `new`
/// panics; the reason is in `error` then. The host may call again for another instance with
/// other settings.
unsafe extern "C" fn create<H: Handler>(
    host: *const abi::Host,
    config: Bytes<'_>,
    error: abi::Sink,
) -> *mut c_void {
    // SAFETY: the host's table is valid for the whole life of the process.
    let host = unsafe { &*host };
    log::install(&host.log_level);
    let _ = HOST.set(KeptHost(host));
    // SAFETY: the configuration is valid for this call.
    let config = unsafe { slice(config) };
    let made = fault::catch(|| {
        // First: a build whose steps contradict each other must not get as far as `new`.
        check::<H>().map_err(Fault::new)?;
        let config = H::Config::read(config).map_err(|e| Fault::new(format!("settings: {e}")))?;
        H::new(config).map_err(Fault::new)
    });
    // Events of `new` belong to no turn, and would otherwise appear in the first one.
    let mut calls = HostCalls { host, turn: std::ptr::null_mut() };
    log::take().iter().for_each(|event| calls.log(event));
    match made {
        Ok(handler) => Box::into_raw(Box::new(handler)).cast(),
        Err(fault) => {
            // SAFETY: the sink is valid for this call, and copies the text.
            unsafe { (error.put)(error.ctx, fault.in_words().as_str().into()) };
            std::ptr::null_mut()
        }
    }
}

/// Ends an instance: [`abi::Service::destroy`]. A panic in its drop is caught and forgotten:
/// nobody waits for an answer.
unsafe extern "C" fn destroy<H: Handler>(instance: *mut c_void) {
    let _ = fault::catch(|| {
        // SAFETY: the host passes what `create` returned, once, and no `run` is under way.
        drop(unsafe { Box::from_raw(instance.cast::<H>()) });
        Ok(())
    });
}

/// Runs a batch: [`abi::Service::run`]. Actions are decoded one by one, without a copy of their
/// data.
unsafe extern "C" fn run_ffi<H: Handler>(
    instance: *const c_void,
    host: *const abi::Host,
    turn: *mut abi::Turn,
    batch: *const abi::Batch<'_>,
) -> u32 {
    // SAFETY: `instance` is what `create` returned, and `destroy` was not called.
    let handler = unsafe { &*instance.cast::<H>() };
    // SAFETY: the host's table is valid for the whole life of the process.
    let host = unsafe { &*host };
    // SAFETY: the batch is valid for this call.
    let batch = unsafe { &*batch };
    // SAFETY: the state is valid for this call.
    let state = unsafe { slice(batch.state) };
    let session = Session {
        id: batch.session,
        now_ns: batch.now_ns,
        state: (batch.has_state != 0).then_some((batch.state_version, state)),
    };
    // Such a batch has no other action.
    // SAFETY: the array has an item, which begins with its kind.
    let asks_for_dialogue = batch.action_count == 1 && unsafe { (*batch.actions).kind } == action::DIALOGUE;
    let actions = (0..batch.action_count).map(|i| {
        // SAFETY: the array has `action_count` items, each `action_stride` bytes from the one
        // before.
        let item = unsafe { batch.actions.byte_add(i * batch.action_stride as usize) };
        // SAFETY: an item begins with what this version calls an action.
        let item = unsafe { &*item };
        // SAFETY: the message is valid for this call.
        let data = unsafe { slice(item.data) };
        // Only these kinds use the name and the number of an action.
        if item.kind > action::CLOSED {
            // SAFETY: the host knows these kinds, so its actions have these fields; the name is
            // valid for this call.
            return caused(item.kind, item.detail, item.from, unsafe { slice(item.name) }, data);
        }
        match (item.kind, item.detail) {
            (action::MESSAGE, _) => Action::Message(data),
            (action::CLOSED, closed::PEER) => Action::Closed(Closed::Peer),
            (action::CLOSED, closed::HANDLER) => Action::Closed(Closed::Handler),
            (action::CLOSED, closed::LIMIT) => Action::Closed(Closed::Limit),
            (action::CLOSED, closed::STOPPING) => Action::Closed(Closed::Stopping),
            (action::CLOSED, closed::OPERATOR) => Action::Closed(Closed::Operator),
            // A reason that this version does not know counts as a broken connection.
            (action::CLOSED, _) => Action::Closed(Closed::Broken),
            _ => Action::Opened,
        }
    });
    log::follow(&host.log_level);
    let mut calls = HostCalls { host, turn };
    // Session 0 stands for the service itself.
    match batch.session {
        0 => run_service(handler, batch.now_ns, actions, &mut calls),
        _ if asks_for_dialogue => retrace(handler, session, &mut calls),
        _ => run(handler, session, actions, &mut calls),
    }
}

/// Runs the turn of a page: [`abi::Service::page`].
unsafe extern "C" fn page_ffi<H: Handler>(
    instance: *const c_void,
    host: *const abi::Host,
    turn: *mut abi::Turn,
    path: Bytes<'_>,
) {
    // SAFETY: `instance` is what `create` returned, and `destroy` was not called.
    let handler = unsafe { &*instance.cast::<H>() };
    // SAFETY: the host's table is valid for the whole life of the process.
    let host = unsafe { &*host };
    // SAFETY: the path is valid for this call.
    let path = String::from_utf8_lossy(unsafe { slice(path) });
    log::follow(&host.log_level);
    run_page(handler, &path, &mut HostCalls { host, turn });
}

/// Action that a turn has caused, or a timer. The kind gives `from` its meaning: a session, a
/// job or a connection. Kinds beyond the known ones do not come: the host sends what this ABI
/// version has.
fn caused<'a>(kind: u32, detail: u32, from: u64, name: &'a [u8], data: &'a [u8]) -> Action<'a> {
    // Texts are the host's, or were this library's strings before, so they are UTF-8.
    let text = |bytes| std::str::from_utf8(bytes).unwrap_or_default();
    let sender = (from != 0).then_some(from);
    match (kind, detail) {
        (action::TIMER, _) => Action::Timer(text(name)),
        (action::NOTE, _) => Action::Note { from: sender, bytes: data },
        (action::PUBLISHED, _) => Action::Published { topic: name, from: sender, bytes: data },
        (action::DIALED, _) => Action::Dialed { by: sender, context: data },
        (action::CONNECT, connect::OPEN) => {
            let result = text(data).parse().map_err(|_| "its session has no number");
            Action::Connect { number: from, result }
        }
        (action::CONNECT, _) => Action::Connect { number: from, result: Err(text(data)) },
        (action::NEGOTIATED, option) => {
            let (verb, on) = (data.first().copied().unwrap_or_default(), data.get(1) == Some(&1));
            Action::Negotiated { option: option as u8, verb: Verb::from_byte(verb), on }
        }
        (action::SUBNEGOTIATION, option) => Action::Subnegotiation { option: option as u8, bytes: data },
        (action::TLS_STARTED, _) => Action::TlsStarted,
        (action::WOKEN, _) => Action::Woken,
        (action::IDLE, _) => Action::Idle,
        (action::MISSED, _) => Action::Missed { count: from },
        (action::STARTED, started::HOST) => Action::Started(Started::Host),
        (action::STARTED, _) => Action::Started(Started::Generation),
        (action::EXPIRED, _) => Action::Expired { table: text(name), key: data },
        (action::DATAGRAM, _) => {
            // The host writes an address.
            let parsed = || text(name).parse().unwrap_or((Ipv4Addr::UNSPECIFIED, 0).into());
            Action::Datagram { from: v4_address(name).unwrap_or_else(parsed), bytes: data }
        }
        (_, job::DONE) => Action::Job { number: from, name: text(name), end: JobEnd::Done(data) },
        (_, job::LOST) => Action::Job { number: from, name: text(name), end: JobEnd::Lost(text(data)) },
        _ => Action::Job { number: from, name: text(name), end: JobEnd::Failed(text(data)) },
    }
}

/// Reads an address of IPv4 with its port, as the host writes it; `None`: it is another one. The
/// parser of all addresses would be a quarter of what a datagram costs.
fn v4_address(text: &[u8]) -> Option<SocketAddr> {
    let (mut ip, mut number, mut ends) = (0, 0_u64, 0);
    for byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit < 10 {
            // Wraps in no text that has all its ends, unless it is longer than any address.
            number = number.wrapping_mul(10).wrapping_add(digit.into());
            continue;
        }
        if b"...:".get(ends) != Some(byte) || number > 255 {
            return None;
        }
        (ip, number, ends) = (ip << 8 | number as u32, 0, ends + 1);
    }
    let is_whole = ends == 4 && text.len() <= "255.255.255.255:65535".len();
    let port = u16::try_from(number).ok().filter(|_| is_whole)?;
    Some(SocketAddr::from((Ipv4Addr::from(ip), port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_ipv4_are_read_as_by_the_parser_of_all() {
        for text in ["0.0.0.0:0", "127.0.0.1:9", "255.255.255.255:65535", "10.20.30.4:100"] {
            assert_eq!(v4_address(text.as_bytes()), text.parse().ok(), "{text}");
        }
        for other in [
            "[fe80::1]:53",
            "1.2.3.4",
            "1.2.3:4",
            "1.2.3.256:4",
            "1.2.3.4:65536",
            "1.2.3.4:5:6",
            "1.2.3.4:18446744073709551617",
            "",
        ] {
            assert_eq!(v4_address(other.as_bytes()), None, "{other}");
        }
    }
}
