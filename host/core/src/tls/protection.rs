//! Ciphers of records, as the shell implements them. The core forms no nonce and derives no key.

use super::state::Direction;

/// Maker of ciphers, by the number of a cipher suite.
pub trait Protection: Send {
    /// Returns a cipher that seals what the host sends. `None`: the suite is not known.
    fn sealer(&self, suite: u16, keys: &Direction) -> Option<Box<dyn Seal>>;

    /// Returns a cipher that opens what a peer sends. `None`: the suite is not known.
    fn opener(&self, suite: u16, keys: &Direction) -> Option<Box<dyn Open>>;

    /// Replaces secret, key and IV of a direction by the next ones of TLS 1.3, and begins its
    /// numbers anew. False: the suite has none.
    fn update(&self, suite: u16, keys: &mut Direction) -> bool;

    /// Returns the records that one key of a suite may seal.
    fn records_max(&self, suite: u16) -> u64;
}

/// Cipher of one direction that seals.
pub trait Seal {
    /// Appends a whole record with its header: content of a kind, under a number. False: it cannot
    /// be sealed, and nothing was appended.
    fn seal(&mut self, kind: u8, content: &[u8], number: u64, out: &mut Vec<u8>) -> bool;
}

/// Cipher of one direction that opens.
pub trait Open {
    /// Opens the body of a record in place, whose header says `kind`. Returns the kind of the
    /// content, and the content. `None`: it is not what the peer has sealed under this number.
    fn open<'b>(&mut self, kind: u8, body: &'b mut [u8], number: u64) -> Option<(u8, &'b [u8])>;
}
