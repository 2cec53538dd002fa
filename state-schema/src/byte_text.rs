//! Bytes that JSON writes as text where they are text, and as a tag of base64 elsewhere.

use crate::json::{bytes_from_json, bytes_to_json};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes in a line of JSON, as [`bytes_to_json`] writes them.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteText(pub Vec<u8>);

impl ByteText {
    /// Returns whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&[u8]> for ByteText {
    fn from(bytes: &[u8]) -> ByteText {
        ByteText(bytes.to_vec())
    }
}

impl Serialize for ByteText {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        bytes_to_json(&self.0).serialize(to)
    }
}

impl<'de> Deserialize<'de> for ByteText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<ByteText, D::Error> {
        let value = serde_json::Value::deserialize(from)?;
        bytes_from_json(&value).map(ByteText).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back() {
        for bytes in [&b""[..], b"a line\n", b"\xff\x00", "ü\u{1b}".as_bytes()] {
            let text = serde_json::to_string(&ByteText::from(bytes)).unwrap();
            assert_eq!(serde_json::from_str::<ByteText>(&text).unwrap().0, bytes, "{text}");
        }
        assert!(serde_json::from_str::<ByteText>("7").is_err());
    }
}
