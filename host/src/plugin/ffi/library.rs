//! The host's side of the C ABI: loads a library, reads its tables, runs its code. The only unsafe code towards handlers.
//!
//! What is believed: that a library which carries the note keeps the ABI, as a child process has seen it do. What isn't:
//! sizes, counts and texts in its tables, which are checked once, here.

use crate::memory::board::{self, Board};
use greenroom_core::framing::Framing;
use greenroom_core::ids::told;
use greenroom_core::service::offer::{Offer, Serving};
use greenroom_core::turn::code::{Batch, Code, Work};
use greenroom_core::turn::fault::Fault;
use greenroom_core::turn::staging::Staging;
use greenroom_state::abi::{self, Bytes, status};
use greenroom_state::compatibility::{StateShape, TableShape};
use greenroom_state::elf_note::is_name;
use greenroom_state::schema::Schema;
use libloading::os::unix::{Library as Loader, RTLD_LOCAL, RTLD_NOW};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::path::Path;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, OnceLock};

/// A loaded library. Never unloaded: a Rust library that has touched a thread-local can't be.
#[derive(Clone, Copy)]
pub struct Library {
    table: &'static abi::Library,
}

// SAFETY: the ABI says that a library's tables never change and live as long as the process.
unsafe impl Send for Library {}

/// One service's code with the instance that was built for it.
struct Plugin {
    instance: Arc<Instance>,
    abi_minor: u16,
    board: Board,
}

/// An instance. Jobs share it, and may outlive the build's turns.
struct Instance {
    service: &'static abi::Service,
    made: *mut c_void,
}

/// What the host's functions get back as the turn.
struct Running<'s, 'a> {
    staging: &'s mut Staging<'a>,
    board: Board,
}

// SAFETY: the ABI says that an instance never changes, and may be used from a thread after it was made on another.
unsafe impl Send for Instance {}
// SAFETY: the ABI says that jobs may run while a turn does; turns run on one thread, as a plugin isn't shared.
unsafe impl Sync for Instance {}

/// What a library's name and services are, for the core and for the host.
pub type Offers = (String, Vec<Offer>);

impl Library {
    /// Loads a library and calls the entry that its note names. All symbols are resolved now, not at their first call.
    pub fn load(path: &Path, entry: &str) -> Result<Library, String> {
        // SAFETY: initialisers run here; a child process has survived them.
        let loaded = unsafe { Loader::open(Some(path), RTLD_NOW | RTLD_LOCAL) };
        let loader = loaded.map_err(|e| format!("it can't be loaded: {}", loader_text(&e)))?;
        // SAFETY: the note says that this symbol is an entry of this ABI version.
        let found = unsafe { loader.get::<abi::Entry>(entry.as_bytes()) };
        let entry =
            *found.map_err(|_| format!("it does not export {entry}, which its note names as its entry"))?;
        std::mem::forget(loader);
        Library::from_entry(entry)
    }

    /// A library whose entry is at hand: loaded, or linked into a test.
    pub fn from_entry(entry: abi::Entry) -> Result<Library, String> {
        // SAFETY: an entry has no preconditions.
        let table = unsafe { entry() };
        // SAFETY: it is null or points to a table that lives as long as the process.
        let table = unsafe { table.as_ref() }.ok_or("its entry returned no table")?;
        if (table.size as usize) < size_of::<abi::Library>()
            || (table.service_stride as usize) < abi::SERVICE_SIZE_1_0
            || !(table.service_stride as usize).is_multiple_of(align_of::<abi::Service>())
        {
            return Err("its tables are smaller than those of its ABI version".into());
        }
        if table.abi_major != abi::MAJOR || table.abi_minor > abi::MINOR {
            return Err(format!("its table says ABI {}.{}", table.abi_major, table.abi_minor));
        }
        Ok(Library { table })
    }

