//! Migrations: plain functions between serde types that take data from one version to another.
//!
//! A step leads from one version to the next, or back. Steps are chained, so a new version
//! needs one new step, whatever versions are stored. Each step reads and writes MessagePack:
//! types of old versions exist only inside their step.
//!
//! Data moves up when a build reads older data, and down when a previous build reads data of a
//! newer one. A missing step or an error leaves the data as stored. Steps run in rehearsals,
//! too, so they must be pure functions of their argument. Costs O(steps * bytes).

use crate::encode::encode;
use rmpv::Value as Pack;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Step of a migration: MessagePack in, MessagePack out.
type Step = Box<dyn Fn(&[u8]) -> Result<Vec<u8>, String>>;

/// Steps that a service has for its state, or for a table that it owns. They are chained, so a
/// state two versions old takes two.
///
/// ```
/// use greenroom_handler::testing::TestHost;
/// use greenroom_handler::{Handler, Migrations, handler};
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct V2 {
///     lines: u64,
/// }
/// #[derive(Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// struct V3 {
///     lines: String,
/// }
///
/// struct Tally;
/// #[handler]
/// impl Handler for Tally {
///     const SERVICE: &'static str = "tally";
///     const STATE_VERSION: u32 = 3;
///     type State = V3;
///     fn migrations() -> Migrations {
///         Migrations::none()
///             .rename(1, "count", "lines")
///             .from(2, |old: V2| Ok(V3 { lines: "|".repeat(old.lines as usize) }))
///             .back(3, |new: V3| Ok(V2 { lines: new.lines.len() as u64 }))
///     }
/// }
///
/// let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
/// let (one, three) = (json(r#"{"count": 4}"#), json(r#"{"lines": "||||"}"#));
/// assert_eq!(TestHost::<Tally>::convert(1, 3, &one).unwrap(), three);
/// assert_eq!(TestHost::<Tally>::convert(3, 1, &three).unwrap(), one);
/// ```
#[derive(Default)]
pub struct Migrations {
    /// Steps from a version to the next one.
    up: Vec<(u32, Step)>,
    /// Steps from a version to the one before.
    down: Vec<(u32, Step)>,
    /// Renamed fields: old name, new name.
    renamed: Vec<(&'static str, &'static str)>,
}

impl Migrations {
    /// No steps: the data never changed its shape.
    pub fn none() -> Migrations {
        Migrations::default()
    }

    /// Adds the step from `version` to `version + 1`. `Old` is the struct as it was then, or
    /// `serde_json::Value`.
    ///
    /// An error leaves the session as it is, waiting for code that can read its state.
    ///
    /// ```
    /// # use greenroom_handler::Migrations;
    /// #[derive(serde::Serialize, serde::Deserialize)]
    /// struct V1 { count: u64 }
    /// #[derive(serde::Serialize, serde::Deserialize)]
    /// struct V2 { count: String }
    /// let number = |text: String| text.parse().map_err(|e| format!("count: {e}"));
    /// let m = Migrations::none()
    ///     .from(1, |old: V1| Ok(V2 { count: old.count.to_string() }))
    ///     .back(2, move |new: V2| Ok(V1 { count: number(new.count)? }));
    /// ```
    #[must_use]
    pub fn from<Old: DeserializeOwned, New: Serialize>(
        mut self,
        version: u32,
        step: impl Fn(Old) -> Result<New, String> + 'static,
    ) -> Migrations {
        self.up.push((version, typed(version, version + 1, "migration", step)));
        self
    }

    /// Adds the step from `version` to `version + 1` that changes nothing: the types of today read
    /// what was stored then. So it is for a variant more, or a wider number.
    ///
    /// ```
    /// # use greenroom_handler::Migrations;
    /// // Version 2 has a variant that version 1 had not.
    /// let m = Migrations::none().unchanged(1);
    /// ```
    #[must_use]
    pub fn unchanged(mut self, version: u32) -> Migrations {
        self.up.push((version, Box::new(|bytes| Ok(bytes.to_vec()))));
        self
    }

    /// Adds the step from `version` back to `version - 1`. With it the host can roll a build back
    /// that has migrated data.
    #[must_use]
    pub fn back<New: DeserializeOwned, Old: Serialize>(
        mut self,
        version: u32,
        step: impl Fn(New) -> Result<Old, String> + 'static,
    ) -> Migrations {
        self.down.push((version, typed(version, version.saturating_sub(1), "downgrade", step)));
        self
    }

    /// Adds both steps between `version` and `version + 1`, in which one field has another name and
    /// nothing else changes.
    #[must_use]
    pub fn rename(mut self, version: u32, old: &'static str, new: &'static str) -> Migrations {
        self.up.push((version, Box::new(move |bytes| renamed(bytes, old, new))));
        self.down.push((version + 1, Box::new(move |bytes| renamed(bytes, new, old))));
        self.renamed.push((old, new));
        self
    }

    /// Versions from which there is a step up, in order.
    pub(crate) fn versions(&self) -> Vec<u32> {
        versions(&self.up)
    }

    /// Versions from which there is a step down, in order.
    pub(crate) fn downgrades(&self) -> Vec<u32> {
        versions(&self.down)
    }

    /// Refuses two steps that lead from one version in one direction.
    pub(crate) fn check(&self) -> Result<(), String> {
        for (steps, what) in [(&self.up, "migrations"), (&self.down, "downgrades")] {
            let twice = steps.iter().enumerate().find(|(i, (v, _))| steps[..*i].iter().any(|(w, _)| w == v));
            if let Some((_, (version, _))) = twice {
                return Err(format!("two {what} from version {version}"));
            }
        }
        Ok(())
    }

    /// Renamed fields: old name, new name.
    pub(crate) fn renamings(&self) -> &[(&'static str, &'static str)] {
        &self.renamed
    }

    /// Takes data from one version to another, up or down. Fails at the first step that is
    /// missing or refuses the data. Equal versions copy the data and check nothing.
    pub(crate) fn run(&self, from: u32, to: u32, data: &[u8]) -> Result<Vec<u8>, String> {
        let mut data = data.to_vec();
        let mut version = from;
        while version != to {
            // One version at a time, so the loop ends after the distance between the versions.
            let (steps, next, what) = match version < to {
                true => (&self.up, version + 1, "migration"),
                false => (&self.down, version - 1, "downgrade"),
            };
            let step = steps.iter().find(|(v, _)| *v == version);
            let (_, step) = step.ok_or_else(|| format!("there is no {what} from version {version}"))?;
            data = step(&data)?;
            version = next;
        }
        Ok(data)
    }
}

/// Versions from which the steps lead, in order, each once.
fn versions(steps: &[(u32, Step)]) -> Vec<u32> {
    let mut versions: Vec<_> = steps.iter().map(|(v, _)| *v).collect();
    versions.sort_unstable();
    versions.dedup();
    versions
}

/// Makes a step of a function between serde types. The error of a step names its version: an
/// author may have many.
fn typed<A: DeserializeOwned, B: Serialize>(
    from: u32,
    to: u32,
    what: &'static str,
    step: impl Fn(A) -> Result<B, String> + 'static,
) -> Step {
    Box::new(move |data| {
        let data = rmp_serde::from_slice(data).map_err(|e| format!("version {from} can't be read: {e}"))?;
        let data = step(data).map_err(|e| format!("{what} from version {from}: {e}"))?;
        encode(&data).map_err(|e| format!("version {to} can't be written: {e}"))
    })
}

/// Renames a field of a map; data without it stays as it is. Only names at the top are renamed.
///
/// Works on MessagePack values and not on types, so no author has to keep the old struct. Fails
/// if the data is no map.
fn renamed(data: &[u8], old: &str, new: &str) -> Result<Vec<u8>, String> {
    let mut rest = data;
    let mut value = rmpv::decode::read_value(&mut rest).map_err(|e| e.to_string())?;
    let Pack::Map(fields) = &mut value else {
        return Err(format!("there are no fields, so none is called {old}"));
    };
    if let Some((name, _)) = fields.iter_mut().find(|(name, _)| name.as_str() == Some(old)) {
        *name = new.into();
    }
    let mut out = Vec::new();
    rmpv::encode::write_value(&mut out, &value).map_err(|e| e.to_string())?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn steps_are_chained_and_errors_named() {
        let m =
            Migrations::none().from(2, |old: Value| Ok(json!({"c": old["b"]}))).from(
                1,
                |old: Value| match old["a"].as_u64() {
                    Some(a) => Ok(json!({"b": a + 1})),
                    None => Err("no a".into()),
                },
            );
        assert_eq!(m.versions(), [1, 2]);
        let packed = |v: Value| rmp_serde::to_vec_named(&v).unwrap();
        assert_eq!(m.run(1, 3, &packed(json!({"a": 4}))), Ok(packed(json!({"c": 5}))));
        assert_eq!(m.run(1, 3, &packed(json!({}))).unwrap_err(), "migration from version 1: no a");
        assert_eq!(
            m.run(1, 4, &packed(json!({"a": 1}))).unwrap_err(),
            "there is no migration from version 3"
        );
        assert!(m.run(4, 3, &[]).unwrap_err().contains("no downgrade from version 4"));
        assert!(m.run(1, 2, &[0xc1]).unwrap_err().contains("version 1 can't be read"));
    }

    #[test]
    fn steps_lead_back_too() {
        let m = Migrations::none()
            .rename(1, "count", "lines")
            .from(2, |old: Value| Ok(json!({"lines": old["lines"].to_string(), "other": old["other"]})))
            .back(3, |new: Value| {
                let lines = new["lines"].as_str().and_then(|l| l.parse::<u64>().ok());
                Ok(json!({"lines": lines.ok_or("no number")?, "other": new["other"]}))
            });
        assert_eq!((m.versions(), m.downgrades()), (vec![1, 2], vec![2, 3]));
        let packed = |v: Value| rmp_serde::to_vec_named(&v).unwrap();
        let (one, three) =
            (packed(json!({"count": 7, "other": "x"})), packed(json!({"lines": "7", "other": "x"})));
        assert_eq!(m.run(1, 3, &one), Ok(three.clone()));
        assert_eq!(m.run(3, 1, &three), Ok(one.clone()));
        assert_eq!(
            m.run(3, 1, &packed(json!({"lines": "x"}))).unwrap_err(),
            "downgrade from version 3: no number"
        );
        assert_eq!(m.run(1, 1, &one), Ok(one));
        assert!(m.run(1, 2, &packed(json!([1]))).unwrap_err().contains("no fields"));
        // A missing field has nothing to be renamed.
        assert_eq!(m.run(1, 2, &packed(json!({"other": 1}))), Ok(packed(json!({"other": 1}))));
    }
}
