//! Types that MessagePack carries round: what is stored comes back as what it was.
//!
//! A turn that stores a value which can't be read again fails (`encode.rs`). That is late, so types
//! are tried earlier: a test host compares all that a turn stores with what is read again, and
//! [`try_samples`] tries a type when its build is loaded, as a check and a rehearsal do. Samples
//! follow the type's schema, a branch of it at a time. What no schema shows, such as `Some(None)`,
//! is found by tests and turns alone.

use crate::encode::{encode, stored};
use greenroom_state::same_value::same_with_sets;
use greenroom_state::schema::Schema;
use greenroom_state::sets::Sets;
use rmpv::Value as Pack;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json, json};
use std::cell::Cell;

/// Samples of one type. More branches than these are not tried.
const SAMPLES_MAX: usize = 200;
/// Levels of a sample. Types that contain themselves end there, by what may be empty.
const LEVELS: usize = 12;

thread_local! {
    /// Whether what is stored on this thread is compared with what is read again.
    static COMPARES: Cell<bool> = const { Cell::new(false) };
}

/// Has what is stored on this thread compared while `f` runs.
pub(crate) fn comparing<T>(f: impl FnOnce() -> T) -> T {
    let before = COMPARES.replace(true);
    let result = f();
    COMPARES.set(before);
    result
}

/// Encodes a value as [`stored`] does. In tests it is compared with what is read again.
pub(crate) fn stored_as_is<T: Serialize + DeserializeOwned>(value: &T) -> Result<Vec<u8>, String> {
    let bytes = stored(value).map_err(|e| with_advice(&e))?;
    match COMPARES.get() {
        true => comes_back::<T>(&bytes, None).map(|()| bytes),
        false => Ok(bytes),
    }
}

/// Fails if stored bytes are read as another value. The error names the place and says what to
/// write.
fn comes_back<T: Serialize + DeserializeOwned>(bytes: &[u8], schema: Option<&Schema>) -> Result<(), String> {
    let value: T = rmp_serde::from_slice(bytes).map_err(|e| with_advice(&e.to_string()))?;
    let again = encode(&value)?;
    // Without a schema any list may be a set.
    let sets = schema.map_or_else(Sets::everywhere, |schema| Sets::of(Some(schema)));
    if same_with_sets(bytes, &again, &sets) {
        return Ok(());
    }
    let read = |bytes: &[u8]| rmpv::decode::read_value(&mut &*bytes).unwrap_or(Pack::Nil);
    let (place, before, after) = difference(&read(bytes), &read(&again), String::new());
    Err(format!(
        "{place} is stored as {before} and read again as {after}: a value of its type does not come back; \
         store it as another type, such as an enum with a tag"
    ))
}

/// First place where two values differ, and what is there in each.
fn difference(a: &Pack, b: &Pack, place: String) -> (String, String, String) {
    let under = |name: String| if place.is_empty() { name } else { format!("{place}.{name}") };
    match (a, b) {
        (Pack::Map(these), Pack::Map(those)) => {
            for (key, value) in these {
                let other = those.iter().find(|(k, _)| k == key).map(|(_, v)| v);
                if other != Some(value) {
                    let name = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
                    return difference(value, other.unwrap_or(&Pack::Nil), under(name));
                }
            }
        }
        (Pack::Array(these), Pack::Array(those)) if these.len() == those.len() => {
            let at = these.iter().zip(those).position(|(a, b)| a != b);
            if let Some(at) = at {
                return difference(&these[at], &those[at], under(at.to_string()));
            }
        }
        _ => {}
    }
    let place = if place.is_empty() { "it".to_owned() } else { format!("field {place}") };
    (place, a.to_string(), b.to_string())
}

/// Words of an error of serde, and what to write.
fn with_advice(e: &str) -> String {
    let advice = [
        ("missing field", "a field that is left out when it is written needs #[serde(default)]"),
        ("untagged enum", "give the enum a tag: without one, bytes are taken for text or a list"),
        ("Some of nothing", "use an enum for what may be missing in two ways"),
        ("expected identifier", "a flattened map has keys of text"),
        ("invalid type", "its two halves, Serialize and Deserialize, must be of one form"),
    ];
    match advice.iter().find(|(words, _)| e.contains(words)) {
        Some((_, advice)) => format!("{e}: {advice}"),
        None => e.to_owned(),
    }
}