    /// Each as this version has it: what an older one lacks is empty.
    fn services(self) -> impl Iterator<Item = &'static abi::Service> {
        let Library { table } = self;
        (0..table.service_count as usize).map(move |i| {
            // SAFETY: the array has `service_count` items, each `service_stride` bytes from the one before.
            let item = unsafe { table.services.byte_add(i * table.service_stride as usize) };
            // SAFETY: every version's service begins with its size.
            let size = unsafe { item.cast::<u32>().read() } as usize;
            let size = size.min(table.service_stride as usize);
            if size >= size_of::<abi::Service>() {
                // SAFETY: an item of this size begins with what this version calls a service, and lives as long as the process.
                return unsafe { &*item };
            }
            let mut whole = MaybeUninit::<abi::Service>::zeroed();
            let len = size.max(abi::SERVICE_SIZE_1_0);
            // SAFETY: both have so many bytes; a service's are plain, and zeros are none of what 1.1 added.
            unsafe { whole.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(item.cast::<u8>(), len) };
            // SAFETY: the fields of 1.0 were copied, and the rest may be zero.
            Box::leak(Box::new(unsafe { whole.assume_init() }))
        })
    }

    /// The library's name and what it offers.
    pub fn offers(self) -> Result<Offers, String> {
        let name = text(self.table.name).filter(|n| is_name(n)).ok_or("its name is unusable")?;
        let offers = self.services().map(offer).collect::<Result<Vec<_>, _>>()?;
        if offers.is_empty() {
            return Err("it offers no service".into());
        }
        Ok((name.to_owned(), offers))
    }

    /// Builds an instance of each service from its settings (JSON). What runs is noted on the board.
    pub fn create(
        self,
        settings: &BTreeMap<String, String>,
        log_level: u32,
        board: Board,
    ) -> Result<Serving, String> {
        let mut made = Serving::new();
        for service in self.services() {
            let offer = offer(service)?;
            let config = settings.get(&offer.name).map_or("{}", String::as_str);
            let plugin = Plugin::create(service, self.table.abi_minor, config, log_level, board)
                .map_err(|e| format!("service {}: {e}", offer.name))?;
            made.push((offer, Box::new(plugin)));
        }
        Ok(made)
    }
}

/// The loader's own words, without the path of a copy that no operator knows.
fn loader_text(e: &libloading::Error) -> String {
    let text = std::error::Error::source(e).map_or_else(|| e.to_string(), ToString::to_string);
    match text.split_once(".so: ") {
        Some((_, why)) => why.to_owned(),
        None => text,
    }
}

