//! A loaded library and what it offers.
//!
//! A library is loaded from a private copy, and never unloaded. So everything in its tables
//! lives as long as the process. A build that is replaced costs its mapping until the worker is
//! recycled (limit `builds_max`).
//!
//! A library that carries the note is believed to keep the ABI, as a child process has seen it
//! do. Its pointers are followed, and its counts of arrays are used. Names, schemas, versions,
//! framings and the sizes of structs are not believed: each reading checks them, and an error
//! names the service. So a wrong value refuses the candidate. A wrong pointer ends the trial's
//! child, before the worker loads anything.
//!
//! Loading runs code of the author: initialisers, the entry, and `create`. So the loop leaves
//! it to the prepare thread. Only a takeover loads on its main thread, because it serves nobody
//! without the library.

use crate::memory::board::Board;
use crate::plugin::ffi::bytes::{slice, text};
use crate::plugin::ffi::host_calls::host_table;
use crate::plugin::ffi::instance::Plugin;
use greenroom_core::framing::Framing;
use greenroom_core::service::offer::{ENDPOINTS_MAX, EndpointOffer, Offer, Serving};
use greenroom_state::abi::{self, Bytes};
use greenroom_state::compatibility::{StateShape, TableShape};
use greenroom_state::elf_note::is_name;
use greenroom_state::schema::Schema;
use libloading::os::unix::{Library as Loader, RTLD_LOCAL, RTLD_NOW};
use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::path::Path;

/// A loaded library. Never unloaded: a Rust library that has touched a thread-local can't be.
/// Copies are the same library.
#[derive(Clone, Copy)]
pub struct Library {
    /// Table that its entry returned. Size and ABI version were checked.
    table: &'static abi::Library,
}

// SAFETY: the ABI says that a library's tables never change and live as long as the process.
unsafe impl Send for Library {}

/// Name of a library, and what each of its services offers.
pub type Offers = (String, Vec<Offer>);

impl Library {
    /// Loads a library and calls the entry that its note names. All symbols are resolved here,
    /// not at their first call. So a missing one refuses the candidate, and cannot end a turn.
    /// Fails with a sentence about the library.
    pub fn load(path: &Path, entry: &str) -> Result<Library, String> {
        // SAFETY: initialisers run here; a child process has survived them.
        let loaded = unsafe { Loader::open(Some(path), RTLD_NOW | RTLD_LOCAL) };
        let loader = loaded.map_err(|e| format!("it can't be loaded: {}", loader_text(&e, path)))?;
        // SAFETY: the note says that this symbol is an entry of this ABI version.
        let found = unsafe { loader.get::<abi::Entry>(entry.as_bytes()) };
        let entry =
            *found.map_err(|_| format!("it does not export {entry}, which its note names as its entry"))?;
        // From here on pointers into the library may be anywhere, so it must never be unloaded.
        std::mem::forget(loader);
        Library::from_entry(entry)
    }

    /// Reads the tables of a library whose entry is at hand: loaded, or linked into a test.
    /// Fails if the tables are of another ABI than they say.
    pub fn from_entry(entry: abi::Entry) -> Result<Library, String> {
        // SAFETY: an entry has no preconditions.
        let table = unsafe { entry() };
        // SAFETY: it is null or points to a table that lives as long as the process.
        let table = unsafe { table.as_ref() }.ok_or("its entry returned no table")?;
        // All services are read by this stride, so it must hold a service of 1.0, and keep them
        // aligned.
        if (table.size as usize) < size_of::<abi::Library>()
            || (table.service_stride as usize) < abi::SERVICE_SIZE_1_0
            || !(table.service_stride as usize).is_multiple_of(align_of::<abi::Service>())
        {
            return Err("its tables are smaller than those of its ABI version".into());
        }
        // The note said the same before. Here the table itself is asked, as its layout depends
        // on it.
        if table.abi_major != abi::MAJOR || table.abi_minor > abi::MINOR {
            return Err(format!("its table says ABI {}.{}", table.abi_major, table.abi_minor));
        }
        Ok(Library { table })
    }

