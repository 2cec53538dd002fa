//! The C ABI of a handler: what [`export!`](crate::export!) makes public. The only unsafe code of the SDK.
//!
//! Every function that the host calls catches panics, and believes what the ABI promises of its arguments.

use crate::convert::{check, convert, schema_text};
use crate::host::Host;
use crate::log::LogEvent;
use crate::run::{Session, has_state, run, run_service};
use crate::table::Owned;
use crate::{Action, ByteOrder, Closed, Fault, Framing, Handler, Job, JobEnd, fault, log};
use greenroom_state::abi::{self, Bytes, action, closed, connect, framing, job, status};
use std::ffi::c_void;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;

pub use greenroom_state::abi::Library;

/// Makes a library of services: the entry function, and the note that describes it.
///
/// Once in a crate, with all of its services: `export!(Echo, Tally);`
#[macro_export]
macro_rules! export {
    ($($service:ty),+ $(,)?) => {
        const _: () = {
            const PARTS: &[&[u8]] = &[
                $crate::export::HEAD,
                concat!("\nentry=greenroom_entry_", env!("CARGO_CRATE_NAME"), "\nlibrary=", env!("CARGO_CRATE_NAME")).as_bytes(),
                if cfg!(panic = "unwind") { b"\npanic=unwind" } else { b"\npanic=abort" },
                $(
                    b"\nservice=", <$service as $crate::Handler>::SERVICE.as_bytes(),
                    b":", &$crate::export::digits(<$service as $crate::Handler>::STATE_VERSION),
                )+
                b"\n",
            ];
            #[used]
            #[unsafe(link_section = ".note.greenroom")]
            static NOTE: $crate::export::Note<{ $crate::export::note_len(PARTS) }> = $crate::export::Note::new(PARTS);
        };

        /// The library's entry, by the name that its note gives.
        #[doc(hidden)]
        #[unsafe(export_name = concat!("greenroom_entry_", env!("CARGO_CRATE_NAME")))]
        pub extern "C" fn greenroom_entry() -> *const $crate::export::Library {
            static LIBRARY: $crate::export::Once = $crate::export::Once::new();
            LIBRARY.get(env!("CARGO_CRATE_NAME"), || vec![$($crate::export::service::<$service>()),+])
        }
    };
}

/// The note's beginning.
#[doc(hidden)]
pub const HEAD: &[u8] = concat!("abi=1.3\nsdk=", env!("CARGO_PKG_VERSION")).as_bytes();
const _: () = assert!(abi::MAJOR == 1 && abi::MINOR == 3, "HEAD names the ABI's version");

/// An ELF note: header, owner, text. Sizes are rounded up to four bytes, as ELF wants.
#[doc(hidden)]
#[repr(C, align(4))]
pub struct Note<const N: usize> {
    owner_len: u32,
    text_len: u32,
    kind: u32,
    owner: [u8; 12],
    text: [u8; N],
}

impl<const N: usize> Note<N> {
    /// Joins the parts.
    pub const fn new(parts: &[&[u8]]) -> Note<N> {
        let (mut text, mut at, mut i) = ([0; N], 0, 0);
        while i < parts.len() {
            let mut k = 0;
            while k < parts[i].len() {
                text[at] = parts[i][k];
                (at, k) = (at + 1, k + 1);
            }
            i += 1;
        }
        let mut owner = [0; 12];
        let mut k = 0;
        while k < greenroom_state::elf_note::OWNER.len() {
            owner[k] = greenroom_state::elf_note::OWNER[k];
            k += 1;
        }
        Note {
            owner_len: greenroom_state::elf_note::OWNER.len() as u32,
            text_len: N as u32,
            kind: greenroom_state::elf_note::TYPE,
            owner,
            text,
        }
    }
}

/// The length of the parts together, rounded up.
#[doc(hidden)]
pub const fn note_len(parts: &[&[u8]]) -> usize {
    let (mut len, mut i) = (0usize, 0);
    while i < parts.len() {
        len += parts[i].len();
        i += 1;
    }
    len.next_multiple_of(4)
}

/// A number in ten decimal digits.
#[doc(hidden)]
pub const fn digits(mut n: u32) -> [u8; 10] {
    let (mut text, mut i) = ([b'0'; 10], 10);
    while n > 0 {
        i -= 1;
        text[i] = b'0' + (n % 10) as u8;
        n /= 10;
    }
    text
}

/// The library's table, made at the first call and never freed.
#[doc(hidden)]
pub struct Once(OnceLock<Leaked>);

struct Leaked(*const Library);
// SAFETY: the table and all that it points to are never written after they were made, and never freed.
unsafe impl Send for Leaked {}
// SAFETY: as above.
unsafe impl Sync for Leaked {}