/// Tries samples of a type, made from its schema, and refuses the type if one is stored and not
/// read again as it was. A sample that the type itself refuses tells nothing.
pub(crate) fn try_samples<T: Serialize + DeserializeOwned>(schema: &Json) -> Result<(), String> {
    let known = Schema::from(schema.clone());
    for (place, sample) in samples(schema, schema, LEVELS) {
        let Ok(value) = serde_json::from_value::<T>(sample) else { continue };
        let tried = stored(&value).map_err(|e| with_advice(&e));
        let tried = tried.and_then(|bytes| comes_back::<T>(&bytes, Some(&known)));
        tried.map_err(|e| match place.is_empty() || e.starts_with("field ") {
            true => e,
            false => format!("field {place}: {e}"),
        })?;
    }
    Ok(())
}

/// Samples of a schema: the first has the first branch everywhere, each other one another branch at
/// the place that it names.
fn samples(root: &Json, schema: &Json, levels: usize) -> Vec<(String, Json)> {
    let Some(levels) = levels.checked_sub(1) else { return Vec::new() };
    let schema = match schema["$ref"].as_str().and_then(|path| root.pointer(path.trim_start_matches('#'))) {
        Some(of) => of,
        None => schema,
    };
    let mut all = branches(root, schema, levels);
    all.truncate(SAMPLES_MAX);
    all
}

