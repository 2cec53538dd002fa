//! The host as a batch sees it: the real one, through the C ABI, or the one of a handler's own
//! tests.

use crate::fault::Fault;
use crate::log::LogEvent;

/// Functions that a batch may call on its host: [`greenroom_state::abi::Host`] in safe words.
pub(crate) trait Host {
    fn turn_ok(&mut self) -> bool;
    fn turn_failed(&mut self, fault: &Fault);
    fn state(&mut self, bytes: &[u8]);
    fn peer(&mut self) -> String;
    fn send(&mut self, first: &[u8], second: &[u8]) -> u32;
    fn close(&mut self) -> u32;
    fn subscribe(&mut self, topic: &str) -> u32;
    fn unsubscribe(&mut self, topic: &str) -> u32;
    fn broadcast(&mut self, topic: &str, data: &[u8], flags: u32) -> u32;
    fn table_get(&mut self, table: &str, key: &[u8]) -> Option<Vec<u8>>;
    fn table_put(&mut self, table: &str, key: &[u8], value: &[u8]) -> u32;
    fn table_delete(&mut self, table: &str, key: &[u8]) -> u32;
    fn table_next(&mut self, table: &str, prefix: &[u8], from: &[u8]) -> Option<(Vec<u8>, Vec<u8>)>;
    fn table_len(&mut self, table: &str) -> u64;
    fn set_timer(&mut self, name: &str, after_ns: u64, flags: u32) -> u32;
    fn cancel_timer(&mut self, name: &str, flags: u32) -> u32;
    fn note(&mut self, session: u64, data: &[u8]) -> u32;
    fn publish(&mut self, topic: &str, data: &[u8], flags: u32) -> u32;
    fn start_job(&mut self, name: &str, input: &[u8], flags: u32) -> Result<u64, u32>;
    fn cancel_job(&mut self, number: u64) -> u32;
    fn connect(&mut self, service: &str, addr: &str, context: &[u8]) -> Result<u64, u32>;
    fn wait_for(&mut self, session: u64) -> u32;
    fn hold(&mut self, on: bool) -> u32;
    fn log(&mut self, event: &LogEvent);
}