impl Once {
    /// Not made yet.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Once {
        Once(OnceLock::new())
    }

    /// The table; null if making it panicked.
    pub fn get(&self, name: &'static str, services: impl FnOnce() -> Vec<abi::Service>) -> *const Library {
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

/// The table of one service.
#[doc(hidden)]
pub fn service<H: Handler>() -> abi::Service {
    let schema: &'static str = match has_state::<H>() {
        true => schema_text(schemars::schema_for!(H::State).to_value(), &H::migrations()).leak(),
        false => "",
    };
    let migrations = H::migrations().versions().leak();
    let downgrades = H::migrations().downgrades().leak();
    let tables: Vec<_> = H::tables().owned.into_iter().map(table).collect();
    let tables = tables.leak();
    let (framing, bytes_max, parameters) = framing_offer(H::FRAMING);
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
        table_stride: size_of::<abi::Table>() as u32,
        reserved2: 0,
        convert: Some(convert_ffi::<H>),
        job: Some(job_ffi::<H>),
        framing_parameters: parameters.into(),
    }
}

/// Number, longest message and parameters of a framing, as the ABI has them.
fn framing_offer(framing: Framing) -> (u32, u32, &'static [u8]) {
    match framing {
        Framing::Lines { bytes_max } => (framing::LINES, bytes_max, &[]),
        Framing::Raw { bytes_max } => (framing::RAW, bytes_max, &[]),
        Framing::LengthPrefix { width, order, bytes_max } => {
            let parameters = vec![width, u8::from(order == ByteOrder::Little)];
            (framing::LENGTH_PREFIX, bytes_max, parameters.leak())
        }
        Framing::Delimiter { delimiter, bytes_max } => (framing::DELIMITER, bytes_max, delimiter),
        Framing::Telnet { bytes_max } => (framing::TELNET, bytes_max, &[]),
    }
}

fn table(t: Owned) -> abi::Table {
    let (migrations, downgrades) = (t.migrations.versions().leak(), t.migrations.downgrades().leak());
    let schema: &'static str = schema_text((t.schema)(), &t.migrations).leak();
    abi::Table {
        size: size_of::<abi::Table>() as u32,
        version: t.version,
        name: t.name.into(),
        schema: schema.into(),
        migration_count: migrations.len() as u32,
        downgrade_count: downgrades.len() as u32,
        migrations: migrations.as_ptr(),
        downgrades: downgrades.as_ptr(),
    }
}

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

unsafe extern "C" fn job_ffi<H: Handler>(
    instance: *const c_void,
    name: Bytes<'_>,
    input: Bytes<'_>,
    cancelled: *const AtomicU32,
    result: abi::Sink,
    error: abi::Sink,
) -> u32 {
    // SAFETY: `instance` is what `create` returned, and `destroy` is not called before this returns.
    let handler = unsafe { &*instance.cast::<H>() };
    // SAFETY: the name is valid for this call.
    let name = String::from_utf8_lossy(unsafe { slice(name) });
    // SAFETY: the input is valid for this call.
    let input = unsafe { slice(input) };
    // SAFETY: the flag is valid for this call.
    let cancelled = unsafe { &*cancelled };
    let done = fault::catch(|| handler.job(&Job { name: &name, input, cancelled }));
    if let Some(KeptHost(host)) = HOST.get() {
        // SAFETY: the host's table is valid for the whole life of the process.
        let host = unsafe { &**host };
        let mut calls = HostCalls { host, turn: std::ptr::null_mut() };
        log::take().iter().for_each(|event| calls.log(event));
    }
    // SAFETY: the sinks are valid for this call.
    unsafe { hand_over(done, result, error) }
}

/// Puts a result, or the reason why there is none, where it is wanted.
///
/// # Safety
/// The sinks are valid.
unsafe fn hand_over(outcome: Result<Vec<u8>, Fault>, result: abi::Sink, error: abi::Sink) -> u32 {
    match outcome {
        Ok(bytes) => {
            // SAFETY: the caller's promise; it copies the bytes.
            unsafe { (result.put)(result.ctx, bytes.as_slice().into()) };
            0
        }
        Err(fault) => {
            // SAFETY: the caller's promise; it copies the text.
            unsafe { (error.put)(error.ctx, fault.in_words().as_str().into()) };
            1
        }
    }
}

/// Borrows what the host passed.
///
/// # Safety
/// `b` describes readable bytes that live and don't change for `'a`, or is empty.
unsafe fn slice<'a>(b: Bytes<'_>) -> &'a [u8] {
    if b.len == 0 {
        return &[];
    }
    // SAFETY: the caller's promise; an empty one, whose pointer may be null, was dealt with.
    unsafe { std::slice::from_raw_parts(b.ptr, b.len) }
}

/// The host's table, for what jobs log.
static HOST: OnceLock<KeptHost> = OnceLock::new();

