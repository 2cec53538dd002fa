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
//! | an integer beyond 2^53, if a dump is asked for it | `{"$int": "9007199254740993"}` |
//! | a whole value that is no MessagePack | `{"$raw": "wQ=="}` |
//!
//! Values survive the way to JSON and back, but not every detail of their form. A float of 32
//! bits comes back in 64, and text that is not UTF-8 comes back as bytes. The order of a map's
//! keys is kept.
//!
//! Callers: dumps, edits and restores of operators, the rehearsal's comparison, and the SDK's
//! tests of migrations. No turn comes here. Each conversion is O(bytes), and makes a tree of
//! the value.

use crate::nesting::{DEPTH_MAX, too_deep};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rmpv::Value as Pack;
use serde_json::{Value as Json, json};

/// JSON for one MessagePack value. Fails on bytes that are none, nest deeper than [`DEPTH_MAX`],
/// or go on behind the value.
pub fn to_json(packed: &[u8]) -> Result<Json, String> {
    Ok(json_of(&unpack(packed)?))
}

/// JSON for a stored value, whatever it is: bytes that [`to_json`] refuses are tagged, and
/// [`from_json`] gives the same bytes back.
pub fn stored_to_json(packed: &[u8]) -> Json {
    to_json(packed).unwrap_or_else(|_| json!({ "$raw": BASE64.encode(packed) }))
}

/// Whether MessagePack has the byte that no value begins with. The decoder reads it as nil, so what
/// it means would come back as something else. O(bytes).
fn has_reserved(packed: &[u8]) -> bool {
    // Strings, bytes and extensions are passed over; containers lie in front of their items.
    let number = |at: usize, bytes: usize| {
        packed.get(at..at + bytes).map_or(0, |b| b.iter().fold(0, |n, byte| n << 8 | usize::from(*byte)))
    };
    let mut at = 0;
    while let Some(marker) = packed.get(at) {
        at += match marker {
            0xc1 => return true,
            0xa0..=0xbf => 1 + usize::from(marker & 0x1f),
            0xc4 | 0xd9 => 2 + number(at + 1, 1),
            0xc5 | 0xda => 3 + number(at + 1, 2),
            0xc6 | 0xdb => 5 + number(at + 1, 4),
            0xc7 => 3 + number(at + 1, 1),
            0xc8 => 4 + number(at + 1, 2),
            0xc9 => 6 + number(at + 1, 4),
            0xcc | 0xd0 => 2,
            0xcd | 0xd1 | 0xdc | 0xde => 3,
            0xca | 0xce | 0xd2 | 0xdd | 0xdf => 5,
            0xcb | 0xcf | 0xd3 => 9,
            0xd4..=0xd8 => 2 + (1 << (marker - 0xd4)),
            _ => 1,
        };
    }
    false
}

/// Reads one MessagePack value, as [`to_json`] does.
pub(crate) fn unpack(packed: &[u8]) -> Result<Pack, String> {
    if packed.contains(&0xc1) && has_reserved(packed) {
        return Err("not MessagePack: byte 0xc1 is no value".into());
    }
    let mut rest = packed;
    // The decoder counts two levels for each container, and up to three for what is in it.
    let value = rmpv::decode::read_value_with_max_depth(&mut rest, 2 * DEPTH_MAX + 1)
        .map_err(|e| format!("not MessagePack: {e}"))?;
    match rest {
        [] if fits(&value, DEPTH_MAX) => Ok(value),
        [] => Err(too_deep()),
        _ => Err(format!("{} bytes behind the value", rest.len())),
    }
}

/// Whether a value has no more levels than these.
fn fits(v: &Pack, levels: usize) -> bool {
    levels > 0
        && match v {
            Pack::Array(items) => items.iter().all(|v| fits(v, levels - 1)),
            Pack::Map(entries) => entries.iter().all(|(k, v)| fits(k, levels - 1) && fits(v, levels - 1)),
            _ => true,
        }
}

/// MessagePack for one JSON value. Fails if a tag is malformed or unknown; the error names it.
/// Fails if the value would nest deeper than [`DEPTH_MAX`]. Of a `$raw` tag the bytes are returned
/// as they are.
pub fn from_json(value: &Json) -> Result<Vec<u8>, String> {
    if let Some(raw) = value.as_object().filter(|map| map.len() == 1).and_then(|map| map.get("$raw")) {
        return decode64(raw).map_err(|why| why.replace("$b64", "$raw"));
    }
    let mut out = Vec::new();
    rmpv::encode::write_value(&mut out, &pack_of(value, DEPTH_MAX)?).map_err(|e| e.to_string())?;
    Ok(out)
}

