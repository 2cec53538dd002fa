//! Bytes as a value: stored as they are, rather than as a list of numbers.
//!
//! serde writes a `Vec<u8>` as a list, number by number: up to twice the bytes, and a call for each
//! when it is read. MessagePack has a type for bytes, with a head of two to five bytes. Dumps show
//! such a value as `{"$b64": "…"}`.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::ops::{Deref, DerefMut};

/// Bytes of a value or in a state. In memory they are a `Vec<u8>`; stored, they are one piece.
///
/// A stored list of numbers, which a `Vec<u8>` was, is read as bytes, too.
///
/// ```
/// use greenroom_handler::testing::TestHost;
/// use greenroom_handler::{Bytes, Handler, Result, Turn, handler};
///
/// #[derive(Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// struct Upload {
///     data: Bytes,
/// }
///
/// struct Store;
/// #[handler]
/// impl Handler for Store {
///     const SERVICE: &'static str = "store";
///     type State = Upload;
///     fn message(&self, turn: &mut Turn<Upload>, bytes: &[u8]) -> Result {
///         // A `Bytes` is used as the `Vec<u8>` in it.
///         turn.state.data.extend_from_slice(bytes);
///         turn.send_line(format!("{} bytes", turn.state.data.len()));
///         Ok(())
///     }
/// }
///
/// let mut host = TestHost::<Store>::new("{}").unwrap();
/// let peer = host.open();
/// assert_eq!(host.line(peer, b"\xff\xfe"), "2 bytes\n");
/// assert_eq!(host.state(peer).data, Bytes::from(&b"\xff\xfe"[..]));
/// ```
#[derive(Debug, Default, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub Vec<u8>);

impl Deref for Bytes {
    type Target = Vec<u8>;
    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Bytes {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Bytes {
        Bytes(bytes)
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Bytes {
        Bytes(bytes.to_vec())
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        from.deserialize_byte_buf(OfBytes)
    }
}

impl JsonSchema for Bytes {
    fn schema_name() -> Cow<'static, str> {
        "Bytes".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "properties": { "$b64": { "type": "string" } },
            "required": ["$b64"],
        })
    }
}

/// Reads bytes, in one piece or number by number.
struct OfBytes;

impl<'de> Visitor<'de> for OfBytes {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
        Ok(Bytes(bytes.to_vec()))
    }

    fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
        Ok(Bytes(bytes))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Bytes, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = items.next_element()? {
            bytes.push(byte);
        }
        Ok(Bytes(bytes))
    }
}

/// Bytes that are written in one piece.
struct Piece<'a>(&'a [u8]);

impl Serialize for Piece<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(self.0)
    }
}

/// Encodes bytes as [`Bytes`] is encoded.
pub(crate) fn encode(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(bytes.len() + 5);
    rmp_serde::encode::write(&mut out, &Piece(bytes)).map_err(|e| e.to_string())?;
    Ok(out)
}

/// Bytes of a stored value, where they lie; `None`: it is a list of numbers, or none at all.
pub(crate) fn lent(value: &[u8]) -> Option<&[u8]> {
    rmp_serde::from_slice(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_stored_in_one_piece_and_lists_of_numbers_are_read() {
        for len in [0, 1, 255, 256, 65_536] {
            let bytes = Bytes((0..len).map(|n| n as u8).collect());
            let stored = crate::encode::stored(&bytes).expect("bytes can be stored");
            assert_eq!(stored, encode(&bytes).expect("as bytes alone"));
            assert!(stored.len() <= len + 5 && lent(&stored) == Some(&**bytes));
            let list = crate::encode::stored(&bytes.0).expect("a list can be stored");
            assert_eq!((lent(&list), rmp_serde::from_slice(&list).ok()), (None, Some(bytes)));
        }
    }
}