struct KeptHost(*const abi::Host);
// SAFETY: the table never changes, and its functions may be called from any thread where no turn is involved.
unsafe impl Send for KeptHost {}
// SAFETY: as above.
unsafe impl Sync for KeptHost {}

unsafe extern "C" fn create<H: Handler>(
    host: *const abi::Host,
    config: Bytes<'_>,
    error: abi::Sink,
) -> *mut c_void {
    // SAFETY: the host's table is valid for the whole life of the process.
    let host = unsafe { &*host };
    log::install(host.log_level);
    let _ = HOST.set(KeptHost(host));
    // SAFETY: the configuration is valid for this call.
    let config = unsafe { slice(config) };
    let made = fault::catch(|| {
        check::<H>().map_err(Fault::new)?;
        let config = serde_json::from_slice(config).map_err(|e| Fault::new(format!("settings: {e}")))?;
        H::new(config).map_err(Fault::new)
    });
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

unsafe extern "C" fn destroy<H: Handler>(instance: *mut c_void) {
    let _ = fault::catch(|| {
        // SAFETY: the host passes what `create` returned, once, and no `run` is under way.
        drop(unsafe { Box::from_raw(instance.cast::<H>()) });
        Ok(())
    });
}

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
    let actions = (0..batch.action_count).map(|i| {
        // SAFETY: the array has `action_count` items, each `action_stride` bytes from the one before.
        let item = unsafe { batch.actions.byte_add(i * batch.action_stride as usize) };
        // SAFETY: an item begins with what this version calls an action.
        let item = unsafe { &*item };
        // SAFETY: the message is valid for this call.
        let data = unsafe { slice(item.data) };
        if item.kind > action::CLOSED {
            // SAFETY: the host knows these kinds, so its actions have these fields; the name is valid for this call.
            return caused(item.kind, item.detail, item.from, unsafe { slice(item.name) }, data);
        }
        match (item.kind, item.detail) {
            (action::MESSAGE, _) => Action::Message(data),
            (action::CLOSED, closed::PEER) => Action::Closed(Closed::Peer),
            (action::CLOSED, closed::HANDLER) => Action::Closed(Closed::Handler),
            (action::CLOSED, closed::LIMIT) => Action::Closed(Closed::Limit),
            (action::CLOSED, closed::STOPPING) => Action::Closed(Closed::Stopping),
            (action::CLOSED, closed::OPERATOR) => Action::Closed(Closed::Operator),
            (action::CLOSED, _) => Action::Closed(Closed::Broken),
            _ => Action::Opened,
        }
    });
    let mut calls = HostCalls { host, turn };
    match batch.session {
        0 => run_service(handler, batch.now_ns, actions, &mut calls),
        _ => run(handler, session, actions, &mut calls),
    }
}

/// An action that a turn has caused, or a timer.
fn caused<'a>(kind: u32, detail: u32, from: u64, name: &'a [u8], data: &'a [u8]) -> Action<'a> {
    // Both are the host's, or were this library's strings before.
    let text = |bytes| std::str::from_utf8(bytes).unwrap_or_default();
    let sender = (from != 0).then_some(from);
    match (kind, detail) {
        (action::TIMER, _) => Action::Timer(text(name)),
        (action::NOTE, _) => Action::Note { from: sender, bytes: data },
        (action::PUBLISHED, _) => Action::Published { topic: text(name), from: sender, bytes: data },
        (action::DIALED, _) => Action::Dialed { by: sender, context: data },
        (action::CONNECT, connect::OPEN) => {
            let result = text(data).parse().map_err(|_| "its session has no number");
            Action::Connect { number: from, result }
        }
        (action::CONNECT, _) => Action::Connect { number: from, result: Err(text(data)) },
        (_, job::DONE) => Action::Job { number: from, name: text(name), end: JobEnd::Done(data) },
        (_, job::LOST) => Action::Job { number: from, name: text(name), end: JobEnd::Lost(text(data)) },
        _ => Action::Job { number: from, name: text(name), end: JobEnd::Failed(text(data)) },
    }
}

/// The host's table in safe words.
struct HostCalls<'a> {
    host: &'a abi::Host,
    /// Null outside a turn, where only logging is allowed.
    turn: *mut abi::Turn,
}