    /// Services as this version of the ABI has them: fields that an older one lacks are empty.
    /// A service of an older ABI is copied, and each call leaks the copy: it must live as long
    /// as the instances.
    fn services(self) -> impl Iterator<Item = &'static abi::Service> {
        let Library { table } = self;
        (0..table.service_count as usize).map(move |i| {
            // SAFETY: the array has `service_count` items, each `service_stride` bytes from the one
            // before.
            let item = unsafe { table.services.byte_add(i * table.service_stride as usize) };
            // SAFETY: every version's service begins with its size.
            let size = unsafe { item.cast::<u32>().read() } as usize;
            // A service may state more than its stride. Then the stride counts: what lies
            // behind is the next service.
            let size = size.min(table.service_stride as usize);
            if size >= size_of::<abi::Service>() {
                // SAFETY: an item of this size begins with what this version calls a service, and
                // lives as long as the process.
                return unsafe { &*item };
            }
            let mut whole = MaybeUninit::<abi::Service>::zeroed();
            let len = size.max(abi::SERVICE_SIZE_1_0);
            // SAFETY: both have so many bytes; a service's are plain, and zeros are none of what
            // 1.1 added.
            unsafe { whole.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(item.cast::<u8>(), len) };
            // SAFETY: the fields of 1.0 were copied, and the rest may be zero.
            Box::leak(Box::new(unsafe { whole.assume_init() }))
        })
    }

    /// Name of the library and what it offers. Runs none of its code. The error names a service
    /// and what is wrong with it.
    pub fn offers(self) -> Result<Offers, String> {
        let name = name(self.table.name).map_err(|e| format!("its name: {e}"))?;
        let offers = self.services().map(offer).collect::<Result<Vec<_>, _>>()?;
        if offers.is_empty() {
            return Err("it offers no service".into());
        }
        Ok((name, offers))
    }

    /// Builds an instance of each service from its settings (JSON; `{}` if it has none). Turns
    /// are noted on the board. If a service refuses its settings, the error names the service,
    /// and the instances that were built end.
    pub fn create(self, settings: &BTreeMap<String, String>, board: Board) -> Result<Serving, String> {
        let mut made = Serving::new();
        let names = self.services().filter_map(|service| text(service.name).map(str::to_owned));
        let host = host_table(names.collect());
        for service in self.services() {
            let offer = offer(service)?;
            let config = settings.get(&offer.name).map_or("{}", String::as_str);
            let plugin = Plugin::create(service, self.table.abi_minor, config, host, board)
                .map_err(|e| format!("service {}: {e}", offer.name))?;
            made.push((offer, Box::new(plugin)));
        }
        Ok(made)
    }
}

/// Words of the loader, without the path of the private copy, which no operator knows. The name of
/// another library that is missing stays, with what helps: `$ORIGIN` is the private copy's folder.
fn loader_text(e: &libloading::Error, copy: &Path) -> String {
    let text = std::error::Error::source(e).map_or_else(|| e.to_string(), ToString::to_string);
    match text.strip_prefix(&format!("{}: ", copy.display())) {
        Some(why) => why.to_owned(),
        None if text.contains("cannot open shared object file") => format!(
            "{text}; link it statically, or install it in /usr/local/lib and run ldconfig: a build is loaded from a private copy, so $ORIGIN is not its own folder"
        ),
        None => text,
    }
}

/// Reads a name.
fn name(bytes: Bytes<'static>) -> Result<String, String> {
    let text = text(bytes).ok_or("it is no UTF-8")?;
    match is_name(text) {
        true => Ok(text.to_owned()),
        false => Err(format!("{text:?} is none; names are 1 to 64 letters, digits, - and _")),
    }
}