fn text(b: Bytes<'static>) -> Option<&'static str> {
    // SAFETY: a table's texts live as long as the process.
    std::str::from_utf8(unsafe { slice(b) }).ok()
}

fn offer(service: &abi::Service) -> Result<Offer, String> {
    let name = text(service.name).filter(|n| is_name(n)).ok_or("a service's name is unusable")?.to_owned();
    let framing = framing(service).map_err(|e| format!("service {name}: {e}"))?;
    let schema =
        schema(service.state_schema).map_err(|e| format!("service {name}: its state schema: {e}"))?;
    if schema.is_some() && service.state_version == 0 {
        return Err(format!("service {name}: STATE_VERSION is 0; versions count from 1"));
    }
    let shape = StateShape {
        version: service.state_version,
        schema,
        migrations: numbers(service.migrations, service.migration_count),
        downgrades: numbers(service.downgrades, service.downgrade_count),
    };
    let tables = (0..service.table_count as usize).map(|i| {
        if (service.table_stride as usize) < size_of::<abi::Table>() {
            return Err(format!("service {name}: its tables are smaller than those of its ABI version"));
        }
        // SAFETY: the array has `table_count` items, each `table_stride` bytes from the one before.
        let item = unsafe { service.tables.byte_add(i * service.table_stride as usize) };
        // SAFETY: an item begins with what this version calls a table, and lives as long as the process.
        table(unsafe { &*item }).map_err(|e| format!("service {name}: {e}"))
    });
    let tables = tables.collect::<Result<Vec<_>, _>>()?;
    let dials = service.flags & abi::SERVICE_DIALS != 0;
    Ok(Offer { name, port: service.port, dials, framing, shape, tables })
}

fn framing(service: &abi::Service) -> Result<Framing, String> {
    let parameters = service.framing_parameters;
    let max = abi::FRAMING_PARAMETERS_MAX;
    if parameters.len > max || (parameters.ptr.is_null() && parameters.len > 0) {
        let len = parameters.len;
        return Err(format!("its framing's parameters are unusable: {len} bytes, of at most {max}"));
    }
    // SAFETY: a table's bytes live as long as the process, and so few of them are believed.
    let parameters = unsafe { slice(parameters) };
    Framing::offered(service.framing, service.frame_bytes_max, parameters)
}

fn table(table: &abi::Table) -> Result<TableShape, String> {
    let name = text(table.name).filter(|n| is_name(n)).ok_or("a table's name is unusable")?.to_owned();
    let schema = schema(table.schema).map_err(|e| format!("table {name}: its schema: {e}"))?;
    if schema.is_none() || table.version == 0 {
        return Err(format!("table {name}: it needs a schema, and a version from 1"));
    }
    let shape = StateShape {
        version: table.version,
        schema,
        migrations: numbers(table.migrations, table.migration_count),
        downgrades: numbers(table.downgrades, table.downgrade_count),
    };
    Ok(TableShape { name, shape })
}

fn schema(bytes: Bytes<'static>) -> Result<Option<Schema>, String> {
    match text(bytes) {
        Some("") => Ok(None),
        Some(json) => Schema::parse(json).map(Some).map_err(|e| e.to_string()),
        None => Err("it is not UTF-8".into()),
    }
}

/// An array of a library's tables.
fn numbers(first: *const u32, count: u32) -> Vec<u32> {
    match count {
        0 => Vec::new(),
        // SAFETY: the array has `count` numbers and lives as long as the process.
        n => unsafe { std::slice::from_raw_parts(first, n as usize) }.to_vec(),
    }
}

impl Plugin {
    fn create(
        service: &'static abi::Service,
        abi_minor: u16,
        config: &str,
        log_level: u32,
        board: Board,
    ) -> Result<Plugin, String> {
        let mut message = Vec::new();
        let sink = sink(&mut message);
        // SAFETY: the arguments are valid for the call.
        let made = unsafe { (service.create)(host_table(log_level), config.into(), sink) };
        match made.is_null() {
            false => Ok(Plugin { instance: Arc::new(Instance { service, made }), abi_minor, board }),
            true if message.is_empty() => Err("it was refused without a reason".into()),
            true => Err(String::from_utf8_lossy(&message).into_owned()),
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // SAFETY: `create` made it, and it is not used after this.
        unsafe { (self.service.destroy)(self.made) }
    }
}

impl Work for Instance {
    fn run(&self, name: &str, input: &[u8], cancelled: &AtomicU32) -> Result<Vec<u8>, String> {
        let job = self.service.job.ok_or("this build has no jobs: it is of ABI 1.1")?;
        let (mut result, mut error) = (Vec::new(), Vec::new());
        let (to_result, to_error) = (sink(&mut result), sink(&mut error));
        // SAFETY: the instance is alive, and the arguments are valid for the call.
        match unsafe { job(self.made, name.into(), input.into(), cancelled, to_result, to_error) } {
            0 => Ok(result),
            _ => Err(String::from_utf8_lossy(&error).into_owned()),
        }
    }
}

impl Code for Plugin {
    #[inline]
    fn run(&self, batch: &Batch<'_>, staging: &mut Staging<'_>) -> u32 {
        if batch.actions.first().is_some_and(|a| !self.knows(a.kind)) {
            // It would take it for another one.
            let message =
                "it was built for ABI 1.1, and knows no timers, notes, published messages or jobs".into();
            staging.turn_failed(Fault { kind: abi::fault::ERROR, message, file: String::new(), line: 0 });
            return 0;
        }
        let Instance { service, made } = &*self.instance;
        let (state_version, state) = batch.state.unwrap_or((0, &[]));
        let raw = abi::Batch {
            size: size_of::<abi::Batch<'_>>() as u32,
            state_version,
            has_state: u32::from(batch.state.is_some()),
            action_stride: size_of::<abi::Action<'_>>() as u32,
            actions: batch.actions.as_ptr(),
            action_count: batch.actions.len(),
            state: state.into(),
            session: told(batch.session),
            now_ns: batch.now_ns,
        };
        let first = board::Running {
            service: batch.service.0,
            generation: batch.generation,
            session: batch.session,
            turn: batch.turn,
            action: batch.actions.first().map_or(0, |a| a.kind),
        };
        self.board.begin(first, batch.actions.len());
        let mut running = Running { staging, board: self.board };
        let turn = (&raw mut running).cast::<abi::Turn>();
        // SAFETY: the instance is alive; the batch and the staging area are valid until the call returns, and the
        // functions in the host's table are the only ones that use the latter meanwhile.
        let flags = unsafe { (service.run)(*made, host_table(0), turn, &raw) };
        self.board.end();
        flags
    }

    fn knows(&self, kind: u32) -> bool {
        self.abi_minor >= 2 || kind <= abi::action::CLOSED
    }

    fn work(&self) -> Option<Arc<dyn Work>> {
        self.instance.service.job.is_some().then(|| self.instance.clone() as Arc<dyn Work>)
    }

    fn convert(&self, which: u32, from: u32, to: u32, value: &[u8]) -> Result<Vec<u8>, String> {
        let convert = self.instance.service.convert.ok_or("this build converts nothing: it is of ABI 1.0")?;
        let (mut result, mut error) = (Vec::new(), Vec::new());
        let (to_result, to_error) = (sink(&mut result), sink(&mut error));
        // SAFETY: the arguments are valid for the call.
        match unsafe { convert(which, from, to, value.into(), to_result, to_error) } {
            0 => Ok(result),
            _ => Err(String::from_utf8_lossy(&error).into_owned()),
        }
    }
}

/// Where a library puts bytes; to be used while `into` lives and nobody else touches it.
fn sink(into: &mut Vec<u8>) -> abi::Sink {
    unsafe extern "C" fn put(ctx: *mut c_void, bytes: Bytes<'_>) {
        // SAFETY: `ctx` is the buffer that the sink was made of, and only this call has it.
        let into = unsafe { &mut *ctx.cast::<Vec<u8>>() };
        // SAFETY: the bytes are valid for this call.
        *into = unsafe { slice(bytes) }.to_vec();
    }
    abi::Sink { ctx: (into as *mut Vec<u8>).cast(), put }
}

/// The host's table; the level counts at the first call.
fn host_table(log_level: u32) -> &'static abi::Host {
    static TABLE: OnceLock<abi::Host> = OnceLock::new();
    TABLE.get_or_init(|| abi::Host {
        size: size_of::<abi::Host>() as u32,
        log_level,
        turn_ok,
        turn_failed,
        state,
        peer,
        send,
        close,
        subscribe,
        unsubscribe,
        broadcast,
        table_get,
        table_put,
        table_delete,
        table_next,
        log,
        table_len,
        set_timer,
        cancel_timer,
        note,
        publish,
        start_job,
        cancel_job,
        connect,
        wait_for,
        hold,
    })
}

/// Borrows what a library passed.
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

/// The staging area behind a turn.
///
/// # Safety
/// As for [`running`].
unsafe fn staging<'a>(turn: *mut abi::Turn) -> Option<&'a mut Staging<'a>> {
    // SAFETY: the caller's promise.
    unsafe { running(turn) }.map(|r| &mut *r.staging)
}

