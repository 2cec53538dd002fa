//! MessagePack, the form of stored state, as JSON, the form that people read and write, and
//! back.
//!
//! Data that JSON can't express is tagged: an object with one key that starts with `$`.
//!
//! | MessagePack | JSON |
//! | --- | --- |
//! | bytes, or text that is not UTF-8 | `{"$b64": "AAE="}` |
//! | NaN and the infinities | `{"$f64": "NaN"}`, `"inf"`, `"-inf"` |
//! | a map whose keys are not distinct strings, or read as a tag | `{"$map": [[key, value], …]}` |
//! | an extension type | `{"$ext": [type, "AAE="]}` |
//!
//! Values survive the way to JSON and back, but not every detail of their form. A float of 32
//! bits comes back in 64, and text that is not UTF-8 comes back as bytes. The order of a map's
//! keys is kept.
//!
//! Callers: dumps, edits and restores of operators, the rehearsal's comparison, and the SDK's
//! tests of migrations. No turn comes here. Each conversion is O(bytes), and makes a tree of
//! the value.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rmpv::Value as Pack;
use serde_json::{Value as Json, json};

/// Depth to which a MessagePack value may nest, in levels. Bounds the stack that a conversion
/// takes.
pub const DEPTH_MAX: usize = 128;

/// JSON for one MessagePack value. Fails on bytes that are none, nest too deep, or go on behind
/// the value.
pub fn to_json(packed: &[u8]) -> Result<Json, String> {
    let mut rest = packed;
    let value = rmpv::decode::read_value_with_max_depth(&mut rest, DEPTH_MAX)
        .map_err(|e| format!("not MessagePack: {e}"))?;
    match rest {
        [] => Ok(json_of(&value)),
        _ => Err(format!("{} bytes behind the value", rest.len())),
    }
}

/// MessagePack for one JSON value. Fails if a tag is malformed or unknown; the error names it.
pub fn from_json(value: &Json) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    rmpv::encode::write_value(&mut out, &pack_of(value)?).map_err(|e| e.to_string())?;
    Ok(out)
}

/// Bytes as JSON: a string if they are UTF-8, else tagged. For keys, input and output, which
/// need not be text.
pub fn bytes_to_json(bytes: &[u8]) -> Json {
    match std::str::from_utf8(bytes) {
        Ok(text) => Json::from(text),
        Err(_) => json!({ "$b64": BASE64.encode(bytes) }),
    }
}

/// Reverse of [`bytes_to_json`]. Fails on JSON that is neither a string nor a `$b64` tag.
pub fn bytes_from_json(value: &Json) -> Result<Vec<u8>, String> {
    match value {
        Json::String(text) => Ok(text.clone().into_bytes()),
        Json::Object(map) if map.len() == 1 && map.contains_key("$b64") => decode64(&map["$b64"]),
        other => Err(format!("expected a string or {{\"$b64\": …}}, found {other}")),
    }
}

/// Reads the base64 text of a tag: the standard alphabet, with padding.
fn decode64(v: &Json) -> Result<Vec<u8>, String> {
    let text = v.as_str().ok_or("$b64 wants a string")?;
    BASE64.decode(text).map_err(|e| format!("$b64: {e}"))
}

/// Converts a value. Recurses to [`DEPTH_MAX`] at most, as the decoder has checked. Cannot
/// fail.
fn json_of(v: &Pack) -> Json {
    match v {
        Pack::Nil => Json::Null,
        Pack::Boolean(b) => Json::Bool(*b),
        // An integer is in the range of `u64` or of `i64`, so one of both is there.
        Pack::Integer(n) => match (n.as_u64(), n.as_i64()) {
            (Some(n), _) => n.into(),
            (None, n) => n.into(),
        },
        Pack::F32(n) => float(f64::from(*n)),
        Pack::F64(n) => float(*n),
        Pack::String(s) => match s.as_str() {
            Some(text) => text.into(),
            None => json!({ "$b64": BASE64.encode(s.as_bytes()) }),
        },
        Pack::Binary(b) => json!({ "$b64": BASE64.encode(b) }),
        Pack::Array(items) => items.iter().map(json_of).collect(),
        Pack::Ext(kind, data) => json!({ "$ext": [kind, BASE64.encode(data)] }),
        Pack::Map(entries) => {
            // A single key that is no UTF-8 string makes the whole map a list of pairs.
            let keys: Option<Vec<&str>> = entries.iter().map(|(k, _)| k.as_str()).collect();
            match keys {
                // A map with one key that starts with `$` would be read back as a tag.
                Some(keys) if !(keys.len() == 1 && keys[0].starts_with('$')) && distinct(&keys) => {
                    keys.into_iter().map(str::to_owned).zip(entries.iter().map(|(_, v)| json_of(v))).collect()
                }
                _ => {
                    let pairs: Vec<Json> =
                        entries.iter().map(|(k, v)| json!([json_of(k), json_of(v)])).collect();
                    json!({ "$map": pairs })
                }
            }
        }
    }
}

/// Whether no key is there twice: JSON objects can't hold both. O(n log n).
fn distinct(keys: &[&str]) -> bool {
    let mut sorted = keys.to_vec();
    sorted.sort_unstable();
    sorted.windows(2).all(|w| w[0] != w[1])
}

/// Number as JSON, tagged if JSON can't express it.
fn float(n: f64) -> Json {
    if n.is_finite() { n.into() } else { json!({ "$f64": n.to_string() }) }
}

