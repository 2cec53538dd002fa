//! Settings of handlers: what a file may say, and the JSON that handlers get.
//!
//! Settings cross from keeper to worker, and to handlers, as JSON. TOML has values that JSON has
//! not. Such a value is refused by name when the file is read: later, it would keep a worker from
//! starting, or be another value.

use crate::config::Config;
use std::collections::BTreeMap;
use toml::Value;

/// Beginning of the keys by which the TOML library marks values of its own.
const MARK: &str = "$__toml_private_";

impl Config {
    /// Settings of every service, as JSON, in the form that handlers get.
    pub fn settings(&self) -> BTreeMap<String, String> {
        let json = |t: &toml::Table| serde_json::to_string(t).unwrap_or_else(|_| "{}".into());
        self.service.iter().map(|(name, c)| (name.clone(), json(&c.settings))).collect()
    }

    /// Checks that all settings are values that JSON has. The error names the first that is not.
    pub(super) fn check_settings(&self) -> Result<(), String> {
        self.service
            .iter()
            .try_for_each(|(name, c)| check_table(&format!("service.{name}.settings"), &c.settings))
    }
}

/// Checks the values of a table whose name is `at`.
fn check_table(at: &str, table: &toml::Table) -> Result<(), String> {
    table.iter().try_for_each(|(key, value)| match key.starts_with(MARK) {
        true => Err(format!("{at}.{key}: keys that begin with {MARK} are not free; choose another name")),
        false => check_value(&format!("{at}.{key}"), value),
    })
}

/// Checks a value whose name is `at`.
fn check_value(at: &str, value: &Value) -> Result<(), String> {
    match value {
        Value::Float(f) if !f.is_finite() => {
            Err(format!("{at} is {f}: handlers get settings as JSON, which has no such number"))
        }
        Value::Datetime(d) => Err(format!(
            "{at} is {d}: handlers get settings as JSON, which has no dates and times; write it in quotes"
        )),
        Value::Array(items) => {
            items.iter().enumerate().try_for_each(|(i, item)| check_value(&format!("{at}.{i}"), item))
        }
        Value::Table(table) => check_table(at, table),
        Value::Float(_) | Value::Integer(_) | Value::String(_) | Value::Boolean(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::record::RecordedConfig;
    use crate::config::tests::read;

    /// Settings that are read cross to a worker unchanged. Others are refused by name.
    #[test]
    fn values_that_json_lacks_are_refused_by_name() {
        for (settings, says) in [
            ("{x = inf}", "service.a.settings.x is inf"),
            ("{x = {y = [1.5, -nan]}}", "service.a.settings.x.y.1 is NaN"),
            ("{x = 1979-05-27}", "service.a.settings.x is 1979-05-27"),
            ("{x = [{y = 07:32:00}]}", "write it in quotes"),
            ("{\"$__toml_private_datetime\" = \"1979-05-27\"}", "choose another name"),
        ] {
            let said = read(&format!("[service.a]\nsettings = {settings}\n")).unwrap_err();
            assert!(said.contains("greenroom.toml: ") && said.contains(says), "{said}");
        }
        let text = "{a = -9223372036854775808, b = 1e308, c = -0.0, d = [[], {}, [true]], e = \"\\u0000\", \"\" = 1}";
        let config = read(&format!("[service.a]\nsettings = {text}\n")).unwrap();
        let crossed: RecordedConfig = serde_json::from_value(serde_json::to_value(&config).unwrap()).unwrap();
        assert_eq!(crossed.config.settings(), config.settings());
        assert_eq!(crossed.unknown, Vec::<String>::new());
    }
}