/// Reads a service's table. The error names the service and what is wrong. Two services of one
/// name, or two owners of a table, are left to the core's judgement.
fn offer(service: &abi::Service) -> Result<Offer, String> {
    let name = name(service.name).map_err(|e| format!("the name of a service: {e}"))?;
    let (endpoints, protocols) = endpoints(service).map_err(|e| format!("service {name}: {e}"))?;
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
        if (service.table_stride as usize) < abi::table::SIZE_1_5 {
            return Err(format!("service {name}: its tables are smaller than those of its ABI version"));
        }
        // SAFETY: the array has `table_count` items, each `table_stride` bytes from the one before.
        let item = unsafe { service.tables.byte_add(i * service.table_stride as usize) };
        let mut copy = NO_TABLE;
        let known = (service.table_stride as usize).min(size_of::<abi::table::Table>());
        // SAFETY: an item begins with what this version, or an older one, calls a table; plain
        // data.
        unsafe { std::ptr::copy_nonoverlapping(item.cast::<u8>(), (&raw mut copy).cast(), known) };
        table(&copy).map_err(|e| format!("service {name}: {e}"))
    });
    let tables = tables.collect::<Result<Vec<_>, _>>()?;
    let dials = service.flags & abi::SERVICE_DIALS != 0;
    Ok(Offer { name, dials, endpoints, protocols, shape, tables })
}

/// Reads a service's endpoints, and its subprotocols of WebSocket. Operators name endpoints by
/// their kind, so two of one kind are refused. So are a flag that the host does not know, and more
/// endpoints than [`ENDPOINTS_MAX`].
fn endpoints(service: &abi::Service) -> Result<(Vec<EndpointOffer>, Vec<String>), String> {
    let count = service.endpoint_count as usize;
    if count >= ENDPOINTS_MAX {
        return Err(format!("it offers {} endpoints, of at most {ENDPOINTS_MAX}", count + 1));
    }
    if count > 0 && (service.endpoint_stride as usize) < size_of::<abi::OfferedEndpoint>() {
        return Err("its endpoints are smaller than those of its ABI version".into());
    }
    let mut spoken = Vec::new();
    let mut framing = |number: u32, parameters: Bytes<'static>| {
        let framing = framing(service, number, parameters)?;
        if let Framing::WebSocket { .. } = framing {
            spoken = protocols(parameters)?;
        }
        Ok::<_, String>(framing)
    };
    let first = framing(service.framing, service.framing_parameters)?;
    let mut all = vec![EndpointOffer { framing: first, port: service.port }];
    for i in 0..count {
        // SAFETY: the array has `endpoint_count` items, `endpoint_stride` bytes from each other.
        let item = unsafe { service.endpoints.byte_add(i * service.endpoint_stride as usize) };
        // SAFETY: an item begins with what this version calls an endpoint, and lives as long as the
        // process.
        let item = unsafe { &*item };
        let framing = framing(item.framing, item.framing_parameters)?;
        let kind = framing.kind();
        if item.flags != 0 {
            return Err(format!("endpoint {kind} has flags {}, which this host does not know", item.flags));
        }
        if all.iter().any(|e| e.framing.kind() == kind) {
            return Err(format!("it offers two endpoints of kind {kind}; one of each can be named"));
        }
        all.push(EndpointOffer { framing, port: item.port });
    }
    Ok((all, spoken))
}

/// Reads a framing of a service with its parameters. Fails if the host does not know the framing,
/// or has another use of parameters.
fn framing(service: &abi::Service, number: u32, parameters: Bytes<'static>) -> Result<Framing, String> {
    // A length that is no parameter's is not believed: reading that much could run past the
    // mapping.
    let max = abi::framing::PARAMETERS_BYTES_MAX;
    if parameters.len > max || (parameters.ptr.is_null() && parameters.len > 0) {
        let len = parameters.len;
        return Err(format!("its framing's parameters are unusable: {len} bytes, of at most {max}"));
    }
    if number == abi::framing::CUSTOM && (service.cut.is_none() || service.encode.is_none()) {
        return Err("framing custom needs the functions cut and encode".into());
    }
    // SAFETY: a table's bytes live as long as the process, and so few of them are believed.
    let parameters = unsafe { slice(parameters) };
    Framing::offered(number, service.frame_bytes_max, parameters)
}

/// Reads the subprotocols of a WebSocket endpoint, whose parameters are usable. Fails if one of
/// them could be no item of a header.
fn protocols(parameters: Bytes<'static>) -> Result<Vec<String>, String> {
    if parameters.len == 0 {
        return Ok(Vec::new());
    }
    let all = text(parameters).unwrap_or("\0");
    let is_token = |p: &str| {
        !p.is_empty() && p.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    };
    match all.split(',').find(|p| !is_token(p)) {
        Some(bad) => Err(format!("framing websocket: {bad:?} is no name of a subprotocol")),
        None => Ok(all.split(',').map(str::to_owned).collect()),
    }
}