/// What is behind a turn.
///
/// # Safety
/// `turn` is what [`Plugin::run`] passed to the run under way, or null.
unsafe fn running<'a>(turn: *mut abi::Turn) -> Option<&'a mut Running<'a, 'a>> {
    // SAFETY: the caller's promise; one thread runs the turn, so nobody else holds a reference.
    unsafe { turn.cast::<Running<'a, 'a>>().as_mut() }
}

// Each of these gets, by the ABI, the turn of the run under way and arguments that are valid for the call.

unsafe extern "C" fn turn_ok(turn: *mut abi::Turn) -> u32 {
    // SAFETY: see above.
    unsafe { running(turn) }.map_or(0, |r| {
        r.board.step();
        u32::from(r.staging.turn_ok())
    })
}

unsafe extern "C" fn turn_failed(turn: *mut abi::Turn, fault: *const abi::Fault<'_>) {
    // SAFETY: see above.
    let (Some(s), Some(f)) = (unsafe { staging(turn) }, unsafe { fault.as_ref() }) else { return };
    // SAFETY: see above.
    let owned = |b| String::from_utf8_lossy(unsafe { slice(b) }).into_owned();
    s.turn_failed(Fault { kind: f.kind, message: owned(f.message), file: owned(f.file), line: f.line });
}

unsafe extern "C" fn state(turn: *mut abi::Turn, state: Bytes<'_>) {
    // SAFETY: see above.
    let (Some(s), bytes) = (unsafe { staging(turn) }, unsafe { slice(state) }) else { return };
    s.state(bytes);
}

