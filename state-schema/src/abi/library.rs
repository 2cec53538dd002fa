//! Library, its services and their endpoints, as a library's entry returns them.

use super::batch::Batch;
use super::bytes::{Bytes, Sink};
use super::host::Host;
use super::turn::Turn;
use super::{framing, table};
use std::ffi::c_void;
use std::sync::atomic::AtomicU32;

/// Library, as its entry returns it. Valid until the process ends.
#[repr(C)]
pub struct Library {
    /// Size of this struct.
    pub size: u32,
    /// [`super::MAJOR`] that it was built for.
    pub abi_major: u16,
    /// [`super::MINOR`] that it was built for.
    pub abi_minor: u16,
    /// The library's name: its crate's.
    pub name: Bytes<'static>,
    /// An array of `service_count` items, each `service_stride` bytes apart.
    pub services: *const Service,
    /// Number of services.
    pub service_count: u32,
    /// Size of one.
    pub service_stride: u32,
}

/// Service of a library. Valid until the process ends.
#[repr(C)]
pub struct Service {
    /// Size of this struct.
    pub size: u32,
    /// Version of the state. The author raises it for more than fields added with defaults.
    pub state_version: u32,
    /// Unique in a host: letters, digits, `-` and `_`.
    pub name: Bytes<'static>,
    /// Default TCP port on loopback; 0: none, the operator must name an address.
    pub port: u16,
    /// Since 1.2 (0 before): 0 or [`super::SERVICE_DIALS`].
    pub flags: u16,
    /// Number from [`framing`].
    pub framing: u32,
    /// The longest message, in bytes, without its framing.
    pub frame_bytes_max: u32,
    /// Number of versions in [`Service::migrations`].
    pub migration_count: u32,
    /// The state versions from which this library can make the next one.
    pub migrations: *const u32,
    /// JSON Schema of the state; empty: the service keeps none.
    pub state_schema: Bytes<'static>,
    /// Builds the instance from its configuration (JSON). Null: refused, with the reason put into
    /// `error`.
    pub create: unsafe extern "C" fn(host: *const Host, config: Bytes<'_>, error: Sink) -> *mut c_void,
    /// Ends an instance that `create` made, once another build has replaced it. Not called when a
    /// worker ends.
    pub destroy: unsafe extern "C" fn(instance: *mut c_void),
    /// Runs the actions of `batch` in order, a turn each; see [`Host::turn_ok`]. Returns 0 or
    /// [`super::RUN_STATE_LOST`].
    pub run: unsafe extern "C" fn(
        instance: *const c_void,
        host: *const Host,
        turn: *mut Turn,
        batch: *const Batch<'_>,
    ) -> u32,
    /// Since 1.1. Number of versions in [`Service::downgrades`].
    pub downgrade_count: u32,
    /// Since 1.1. Number of tables that the service owns.
    pub table_count: u32,
    /// Since 1.1. The state versions from which this library can make the one before.
    pub downgrades: *const u32,
    /// Since 1.1. An array of `table_count` items, each `table_stride` bytes apart.
    pub tables: *const table::Table,
    /// Since 1.1. Size of one.
    pub table_stride: u32,
    /// Must be zero.
    pub reserved2: u32,
    /// Since 1.1. Takes a value from version `from` to `to`, up or down, step by step. A value
    /// that arrives at this library's own version is read and written again. `which`: 0 for a
    /// state, n for the n-th table, and since 1.9 [`table::KEY_OF`] added for a key of it. Returns
    /// 0 with the value put into `result`, or 1 with the reason put into `error`.
    pub convert: Option<
        unsafe extern "C" fn(
            which: u32,
            from: u32,
            to: u32,
            value: Bytes<'_>,
            result: Sink,
            error: Sink,
        ) -> u32,
    >,
    /// Since 1.2. Runs a job, on any thread, while turns and other jobs run; it may block.
    /// Returns as [`Service::convert`] does. `cancelled` is valid for the call, and not 0 once
    /// nobody wants the result any more.
    pub job: Option<
        unsafe extern "C" fn(
            instance: *const c_void,
            name: Bytes<'_>,
            input: Bytes<'_>,
            cancelled: *const AtomicU32,
            result: Sink,
            error: Sink,
        ) -> u32,
    >,
    /// Since 1.3. Parameters of [`Service::framing`], at most [`framing::PARAMETERS_BYTES_MAX`]
    /// bytes; [`framing`] says which.
    pub framing_parameters: Bytes<'static>,
    /// Since 1.4. Number of endpoints beside [`Service::port`] and [`Service::framing`], which are
    /// the first one.
    pub endpoint_count: u32,
    /// Since 1.4. Size of one.
    pub endpoint_stride: u32,
    /// Since 1.4. An array of `endpoint_count` items, each `endpoint_stride` bytes apart.
    pub endpoints: *const OfferedEndpoint,
    /// Since 1.4. Runs the turn of [`super::action::PAGE`] for a path: it answers by
    /// [`Host::page`] if there is such a page, and ends the turn as [`Service::run`] does. There
    /// is no state.
    pub page: Option<
        unsafe extern "C" fn(instance: *const c_void, host: *const Host, turn: *mut Turn, path: Bytes<'_>),
    >,
    /// Since 1.4, for [`framing::CUSTOM`]. Cuts the next message off the beginning of `input`,
    /// which is not empty. Returns a number of [`framing::cut`]. A message that is no part of the
    /// input is put into `message`, a reason into `error`. Needs no instance, and depends on its
    /// arguments alone. Any thread may call.
    pub cut: Option<
        unsafe extern "C" fn(
            input: Bytes<'_>,
            frame: *mut framing::FrameCut,
            message: Sink,
            error: Sink,
        ) -> u32,
    >,
    /// Since 1.4, for [`framing::CUSTOM`]. Frames a message that is sent, likewise. Returns as
    /// [`Service::convert`] does.
    pub encode: Option<unsafe extern "C" fn(message: Bytes<'_>, result: Sink, error: Sink) -> u32>,
}

/// Endpoint that a service offers beside its first one. Valid until the process ends.
#[repr(C)]
pub struct OfferedEndpoint {
    /// Size of this struct.
    pub size: u32,
    /// Number from [`framing`]. Its longest message is [`Service::frame_bytes_max`].
    pub framing: u32,
    /// Parameters of the framing, as [`Service::framing_parameters`].
    pub framing_parameters: Bytes<'static>,
    /// Default TCP port on loopback; 0: none, unless the operator names an address.
    pub port: u16,
    /// Must be zero.
    pub flags: u16,
    /// Must be zero.
    pub reserved: u32,
}

/// Size of [`Service`] in ABI 1.0.
pub const SERVICE_SIZE_1_0: usize = std::mem::offset_of!(Service, downgrade_count);