/// Samples of a schema that is no reference.
fn branches(root: &Json, schema: &Json, levels: usize) -> Vec<(String, Json)> {
    let plain = |value: Json| vec![(String::new(), value)];
    if let Some(value) = schema.get("const") {
        return plain(value.clone());
    }
    if let Some(values) = schema["enum"].as_array() {
        return values.iter().map(|v| (String::new(), v.clone())).collect();
    }
    if let Some(of) = ["anyOf", "oneOf"].iter().find_map(|key| schema[*key].as_array()) {
        return of.iter().flat_map(|branch| samples(root, branch, levels)).collect();
    }
    let types: Vec<_> = match &schema["type"] {
        Json::Array(types) => types.iter().filter_map(Json::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    };
    let mut all = Vec::new();
    for of in types {
        all.extend(match of {
            "object" => objects(root, schema, levels),
            "array" => lists(root, schema, levels),
            "string" => texts(schema).into_iter().map(|text| (String::new(), json!(text))).collect(),
            "integer" => plain(json!(schema["minimum"].as_i64().unwrap_or(0).max(1))),
            "number" => plain(json!(0.5)),
            "boolean" => plain(json!(true)),
            _ => plain(Json::Null),
        });
    }
    all
}

/// Samples of an object, with all of its properties, or an entry of a map.
fn objects(root: &Json, schema: &Json, levels: usize) -> Vec<(String, Json)> {
    let mut parts: Vec<(String, Vec<(String, Json)>)> = Vec::new();
    for (name, of) in schema["properties"].as_object().into_iter().flatten() {
        parts.push((name.clone(), samples(root, of, levels)));
    }
    if schema["additionalProperties"].is_object() {
        parts.push(("more".into(), samples(root, &schema["additionalProperties"], levels)));
    }
    // The keys of maps of numbers have a pattern.
    for of in schema["patternProperties"].as_object().into_iter().flatten().map(|(_, of)| of) {
        parts.push(("1".into(), samples(root, of, levels)));
    }
    combined(&parts, |values| {
        Json::Object(values.map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>())
    })
}

/// Samples of a list: of one item, or of each item of a tuple.
fn lists(root: &Json, schema: &Json, levels: usize) -> Vec<(String, Json)> {
    let items = match (schema["prefixItems"].as_array(), &schema["items"]) {
        (Some(items), _) => items.clone(),
        (None, of @ Json::Object(_)) => {
            vec![of.clone(); schema["minItems"].as_u64().unwrap_or(1).clamp(1, 64) as usize]
        }
        _ => Vec::new(),
    };
    let parts: Vec<_> =
        items.iter().enumerate().map(|(at, of)| (at.to_string(), samples(root, of, levels))).collect();
    combined(&parts, |values| Json::Array(values.map(|(_, value)| value).collect()))
}

/// Samples of a whole: the first sample of each part, and each other one beside the first ones of
/// the others. Parts without a sample are left out.
fn combined(
    parts: &[(String, Vec<(String, Json)>)],
    whole: impl Fn(&mut dyn Iterator<Item = (&str, Json)>) -> Json,
) -> Vec<(String, Json)> {
    let with = |changed: usize, sample: usize| {
        let each = parts.iter().enumerate().filter_map(|(at, (name, of))| {
            let sample = of.get(if at == changed { sample } else { 0 })?;
            Some((name.as_str(), sample.1.clone()))
        });
        whole(&mut { each })
    };
    let mut all = vec![(String::new(), with(0, 0))];
    for (at, (name, of)) in parts.iter().enumerate() {
        for (sample, (place, _)) in of.iter().enumerate().skip(1) {
            let place = if place.is_empty() { name.clone() } else { format!("{name}.{place}") };
            all.push((place, with(at, sample)));
        }
    }
    all.truncate(SAMPLES_MAX);
    all
}

/// Texts of the formats that are usual, and a plain one.
fn texts(schema: &Json) -> Vec<&'static str> {
    match schema["format"].as_str() {
        Some("ip") => vec!["127.0.0.1", "::1"],
        Some("ipv4") => vec!["127.0.0.1"],
        Some("ipv6") => vec!["::1"],
        Some("uuid") => vec!["67e55044-10b1-426f-9247-bb680e5fe0c8"],
        Some("date-time") => vec!["2020-01-01T00:00:00Z"],
        Some("date") => vec!["2020-01-01"],
        _ => vec!["a", ""],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemars::{JsonSchema, schema_for};
    use serde::Deserialize;
    use std::collections::{BTreeMap, HashMap, HashSet};
    use std::net::IpAddr;

    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Fine {
        number: Option<u64>,
        wide: u128,
        list: Vec<Option<Kind>>,
        map: HashMap<u32, HashSet<String>>,
        pair: (i8, char, [u8; 3]),
        ip: IpAddr,
        kind: Kind,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        left_out: Option<String>,
        next: Option<Box<Fine>>,
        #[serde(flatten)]
        more: BTreeMap<String, f64>,
    }
    #[derive(Serialize, Deserialize, JsonSchema)]
    enum Kind {
        Unit,
        New(String),
        Pair(u8, bool),
        Named { at: IpAddr },
    }
    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(untagged)]
    enum Origin {
        Name(String),
        Ip { at: IpAddr },
        Number(i64),
    }
    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(untagged)]
    enum Bare {
        Ip(IpAddr),
        Other(bool),
    }
    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Outer<T> {
        inner: Inner<T>,
    }
    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Inner<T> {
        value: T,
    }
    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Skips {
        #[serde(skip_serializing_if = "String::is_empty")]
        name: String,
    }
    #[derive(Debug, Serialize, Deserialize, JsonSchema)]
    #[serde(from = "u8")]
    struct Halved(u8);
    impl From<u8> for Halved {
        fn from(n: u8) -> Halved {
            Halved(n / 2)
        }
    }

    fn tried<T: Serialize + DeserializeOwned + JsonSchema>() -> Result<(), String> {
        try_samples::<T>(&schema_for!(T).to_value())
    }

    #[test]
    fn types_that_come_back_are_fine() {
        assert_eq!(tried::<Fine>(), Ok(()));
        assert_eq!(tried::<Outer<Kind>>(), Ok(()));
        assert_eq!(tried::<()>(), Ok(()));
    }

    #[test]
    fn types_that_do_not_come_back_are_named_with_what_to_write() {
        let why = tried::<Outer<Bare>>().unwrap_err();
        assert!(why.starts_with("field inner.value: ") || why.contains("untagged"), "{why}");
        assert!(why.contains("give the enum a tag"), "{why}");
        let why = tried::<Outer<Origin>>().unwrap_err();
        assert!(why.contains("inner.value") && why.contains("give the enum a tag"), "{why}");
        let why = tried::<Outer<Skips>>().unwrap_err();
        assert!(why.contains("missing field `name`") && why.contains("#[serde(default)]"), "{why}");
        // What a test host finds.
        let why = comparing(|| stored_as_is(&Inner { value: Halved(8) })).unwrap_err();
        assert!(why.starts_with("field value is stored as 8 and read again as 4"), "{why}");
        let why = stored_as_is(&Inner { value: Some(None::<u8>) }).unwrap_err();
        assert!(
            why.starts_with("field value: it is Some of nothing") && why.contains("use an enum"),
            "{why}"
        );
    }
}
