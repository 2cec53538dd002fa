//! Bounds on the types of a handler, with errors of the build that say what to write.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Type that has a schema: any that implements [`JsonSchema`]. The host compares the schemas of
/// two builds, so it knows when states must be migrated.
///
/// ```
/// use greenroom_handler::HasSchema;
///
/// #[derive(schemars::JsonSchema)]
/// struct Count {
///     lines: u64,
/// }
///
/// assert_eq!(Count::schema()["properties"]["lines"]["type"], "integer");
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no schema, so the host can't compare it with the one of another build",
    label = "needs `#[derive(schemars::JsonSchema)]`",
    note = "a state is plain data: #[derive(Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]"
)]
pub trait HasSchema {
    /// Schema of the type, as JSON.
    fn schema() -> Value;
}

#[diagnostic::do_not_recommend]
impl<T: JsonSchema> HasSchema for T {
    fn schema() -> Value {
        schemars::schema_for!(T).to_value()
    }
}

/// Type that settings are read as: any that implements [`DeserializeOwned`].
///
/// ```
/// use greenroom_handler::Settings;
///
/// #[derive(serde::Deserialize)]
/// struct Room {
///     topic: String,
///     #[serde(default)]
///     seats: u32,
/// }
///
/// // The host passes `[service.room.settings]` as JSON.
/// let room = Room::read(br#"{"topic": "cats"}"#).unwrap();
/// assert_eq!((room.topic.as_str(), room.seats), ("cats", 0));
/// let why = Room::read(br#"{"seats": 3}"#).err().unwrap();
/// assert!(why.contains("missing field `topic`"));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be read from the settings of a service",
    label = "needs `#[derive(serde::Deserialize)]`",
    note = "settings are a struct with a field for each key of `[service.NAME.settings]`, a table of TOML"
)]
pub trait Settings: Sized {
    /// Reads the settings, JSON as the host passes them. The error is for the operator.
    fn read(text: &[u8]) -> Result<Self, String>;
}

#[diagnostic::do_not_recommend]
impl<T: DeserializeOwned> Settings for T {
    fn read(text: &[u8]) -> Result<T, String> {
        let mut json = serde_json::Deserializer::from_slice(text);
        let read = serde_path_to_error::deserialize(&mut json);
        read.map_err(|e| match in_words(&e) {
            // No settings of any file would do: the mistake is the author's.
            why if why.starts_with("invalid type: map, expected")
                && text.trim_ascii_start().starts_with(b"{}") =>
            {
                format!("{why}: `type Config` must be a struct with named fields, as settings are a table")
            }
            why => why,
        })
    }
}

/// Words of an error of settings: the key, if it is known, and the reason. The line is that of a
/// text which nobody wrote.
fn in_words(e: &serde_path_to_error::Error<serde_json::Error>) -> String {
    let (key, why) = (e.path().to_string(), e.inner().to_string());
    let why = why.rsplit_once(" at line ").map_or(&*why, |(why, _)| why);
    let says_it = key == "." || key == "?" || why.starts_with("unknown field");
    if says_it { why.to_owned() } else { format!("{key}: {why}") }
}

/// Service that is made of its settings: any that implements `From` of them.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be made of its settings, `{C}`",
    label = "needs `fn new(settings: {C}) -> Result<Self, String>` in its `impl Handler`",
    note = "or `impl From<{C}> for {Self}`; or, with `type Config = Self`, the service is its own settings"
)]
pub trait FromSettings<C> {
    /// Makes the service.
    fn from_settings(settings: C) -> Self;
}

#[diagnostic::do_not_recommend]
impl<C, T: From<C>> FromSettings<C> for T {
    fn from_settings(settings: C) -> T {
        T::from(settings)
    }
}

/// Configuration of a service that has none: any key is refused.
///
/// ```
/// use greenroom_handler::{Handler, NoConfig, Result};
///
/// struct Echo;
/// /// Without `#[handler]`, each type is written.
/// impl Handler for Echo {
///     const SERVICE: &'static str = "echo";
///     /// Connections that turns make; it needs no port.
///     const DIALS: bool = true;
///     type State = ();
///     type Config = NoConfig;
///     fn new(_: NoConfig) -> Result<Echo, String> {
///         Ok(Echo)
///     }
/// }
///
/// let settings = r#"{"color": "red"}"#;
/// let refused = greenroom_handler::testing::TestHost::<Echo>::new(settings).err().unwrap();
/// assert!(refused.contains("unknown field `color`"));
/// ```
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoConfig {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NoConfig;

    #[test]
    fn settings_that_are_no_table_say_what_to_write() {
        for why in [String::read(b"{}").map(drop), Vec::<u8>::read(b"{}").map(drop)] {
            let why = why.unwrap_err();
            assert!(why.contains("`type Config` must be a struct with named fields"), "{why}");
        }
        assert!(NoConfig::read(b"{}").is_ok());
        assert!(NoConfig::read(b"{\"a\": 1}").unwrap_err().starts_with("unknown field `a`"));
        let of_a_key = std::collections::BTreeMap::<String, Vec<u8>>::read(b"{\"a\": [1, true]}");
        assert_eq!(of_a_key.unwrap_err(), "a[1]: invalid type: boolean `true`, expected u8");
    }
}