/// Reads the table of a table that a service owns. A table without a schema could not be
/// judged, so it is refused.
fn table(table: &abi::table::Table) -> Result<TableShape, String> {
    let name = name(table.name).map_err(|e| format!("the name of a table: {e}"))?;
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
    let has = |flag: u32| table.flags & flag != 0;
    let (hears_of_expiry, reads_keys) = (has(abi::table::HEARS_OF_EXPIRY), has(abi::table::READS_KEYS));
    Ok(TableShape { name, shape, hears_of_expiry, reads_keys })
}

/// Table of which nothing is known.
const NO_TABLE: abi::table::Table = abi::table::Table {
    size: 0,
    version: 0,
    name: abi::Bytes::EMPTY,
    schema: abi::Bytes::EMPTY,
    migration_count: 0,
    downgrade_count: 0,
    migrations: std::ptr::null(),
    downgrades: std::ptr::null(),
    flags: 0,
    reserved: 0,
};

/// Parses a schema; empty: there is none.
fn schema(bytes: Bytes<'static>) -> Result<Option<Schema>, String> {
    match text(bytes) {
        Some("") => Ok(None),
        Some(json) => Schema::parse(json).map(Some).map_err(|e| e.to_string()),
        None => Err("it is not UTF-8".into()),
    }
}

/// Copies an array of numbers. The count is believed.
fn numbers(first: *const u32, count: u32) -> Vec<u32> {
    match count {
        0 => Vec::new(),
        // SAFETY: the array has `count` numbers and lives as long as the process.
        n => unsafe { std::slice::from_raw_parts(first, n as usize) }.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::c_void;

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
            endpoint_count: 0,
            endpoint_stride: 0,
            endpoints: std::ptr::null(),
            page: None,
            cut: None,
            encode: None,
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
            (
                abi::framing::LENGTH_PREFIX,
                &[4, 2, 0, 1],
                r#"{"LengthPrefix":{"prefix":{"width":{"Base128":4},"little_endian":true,"before":1},"bytes_max":9}}"#,
            ),
            (abi::framing::TELNET, b"", r#"{"Telnet":{"bytes_max":9}}"#),
            (abi::framing::WEBSOCKET, b"a.v1,b", r#"{"WebSocket":{"bytes_max":9}}"#),
        ] {
            let offer = offer(&service(number, parameters.into())).expect("an offer");
            assert_eq!(serde_json::to_string(offer.framing()).expect("JSON"), expected);
            let protocols: &[&str] = if number == abi::framing::WEBSOCKET { &["a.v1", "b"] } else { &[] };
            assert_eq!(offer.protocols, protocols);
        }
    }

    #[test]
    fn bad_framings_are_refused_by_name() {
        let null = |len| Bytes { ptr: std::ptr::null(), len, life: std::marker::PhantomData };
        for (number, parameters, expected) in [
            (99, Bytes::EMPTY, "service s: framing 99 is not known"),
            (
                abi::framing::CUSTOM,
                Bytes::EMPTY,
                "service s: framing custom needs the functions cut and encode",
            ),
            (
                abi::framing::LINES,
                Bytes::from(&b"x"[..]),
                "service s: framing lines has no parameters, and was given 1 bytes of them",
            ),
            (
                abi::framing::LENGTH_PREFIX,
                Bytes::from(&[3, 0][..]),
                "service s: framing length-prefix: a width of 3 is none of 1, 2, 4 and 8",
            ),
            (
                abi::framing::DELIMITER,
                Bytes::EMPTY,
                "service s: framing delimiter: a delimiter has 1 to 16 bytes, not 0",
            ),
            (
                abi::framing::WEBSOCKET,
                Bytes::from(&b"a,b c"[..]),
                "service s: framing websocket: \"b c\" is no name of a subprotocol",
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

    /// A library of ABI 1.2 states a smaller size: what it lacks is empty, so its framing has no
    /// parameters.
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
        assert_eq!(*offers[0].framing(), Framing::Raw { bytes_max: 9 });
    }
}