/// Largest integer up to which a float of 64 bits holds each one: 2^53.
const EXACT_MAX: u64 = 1 << 53;

/// Writes integers beyond 2^53 as `{"$int": "…"}`: programs that read all numbers as floats would
/// change them. O(value).
pub fn tag_large_integers(value: &mut Json) {
    match value {
        Json::Number(n) => {
            let size = n.as_u64().or_else(|| n.as_i64().map(i64::unsigned_abs));
            if size.is_some_and(|size| size > EXACT_MAX) {
                *value = json!({ "$int": n.to_string() });
            }
        }
        Json::Array(items) => items.iter_mut().for_each(tag_large_integers),
        Json::Object(map) => map.values_mut().for_each(tag_large_integers),
        _ => {}
    }
}

/// Reverse of [`tag_large_integers`]: the value is then as a plain dump has it, so that it can be
/// compared. A malformed tag stays, and [`from_json`] refuses it.
pub fn untag_integers(value: &mut Json) {
    match value {
        Json::Array(items) => items.iter_mut().for_each(untag_integers),
        Json::Object(map) => match map.get("$int").filter(|_| map.len() == 1).and_then(integer) {
            Some(n) => *value = n,
            None => map.values_mut().for_each(untag_integers),
        },
        _ => {}
    }
}

/// Integer of an `$int` tag; `None`: it is malformed, or has more than 64 bits.
fn integer(inner: &Json) -> Option<Json> {
    let text = inner.as_str()?;
    text.parse::<u64>().map(Json::from).or_else(|_| text.parse::<i64>().map(Json::from)).ok()
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

/// Converts a value. Recurses to [`DEPTH_MAX`] at most, as [`unpack`] has checked. Cannot fail.
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

/// Converts a value back, tags included, to a value of at most so many levels. A path of an edit
/// may have made the JSON, so no parser has bounded it.
fn pack_of(v: &Json, levels: usize) -> Result<Pack, String> {
    let Some(below) = levels.checked_sub(1) else { return Err(too_deep()) };
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
        Json::Array(items) => Pack::Array(items.iter().map(|v| pack_of(v, below)).collect::<Result<_, _>>()?),
        Json::Object(map) => match map.iter().next() {
            // Every object of this form is a tag: an unknown one is refused, so that a typing
            // error does not become data.
            Some((tag, inner)) if map.len() == 1 && tag.starts_with('$') => untag(tag, inner, below)?,
            _ => Pack::Map(
                map.iter()
                    .map(|(k, v)| Ok((k.as_str().into(), pack_of(v, below)?)))
                    .collect::<Result<_, String>>()?,
            ),
        },
    })
}