unsafe extern "C" fn peer(turn: *mut abi::Turn, text: *mut Bytes<'static>) -> u32 {
    // SAFETY: see above.
    let Some(s) = (unsafe { staging(turn) }) else { return status::INVALID };
    let answer = lend(s.peer());
    // SAFETY: see above.
    unsafe { text.write(answer) };
    status::OK
}

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

unsafe extern "C" fn close(turn: *mut abi::Turn) -> u32 {
    // SAFETY: see above.
    unsafe { staging(turn) }.map_or(status::INVALID, Staging::close)
}

unsafe extern "C" fn subscribe(turn: *mut abi::Turn, topic: Bytes<'_>) -> u32 {
    // SAFETY: see above.
    unsafe { with_name(turn, topic, |s, topic| s.subscribe(topic)) }
}

unsafe extern "C" fn unsubscribe(turn: *mut abi::Turn, topic: Bytes<'_>) -> u32 {
    // SAFETY: see above.
    unsafe { with_name(turn, topic, |s, topic| s.unsubscribe(topic)) }
}

unsafe extern "C" fn broadcast(turn: *mut abi::Turn, topic: Bytes<'_>, data: Bytes<'_>, flags: u32) -> u32 {
    if flags & !abi::BROADCAST_OTHERS != 0 {
        return status::INVALID;
    }
    // SAFETY: see above.
    let data = unsafe { slice(data) };
    // SAFETY: see above.
    unsafe { with_name(turn, topic, |s, topic| s.broadcast(topic, data, flags != 0)) }
}

unsafe extern "C" fn table_get(
    turn: *mut abi::Turn,
    table: Bytes<'_>,
    key: Bytes<'_>,
    value: *mut Bytes<'static>,
) -> u32 {
    // SAFETY: see above.
    let key = unsafe { slice(key) };
    let read = |s: &mut Staging<'_>, table: &str| match s.table_get(table, key) {
        Some(found) => {
            // SAFETY: see above.
            unsafe { value.write(lend(found)) };
            status::OK
        }
        None => status::ABSENT,
    };
    // SAFETY: see above.
    unsafe { with_name(turn, table, read) }
}

unsafe extern "C" fn table_put(
    turn: *mut abi::Turn,
    table: Bytes<'_>,
    key: Bytes<'_>,
    value: Bytes<'_>,
) -> u32 {
    // SAFETY: see above.
    let key = unsafe { slice(key) };
    // SAFETY: see above.
    let value = unsafe { slice(value) };
    // SAFETY: see above.
    unsafe { with_name(turn, table, |s, table| s.table_put(table, key, value)) }
}

unsafe extern "C" fn table_delete(turn: *mut abi::Turn, table: Bytes<'_>, key: Bytes<'_>) -> u32 {
    // SAFETY: see above.
    let key = unsafe { slice(key) };
    // SAFETY: see above.
    unsafe { with_name(turn, table, |s, table| s.table_delete(table, key)) }
}

unsafe extern "C" fn table_next(
    turn: *mut abi::Turn,
    table: Bytes<'_>,
    prefix: Bytes<'_>,
    from: Bytes<'_>,
    key: *mut Bytes<'static>,
    value: *mut Bytes<'static>,
) -> u32 {
    // SAFETY: see above.
    let prefix = unsafe { slice(prefix) };
    // SAFETY: see above.
    let from = unsafe { slice(from) };
    let read = |s: &mut Staging<'_>, table: &str| match s.table_next(table, prefix, from) {
        Some((k, v)) => {
            // SAFETY: see above.
            unsafe { key.write(lend(k)) };
            // SAFETY: see above.
            unsafe { value.write(lend(v)) };
            status::OK
        }
        None => status::ABSENT,
    };
    // SAFETY: see above.
    unsafe { with_name(turn, table, read) }
}

unsafe extern "C" fn log(turn: *mut abi::Turn, event: *const abi::LogEvent<'_>) {
    // SAFETY: see above.
    let Some(event) = (unsafe { event.as_ref() }) else { return };
    // SAFETY: see above.
    let owned = |b| String::from_utf8_lossy(unsafe { slice(b) });
    let (target, message) = (owned(event.target), owned(event.message));
    // SAFETY: see above.
    match unsafe { staging(turn) } {
        Some(s) => s.log(event.level, &target, &message),
        None => crate::log_at!(event.level, handler = %target, "{message}"),
    }
}

