//! Endpoints that services offer beside their first one ([`super::Service::endpoints`]).

use super::bytes::Bytes;

/// Endpoint that a service offers beside its first one. Valid until the process ends.
#[repr(C)]
pub struct OfferedEndpoint {
    /// Size of this struct.
    pub size: u32,
    /// Number from [`super::framing`]. Its longest message is [`super::Service::frame_bytes_max`].
    pub framing: u32,
    /// Parameters of the framing, as [`super::Service::framing_parameters`].
    pub framing_parameters: Bytes<'static>,
    /// Default TCP port on loopback; 0: none, unless the operator names an address.
    pub port: u16,
    /// Must be zero.
    pub flags: u16,
    /// Must be zero.
    pub reserved: u32,
}