/// Reads a tagged value, whose parts have at most so many levels. The error names the tag and its
/// form.
fn untag(tag: &str, inner: &Json, below: usize) -> Result<Pack, String> {
    match tag {
        "$b64" => Ok(Pack::Binary(decode64(inner)?)),
        "$f64" => inner
            .as_str()
            .and_then(|s| s.parse().ok())
            .map(Pack::F64)
            .ok_or_else(|| format!("$f64 wants \"NaN\", \"inf\" or \"-inf\", found {inner}")),
        "$int" => match integer(inner) {
            Some(n) => pack_of(&n, 1),
            None => Err(format!("$int wants an integer of 64 bits as a string, found {inner}")),
        },
        "$map" => {
            let pairs = inner.as_array().ok_or("$map wants a list of pairs")?;
            let pair = |p: &Json| match p.as_array().map(Vec::as_slice) {
                Some([k, v]) => Ok((pack_of(k, below)?, pack_of(v, below)?)),
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

    #[test]
    fn bytes_that_are_no_messagepack_come_back_as_they_are() {
        // The reserved byte alone and in a map, a byte behind a value, a cut string, nothing.
        for raw in [&b"\xc1"[..], b"\x81\xa1a\xc1", b"\x81\xa1a\x01\x02", b"\xa3a", b""] {
            assert!(to_json(raw).is_err(), "{raw:?}");
            let shown = stored_to_json(raw);
            assert!(shown.get("$raw").is_some(), "{shown}");
            assert_eq!(from_json(&shown).unwrap(), raw);
        }
        // The same byte within strings, bytes, numbers and extensions is data.
        for whole in [
            &b"\xc4\x01\xc1"[..],
            b"\xcc\xc1",
            b"\xd4\xc1\xc1",
            b"\xc7\x02\x05\xc1\xc1",
            b"\xcf\xc1\xc1\xc1\xc1\xc1\xc1\xc1\xc1",
            b"\x92\xcd\xc1\xc1\xa1a",
            b"\xc5\x00\x01\xc1",
        ] {
            let shown = stored_to_json(whole);
            assert!(shown.get("$raw").is_none(), "{shown}");
            assert_eq!(stored_to_json(&from_json(&shown).unwrap()), shown);
        }
        let look_alike = from_json(&json!({"$map": [["$raw", "wQ=="]]})).unwrap();
        assert_eq!(stored_to_json(&look_alike), json!({"$map": [["$raw", "wQ=="]]}));
        assert!(from_json(&json!({"a": {"$raw": "wQ=="}})).unwrap_err().contains("unknown tag"));
        assert!(from_json(&json!({"$raw": 1})).is_err());
    }

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

    /// A value of the last level is converted both ways, through JSON text, even if each level is a
    /// map of pairs. One more level is refused both ways.
    #[test]
    fn the_last_level_is_converted_and_the_next_refused() {
        let wrap: [fn(Pack) -> Pack; 3] = [
            |v| Pack::Array(vec![v]),
            |v| Pack::Map(vec![("a".into(), v)]),
            |v| Pack::Map(vec![(7.into(), v)]),
        ];
        for wrap in wrap {
            for leaf in [Pack::Nil, Pack::from("text"), Pack::Array(Vec::new()), Pack::Ext(1, vec![0; 9])] {
                let nested = |levels| (1..levels).fold(leaf.clone(), |v, _| wrap(v));
                let packed = |v: &Pack| {
                    let mut bytes = Vec::new();
                    rmpv::encode::write_value(&mut bytes, v).unwrap();
                    bytes
                };
                let last = packed(&nested(DEPTH_MAX));
                let text = to_json(&last).unwrap().to_string();
                let read: Json = crate::parse::parse(text.as_bytes()).unwrap();
                assert_eq!(from_json(&read).unwrap(), last);
                let over = nested(DEPTH_MAX + 1);
                assert!(to_json(&packed(&over)).is_err());
                assert_eq!(from_json(&json_of(&over)).unwrap_err(), too_deep());
            }
        }
    }

    /// Integers that a float can't hold are strings in a tag, and come back as they were.
    #[test]
    fn large_integers_may_be_strings() {
        let plain = json!({"a": [9007199254740993u64, 5, -9007199254740993i64], "b": 9007199254740992u64});
        let mut tagged = plain.clone();
        tag_large_integers(&mut tagged);
        let text =
            r#"{"a":[{"$int":"9007199254740993"},5,{"$int":"-9007199254740993"}],"b":9007199254740992}"#;
        assert_eq!(tagged.to_string(), text);
        assert_eq!(from_json(&tagged), from_json(&plain));
        untag_integers(&mut tagged);
        assert_eq!(tagged, plain);
    }

    /// Bytes that are no value, and tags that are malformed or unknown, are refused.
    #[test]
    fn garbage_is_named() {
        assert!(to_json(&[0x01, 0x02]).unwrap_err().contains("behind the value"));
        assert!(to_json(&[0x91]).unwrap_err().contains("not MessagePack"));
        assert!(to_json(&[0x91; 4096]).is_err(), "depth is bounded");
        for bad in [
            r#"{"$int":5}"#,
            r#"{"$int":"x"}"#,
            r#"{"$b64":1}"#,
            r#"{"$b64":"*"}"#,
            r#"{"$what":1}"#,
            r#"{"$map":[1]}"#,
            r#"{"$ext":[999,""]}"#,
        ] {
            assert!(from_json(&serde_json::from_str(bad).unwrap()).is_err(), "{bad}");
        }
        assert_eq!(bytes_from_json(&bytes_to_json(b"\xff\n")).unwrap(), b"\xff\n");
    }
}