unsafe extern "C" fn table_len(turn: *mut abi::Turn, table: Bytes<'_>) -> u64 {
    let mut len = 0;
    let count = |s: &mut Staging<'_>, table: &str| {
        len = s.table_len(table);
        status::OK
    };
    // SAFETY: see above.
    unsafe { with_name(turn, table, count) };
    len
}

unsafe extern "C" fn set_timer(turn: *mut abi::Turn, name: Bytes<'_>, after_ns: u64, flags: u32) -> u32 {
    if flags & !abi::TIMER_OF_SERVICE != 0 {
        return status::INVALID;
    }
    // SAFETY: see above.
    unsafe { with_name(turn, name, |s, name| s.set_timer(name, after_ns, flags != 0)) }
}

unsafe extern "C" fn cancel_timer(turn: *mut abi::Turn, name: Bytes<'_>, flags: u32) -> u32 {
    if flags & !abi::TIMER_OF_SERVICE != 0 {
        return status::INVALID;
    }
    // SAFETY: see above.
    unsafe { with_name(turn, name, |s, name| s.cancel_timer(name, flags != 0)) }
}

unsafe extern "C" fn note(turn: *mut abi::Turn, session: u64, data: Bytes<'_>) -> u32 {
    // SAFETY: see above.
    let (Some(s), data) = (unsafe { staging(turn) }, unsafe { slice(data) }) else { return status::INVALID };
    s.note(session, data)
}

unsafe extern "C" fn publish(turn: *mut abi::Turn, topic: Bytes<'_>, data: Bytes<'_>, flags: u32) -> u32 {
    if flags & !abi::BROADCAST_OTHERS != 0 {
        return status::INVALID;
    }
    // SAFETY: see above.
    let data = unsafe { slice(data) };
    // SAFETY: see above.
    unsafe { with_name(turn, topic, |s, topic| s.publish(topic, data, flags != 0)) }
}

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

unsafe extern "C" fn connect(
    turn: *mut abi::Turn,
    service: Bytes<'_>,
    addr: Bytes<'_>,
    context: Bytes<'_>,
    number: *mut u64,
) -> u32 {
    // SAFETY: see above.
    let context = unsafe { slice(context) };
    // SAFETY: see above.
    let Ok(addr) = std::str::from_utf8(unsafe { slice(addr) }) else { return status::INVALID };
    let connect = |s: &mut Staging<'_>, service: &str| match s.connect(service, addr, context) {
        Ok(staged) => {
            // SAFETY: see above.
            unsafe { number.write(staged) };
            status::OK
        }
        Err(status) => status,
    };
    // SAFETY: see above.
    unsafe { with_name(turn, service, connect) }
}

unsafe extern "C" fn wait_for(turn: *mut abi::Turn, session: u64) -> u32 {
    // SAFETY: see above.
    unsafe { staging(turn) }.map_or(status::INVALID, |s| s.wait_for(session))
}

unsafe extern "C" fn hold(turn: *mut abi::Turn, on: u32) -> u32 {
    // SAFETY: see above.
    unsafe { staging(turn) }.map_or(status::INVALID, |s| s.hold(on != 0))
}

unsafe extern "C" fn cancel_job(turn: *mut abi::Turn, number: u64) -> u32 {
    // SAFETY: see above.
    unsafe { staging(turn) }.map_or(status::INVALID, |s| s.cancel_job(number))
}

