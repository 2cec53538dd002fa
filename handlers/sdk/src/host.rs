//! What a batch may ask, whoever the host is: the real one, through the C ABI, or the one of a handler's own tests.

use crate::{Fault, log};

/// What a batch may ask of its host: [`greenroom_state::abi::Host`] in safe words.
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
    fn log(&mut self, event: &log::LogEvent);
}
