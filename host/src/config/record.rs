//! Configurations between processes: in the first message to a worker, in a proposal, and in
//! the record of the one in force.
//!
//! Keeper, worker and record may be of different versions, and the reader may be the older one.
//! So unknown fields are left out here, and missing ones have their defaults. Only the file
//! that an operator writes is read strictly ([`Config::read`]): there an unknown key is a
//! mistake.
//!
//! A struct of the configuration refuses unknown fields itself. `KnownFields` therefore removes
//! them before the struct sees them. No struct needs a second, tolerant form, and a new field
//! needs no code here. What was left out is named in the log: an operator must know that a
//! value is not in force.

use crate::config::Config;
use crate::config::changes::flatten;
use crate::config::file_contents::FileContents;
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{Deserializer, IntoDeserializer, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};
use serde_json::Value;
use std::collections::BTreeMap;

/// A configuration read without its unknown fields.
#[derive(Debug)]
pub struct RecordedConfig {
    /// The configuration.
    pub config: Config,
    /// Names of the values that were left out, with dots, in order.
    pub unknown: Vec<String>,
}

impl RecordedConfig {
    /// Returns the configuration, and names in the log what was left out. For values that are
    /// read after logging has started.
    pub fn into_config(self) -> Config {
        warn_of(&self.unknown);
        self.config
    }
}

/// Names in the log the values of a configuration that were left out. Empty: logs nothing.
pub fn warn_of(unknown: &[String]) {
    if !unknown.is_empty() {
        let unknown = unknown.join(", ");
        tracing::warn!("configuration: this version doesn't know {unknown}; that is left out");
    }
}

/// Field of the contents of files.
const FILES: &str = "files";

impl Config {
    /// This configuration as JSON, without the contents of files: their hashes say enough.
    /// O(values).
    pub fn without_contents(&self) -> Value {
        let values = Config { files: FileContents::default(), ..self.clone() };
        serde_json::to_value(values).unwrap_or_default()
    }
}

/// Reads a configuration without its unknown fields, for `#[serde(deserialize_with)]`. The
/// caller cannot learn what was left out; [`unknown_fields`] finds that from the record.
pub fn without_unknown<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Config, D::Error> {
    RecordedConfig::deserialize(deserializer).map(|record| record.config)
}

impl<'de> Deserialize<'de> for RecordedConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RecordedConfig, D::Error> {
        use serde::de::Error;
        let mut record = Value::deserialize(deserializer)?;
        // Taken out first: what follows copies the rest.
        let files = record.as_object_mut().and_then(|fields| fields.remove(FILES));
        let files = files.map_or(Ok(FileContents::default()), serde_json::from_value);
        let mut config = Config::deserialize(KnownFields(record.clone())).map_err(D::Error::custom)?;
        config.files = files.map_err(D::Error::custom)?;
        let unknown = unknown_fields(&record, &config);
        Ok(RecordedConfig { config, unknown })
    }
}

/// Names of the values in a record that a configuration read from it does not have.
///
/// The configuration is written again and compared by names. A field that is unknown and null
/// or an empty list is not named: it has no effect. Contents of files are known by their hashes.
pub fn unknown_fields(record: &Value, config: &Config) -> Vec<String> {
    let names = |value: &Value| {
        let mut names = BTreeMap::new();
        flatten("", value, &mut names);
        names
    };
    let known = names(&config.without_contents());
    let is_content = |name: &str| name.split('.').next() == Some(FILES);
    names(record).into_keys().filter(|name| !known.contains_key(name) && !is_content(name)).collect()
}

/// JSON from which a struct is read without the fields that the struct does not have. Maps keep
/// all keys: services and settings have names of their own.
struct KnownFields(Value);

impl<'de> IntoDeserializer<'de, serde_json::Error> for KnownFields {
    type Deserializer = KnownFields;

    fn into_deserializer(self) -> KnownFields {
        self
    }
}

impl<'de> Deserializer<'de> for KnownFields {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, serde_json::Error> {
        match self.0 {
            Value::Array(items) => {
                // Wrapped again, as everything below: a struct may stand at any depth.
                visitor.visit_seq(SeqDeserializer::new(items.into_iter().map(KnownFields)))
            }
            Value::Object(fields) => {
                let fields = fields.into_iter().map(|(name, value)| (name, KnownFields(value)));
                visitor.visit_map(MapDeserializer::new(fields))
            }
            other => other.deserialize_any(visitor),
        }
    }

    /// Removes the fields that the struct does not name. Serde gives the names of the fields
    /// here.
    fn deserialize_struct<V: Visitor<'de>>(
        mut self,
        _name: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, serde_json::Error> {
        if let Value::Object(fields) = &mut self.0 {
            fields.retain(|name, _| known.contains(&name.as_str()));
        }
        self.deserialize_any(visitor)
    }

    /// Null is `None`. A value is read as its own type, so that a struct inside is filtered,
    /// too.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, serde_json::Error> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    /// Passes through: a type that wraps another one is written as the other one.
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, serde_json::Error> {
        visitor.visit_newtype_struct(self)
    }

    /// Reads a variant by its name. An unknown variant is an error: it has no default.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, serde_json::Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::read;
    use serde_json::json;

    /// A configuration with a value at each place where a later version may add one.
    fn full() -> Config {
        read(
            "handlers = [\"/a\"]\nwatch = false\n[limits]\nidle_ms = 5\n[save]\nevery_s = 9\n[trust]\nowners = [7]\n\
             [service.chat]\nlisten = [\"127.0.0.1:1\", \"[::1]:1\"]\nsettings = {a = 1, b = {c = [1.5, \"x\"]}}\n\
             limits = {frame_ms = 3}\n",
        )
        .unwrap()
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let written = full();
        let RecordedConfig { config, .. } =
            serde_json::from_value(serde_json::to_value(&written).unwrap()).unwrap();
        assert_eq!(written.changes(&config), (Vec::new(), Vec::new()));
        assert_eq!(config.settings()["chat"], written.settings()["chat"]);
    }

    #[test]
    fn a_later_versions_limits_and_sections_are_left_out_by_name() {
        let written = full();
        let mut record = serde_json::to_value(&written).unwrap();
        record["limits"]["later_ms"] = json!(5);
        record["service"]["chat"]["limits"]["later_max"] = json!(6);
        record["service"]["chat"]["transport"] = json!("udp");
        record["save"]["format"] = json!({"version": 2});
        record["metrics"] = json!({"listen": ["127.0.0.1:9"]});
        // The file that an operator writes is read strictly.
        assert!(serde_json::from_value::<Config>(record.clone()).is_err());
        let RecordedConfig { config, unknown } = serde_json::from_value(record.clone()).unwrap();
        assert_eq!(written.changes(&config), (Vec::new(), Vec::new()));
        assert_eq!(
            unknown,
            [
                "limits.later_ms",
                "metrics.listen",
                "save.format.version",
                "service.chat.limits.later_max",
                "service.chat.transport"
            ]
        );
        // Contents of files are no values of a later version.
        record["files"] = json!({"ab": "b25l"});
        assert_eq!(unknown_fields(&record, &config), unknown);
        record["limits"]["idle_ms"] = json!("soon");
        let said = serde_json::from_value::<RecordedConfig>(record).unwrap_err().to_string();
        assert!(said.contains("invalid type"), "{said}");
    }

    #[test]
    fn an_earlier_versions_record_has_the_defaults_of_what_it_lacks() {
        let RecordedConfig { config, .. } = serde_json::from_value(json!({"watch": false})).unwrap();
        assert!(!config.watch);
        assert_eq!(config.limits, Config::default().limits);
    }
}