/// Converts a value back, tags included. Recurses as deep as the JSON nests; a parser bounds
/// that to 128 levels.
fn pack_of(v: &Json) -> Result<Pack, String> {
    Ok(match v {
        Json::Null => Pack::Nil,
        Json::Bool(b) => Pack::Boolean(*b),
        Json::Number(n) => match (n.as_u64(), n.as_i64()) {
            (Some(n), _) => n.into(),
            (None, Some(n)) => n.into(),
            // Integers beyond 64 bits were read as floats by the JSON parser.
            _ => Pack::F64(n.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(s) => s.as_str().into(),
        Json::Array(items) => Pack::Array(items.iter().map(pack_of).collect::<Result<_, _>>()?),
        Json::Object(map) => match map.iter().next() {
            // Every object of this form is a tag: an unknown one is refused, so that a typing
            // error does not become data.
            Some((tag, inner)) if map.len() == 1 && tag.starts_with('$') => untag(tag, inner)?,
            _ => Pack::Map(
                map.iter()
                    .map(|(k, v)| Ok((k.as_str().into(), pack_of(v)?)))
                    .collect::<Result<_, String>>()?,
            ),
        },
    })
}

/// Reads a tagged value. The error names the tag and its form.
fn untag(tag: &str, inner: &Json) -> Result<Pack, String> {
    match tag {
        "$b64" => Ok(Pack::Binary(decode64(inner)?)),
        "$f64" => inner
            .as_str()
            .and_then(|s| s.parse().ok())
            .map(Pack::F64)
            .ok_or_else(|| format!("$f64 wants \"NaN\", \"inf\" or \"-inf\", found {inner}")),
        "$map" => {
            let pairs = inner.as_array().ok_or("$map wants a list of pairs")?;
            let pair = |p: &Json| match p.as_array().map(Vec::as_slice) {
                Some([k, v]) => Ok((pack_of(k)?, pack_of(v)?)),
                _ => Err(format!("$map wants pairs, found {p}")),
            };
            Ok(Pack::Map(pairs.iter().map(pair).collect::<Result<_, _>>()?))
        }
        "$ext" => match inner.as_array().map(Vec::as_slice) {
            Some([kind, data]) => {
                let kind = kind
                    .as_i64()
                    .and_then(|k| i8::try_from(k).ok())
                    .ok_or("$ext wants a type from -128 to 127")?;
                Ok(Pack::Ext(kind, decode64(data)?))
            }
            _ => Err("$ext wants [type, base64]".into()),
        },
        _ => Err(format!(
            "unknown tag {tag:?}; an object with one key that starts with `$` is written {{\"$map\": [[key, value]]}}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks a value's JSON, and that the same bytes come back.
    #[track_caller]
    fn check(value: Pack, json: &str) {
        let mut packed = Vec::new();
        rmpv::encode::write_value(&mut packed, &value).unwrap();
        let seen = to_json(&packed).unwrap();
        assert_eq!(seen.to_string(), json);
        assert_eq!(from_json(&seen).unwrap(), packed, "{json} reads back to the same bytes");
    }

    /// Each kind of value, and each reason for a tag.
    #[test]
    fn everything_survives() {
        check(Pack::Nil, "null");
        check(Pack::from(u64::MAX), "18446744073709551615");
        check(Pack::from(i64::MIN), "-9223372036854775808");
        check(Pack::F64(0.1), "0.1");
        check(Pack::F64(1.0), "1.0");
        check(Pack::F64(f64::NEG_INFINITY), r#"{"$f64":"-inf"}"#);
        check(Pack::from("ünï"), r#""ünï""#);
        check(Pack::Binary(vec![0, 255]), r#"{"$b64":"AP8="}"#);
        check(Pack::Array(vec![Pack::Boolean(true), Pack::from(1)]), "[true,1]");
        check(Pack::Map(vec![("b".into(), 1.into()), ("a".into(), 2.into())]), r#"{"b":1,"a":2}"#);
        check(Pack::Map(vec![(7.into(), "x".into())]), r#"{"$map":[[7,"x"]]}"#);
        check(Pack::Map(vec![("$b64".into(), "x".into())]), r#"{"$map":[["$b64","x"]]}"#);
        check(
            Pack::Map(vec![("a".into(), 1.into()), ("a".into(), 2.into())]),
            r#"{"$map":[["a",1],["a",2]]}"#,
        );
        check(Pack::Ext(-5, vec![1]), r#"{"$ext":[-5,"AQ=="]}"#);
        let nan = from_json(&json!({"$f64": "NaN"})).unwrap();
        assert_eq!(to_json(&nan).unwrap().to_string(), r#"{"$f64":"NaN"}"#);
    }

    /// Bytes that are no value, and tags that are malformed or unknown, are refused.
    #[test]
    fn garbage_is_named() {
        assert!(to_json(&[0x01, 0x02]).unwrap_err().contains("behind the value"));
        assert!(to_json(&[0x91]).unwrap_err().contains("not MessagePack"));
        assert!(to_json(&[0x91; 4096]).is_err(), "depth is bounded");
        for bad in
            [r#"{"$b64":1}"#, r#"{"$b64":"*"}"#, r#"{"$what":1}"#, r#"{"$map":[1]}"#, r#"{"$ext":[999,""]}"#]
        {
            assert!(from_json(&serde_json::from_str(bad).unwrap()).is_err(), "{bad}");
        }
        assert_eq!(bytes_from_json(&bytes_to_json(b"\xff\n")).unwrap(), b"\xff\n");
    }
}
