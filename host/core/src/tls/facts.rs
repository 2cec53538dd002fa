//! Facts of a handshake, by name: what handlers and operators may know of it.
//!
//! Facts stand one behind the other: the length of the name (u8), the name, the length of the
//! value (u16, little-endian), the value.

/// Most bytes of a value: longer ones are cut off.
const VALUE_BYTES_MAX: usize = 1024;

/// Encodes facts. A name has at most 255 bytes.
pub fn encode<'f>(facts: impl IntoIterator<Item = (&'f str, &'f [u8])>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in facts {
        let value = &value[..value.len().min(VALUE_BYTES_MAX)];
        bytes.push(name.len() as u8);
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(&(value.len() as u16).to_le_bytes());
        bytes.extend_from_slice(value);
    }
    bytes
}

/// Returns all facts, name and value of each. What is cut off at the end is left out.
pub fn all(mut bytes: &[u8]) -> impl Iterator<Item = (&str, &[u8])> {
    std::iter::from_fn(move || {
        let (len, rest) = bytes.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(*len))?;
        let (len, rest) = rest.split_first_chunk()?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
        bytes = rest;
        Some((std::str::from_utf8(name).ok()?, value))
    })
}

/// Returns the value of one fact.
pub fn find<'f>(bytes: &'f [u8], name: &str) -> Option<&'f [u8]> {
    all(bytes).find(|(n, _)| *n == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_found_and_damage_ends_them() {
        let long = [b'x'; 5000];
        let bytes = encode([("tls-version", &b"1.3"[..]), ("alpn", b""), ("long", &long)]);
        assert_eq!(find(&bytes, "tls-version"), Some(&b"1.3"[..]));
        assert_eq!(find(&bytes, "long").map(<[u8]>::len), Some(VALUE_BYTES_MAX));
        assert_eq!((find(&bytes, "alpn"), find(&bytes, "none")), (Some(&b""[..]), None));
        assert!((0..bytes.len()).all(|at| all(&bytes[..at]).count() < 3));
    }
}