// SAFETY (of each block below): `turn` is what the host passed to the run under way; what is passed is valid for the call;
// what comes back is valid until the next call, and is copied before that.
impl Host for HostCalls<'_> {
    #[inline]
    fn turn_ok(&mut self) -> bool {
        // SAFETY: as above the impl.
        unsafe { (self.host.turn_ok)(self.turn) == 1 }
    }

    fn turn_failed(&mut self, fault: &Fault) {
        let fault = abi::Fault {
            size: size_of::<abi::Fault<'_>>() as u32,
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

    fn peer(&mut self) -> String {
        let mut text = Bytes::EMPTY;
        // SAFETY: as above the impl.
        unsafe { (self.host.peer)(self.turn, &mut text) };
        // SAFETY: as above the impl.
        String::from_utf8_lossy(unsafe { slice(text) }).into_owned()
    }

    #[inline]
    fn send(&mut self, first: &[u8], second: &[u8]) -> u32 {
        let parts = [Bytes::from(first), Bytes::from(second)];
        // SAFETY: as above the impl.
        unsafe { (self.host.send)(self.turn, parts.as_ptr(), if second.is_empty() { 1 } else { 2 }) }
    }

    fn close(&mut self) -> u32 {
        // SAFETY: as above the impl.
        unsafe { (self.host.close)(self.turn) }
    }

    fn subscribe(&mut self, topic: &str) -> u32 {
        // SAFETY: as above the impl.
        unsafe { (self.host.subscribe)(self.turn, topic.into()) }
    }

    fn unsubscribe(&mut self, topic: &str) -> u32 {
        // SAFETY: as above the impl.
        unsafe { (self.host.unsubscribe)(self.turn, topic.into()) }
    }

    fn broadcast(&mut self, topic: &str, data: &[u8], flags: u32) -> u32 {
        // SAFETY: as above the impl.
        unsafe { (self.host.broadcast)(self.turn, topic.into(), data.into(), flags) }
    }

    fn table_get(&mut self, table: &str, key: &[u8]) -> Option<Vec<u8>> {
        let mut value = Bytes::EMPTY;
        // SAFETY: as above the impl.
        let status = unsafe { (self.host.table_get)(self.turn, table.into(), key.into(), &mut value) };
        // SAFETY: as above the impl.
        (status == status::OK).then(|| unsafe { slice(value) }.to_vec())
    }

    fn table_put(&mut self, table: &str, key: &[u8], value: &[u8]) -> u32 {
        // SAFETY: as above the impl.
        unsafe { (self.host.table_put)(self.turn, table.into(), key.into(), value.into()) }
    }

    fn table_delete(&mut self, table: &str, key: &[u8]) -> u32 {
        // SAFETY: as above the impl.
        unsafe { (self.host.table_delete)(self.turn, table.into(), key.into()) }
    }

    fn table_next(&mut self, table: &str, prefix: &[u8], from: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        let (mut key, mut value) = (Bytes::EMPTY, Bytes::EMPTY);
        let (t, p, f) = (table.into(), prefix.into(), from.into());
        // SAFETY: as above the impl.
        let status = unsafe { (self.host.table_next)(self.turn, t, p, f, &mut key, &mut value) };
        if status != status::OK {
            return None;
        }
        // SAFETY: as above the impl.
        let key = unsafe { slice(key) }.to_vec();
        // SAFETY: as above the impl.
        Some((key, unsafe { slice(value) }.to_vec()))
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

    fn publish(&mut self, topic: &str, data: &[u8], flags: u32) -> u32 {
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

    fn wait_for(&mut self, session: u64) -> u32 {
        // SAFETY: as above the impl.
        unsafe { (self.host.wait_for)(self.turn, session) }
    }

    fn hold(&mut self, on: bool) -> u32 {
        // SAFETY: as above the impl.
        unsafe { (self.host.hold)(self.turn, u32::from(on)) }
    }

    fn cancel_job(&mut self, number: u64) -> u32 {
        // SAFETY: as above the impl.
        unsafe { (self.host.cancel_job)(self.turn, number) }
    }

    fn log(&mut self, event: &LogEvent) {
        let event = abi::LogEvent {
            size: size_of::<abi::LogEvent<'_>>() as u32,
            level: event.level,
            target: event.target.into(),
            message: event.message.as_str().into(),
        };
        // SAFETY: as above the impl.
        unsafe { (self.host.log)(self.turn, &event) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn framings_have_their_numbers_and_parameters() {
        for (framing, expected) in [
            (Framing::Lines { bytes_max: 9 }, (1, 9, &b""[..])),
            (Framing::Raw { bytes_max: 9 }, (2, 9, b"")),
            (Framing::LengthPrefix { width: 2, order: ByteOrder::Big, bytes_max: 9 }, (3, 9, &[2, 0])),
            (Framing::LengthPrefix { width: 4, order: ByteOrder::Little, bytes_max: 9 }, (3, 9, &[4, 1])),
            (Framing::Delimiter { delimiter: b"\r\n.\r\n", bytes_max: 9 }, (4, 9, b"\r\n.\r\n")),
            (Framing::Telnet { bytes_max: 9 }, (5, 9, b"")),
        ] {
            assert_eq!(framing_offer(framing), expected, "{framing:?}");
        }
    }
}