/// Runs `f` with the turn and a name, which must be UTF-8.
///
/// # Safety
/// As for [`staging`] and [`slice`].
unsafe fn with_name(
    turn: *mut abi::Turn,
    name: Bytes<'_>,
    f: impl FnOnce(&mut Staging<'_>, &str) -> u32,
) -> u32 {
    // SAFETY: the caller's promise.
    let Some(s) = (unsafe { staging(turn) }) else { return status::INVALID };
    // SAFETY: the caller's promise.
    match std::str::from_utf8(unsafe { slice(name) }) {
        Ok(name) => f(s, name),
        Err(_) => status::INVALID,
    }
}

/// Bytes of the staging area, which the library may read until its next call.
fn lend(b: &[u8]) -> Bytes<'static> {
    Bytes { ptr: b.as_ptr(), len: b.len(), life: std::marker::PhantomData }
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" fn create(_: *const abi::Host, _: Bytes<'_>, _: abi::Sink) -> *mut c_void {
        std::ptr::null_mut()
    }

    unsafe extern "C" fn destroy(_: *mut c_void) {}

    unsafe extern "C" fn run(
        _: *const c_void,
        _: *const abi::Host,
        _: *mut abi::Turn,
        _: *const abi::Batch<'_>,
    ) -> u32 {
        0
    }

    /// Service as a library's table has it, with nothing but a name and a framing.
    fn service(framing: u32, framing_parameters: Bytes<'static>) -> abi::Service {
        abi::Service {
            size: size_of::<abi::Service>() as u32,
            state_version: 0,
            name: "s".into(),
            port: 0,
            flags: 0,
            framing,
            frame_bytes_max: 9,
            migration_count: 0,
            migrations: std::ptr::null(),
            state_schema: Bytes::EMPTY,
            create,
            destroy,
            run,
            downgrade_count: 0,
            table_count: 0,
            downgrades: std::ptr::null(),
            tables: std::ptr::null(),
            table_stride: 0,
            reserved2: 0,
            convert: None,
            job: None,
            framing_parameters,
        }
    }

    #[test]
    fn framings_are_offered_with_their_parameters() {
        for (number, parameters, expected) in [
            (abi::framing::LINES, &b""[..], r#"{"Lines":{"bytes_max":9}}"#),
            (
                abi::framing::LENGTH_PREFIX,
                &[4, 1],
                r#"{"LengthPrefix":{"prefix":{"width":"Four","little_endian":true},"bytes_max":9}}"#,
            ),
            (abi::framing::DELIMITER, b"--", r#"{"Delimiter":{"delimiter":[45,45],"bytes_max":9}}"#),
            (abi::framing::TELNET, b"", r#"{"Telnet":{"bytes_max":9}}"#),
        ] {
            let offer = offer(&service(number, parameters.into())).expect("an offer");
            assert_eq!(serde_json::to_string(&offer.framing).expect("JSON"), expected);
        }
    }

    #[test]
    fn bad_framings_are_refused_by_name() {
        let null = |len| Bytes { ptr: std::ptr::null(), len, life: std::marker::PhantomData };
        for (number, parameters, expected) in [
            (9, Bytes::EMPTY, "service s: framing 9 is not known"),
            (
                abi::framing::LINES,
                Bytes::from(&b"x"[..]),
                "service s: framing lines has no parameters, and was given 1 bytes of them",
            ),
            (
                abi::framing::LENGTH_PREFIX,
                Bytes::from(&[3, 0][..]),
                "service s: framing length-prefix: a width of 3 is none of 1, 2 and 4",
            ),
            (
                abi::framing::DELIMITER,
                Bytes::EMPTY,
                "service s: framing delimiter: a delimiter has 1 to 16 bytes, not 0",
            ),
            (
                abi::framing::DELIMITER,
                null(1),
                "service s: its framing's parameters are unusable: 1 bytes, of at most 64",
            ),
            (
                abi::framing::DELIMITER,
                Bytes::from(&[7; 65][..]),
                "service s: its framing's parameters are unusable: 65 bytes, of at most 64",
            ),
        ] {
            assert_eq!(offer(&service(number, parameters)).err().as_deref(), Some(expected));
        }
    }

    /// A library of ABI 1.2 states a smaller size: what it lacks is empty, so its framing has no parameters.
    #[test]
    fn a_service_of_an_older_abi_has_no_parameters() {
        let size = std::mem::offset_of!(abi::Service, framing_parameters);
        let service =
            abi::Service { size: size as u32, ..service(abi::framing::RAW, Bytes::from(&b"not read"[..])) };
        let services: &'static abi::Service = Box::leak(Box::new(service));
        let table: &'static abi::Library = Box::leak(Box::new(abi::Library {
            size: size_of::<abi::Library>() as u32,
            abi_major: abi::MAJOR,
            abi_minor: 2,
            name: "l".into(),
            services,
            service_count: 1,
            service_stride: size as u32,
        }));
        let (_, offers) = Library { table }.offers().expect("offers");
        assert_eq!(offers[0].framing, Framing::Raw { bytes_max: 9 });
    }
}
