//! Bounds on the types of a handler, with errors of the build that say what to write.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Type that has a schema: any that implements [`JsonSchema`]. The host compares the schemas of
/// two builds, so it knows when states must be migrated.
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
        let read = serde_json::from_slice(text);
        read.map_err(|e| match e.to_string() {
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
        assert!(NoConfig::read(b"{\"a\": 1}").unwrap_err().contains("unknown field `a`"));
    }
}
