//! How a state of one version becomes one of the next: plain functions between serde types, a step each.

use serde::Serialize;
use serde::de::DeserializeOwned;

type Step = Box<dyn Fn(&[u8]) -> Result<Vec<u8>, String>>;

/// The steps that a service knows. The host chains them, so a state two versions old takes two.
pub struct Migrations {
    steps: Vec<(u32, Step)>,
}

impl Migrations {
    /// None: the state never changed its shape.
    pub fn none() -> Migrations {
        Migrations { steps: Vec::new() }
    }

    /// Adds the step from `version` to `version + 1`. `Old` is the struct as it was then, or `serde_json::Value`.
    ///
    /// An error leaves the session as it is, waiting for code that can read its state.
    ///
    /// ```
    /// # use greenroom_handler::Migrations;
    /// #[derive(serde::Deserialize)]
    /// struct V1 { count: u64 }
    /// #[derive(serde::Serialize)]
    /// struct V2 { count: String }
    /// let m = Migrations::none().from(1, |old: V1| Ok(V2 { count: old.count.to_string() }));
    /// ```
    #[must_use]
    pub fn from<Old: DeserializeOwned, New: Serialize>(
        mut self,
        version: u32,
        step: impl Fn(Old) -> Result<New, String> + 'static,
    ) -> Migrations {
        let step: Step = Box::new(move |old| {
            let old =
                rmp_serde::from_slice(old).map_err(|e| format!("version {version} can't be read: {e}"))?;
            let new = step(old).map_err(|e| format!("migration from version {version}: {e}"))?;
            rmp_serde::to_vec_named(&new)
                .map_err(|e| format!("version {} can't be written: {e}", version + 1))
        });
        self.steps.push((version, step));
        self
    }

    /// The versions from which there is a step, in order.
    pub(crate) fn versions(&self) -> Vec<u32> {
        let mut versions: Vec<_> = self.steps.iter().map(|(v, _)| *v).collect();
        versions.sort_unstable();
        versions.dedup();
        versions
    }

    /// Takes a stored state from one version to another.
    pub(crate) fn run(&self, from: u32, to: u32, state: &[u8]) -> Result<Vec<u8>, String> {
        if from > to {
            return Err(format!("the state is of version {from}, this build only knows up to {to}"));
        }
        let mut state = state.to_vec();
        for version in from..to {
            let (_, step) = self
                .steps
                .iter()
                .find(|(v, _)| *v == version)
                .ok_or_else(|| format!("there is no migration from version {version}"))?;
            state = step(&state)?;
        }
        Ok(state)
    }
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
        assert!(m.run(4, 3, &[]).unwrap_err().contains("version 4"));
        assert!(m.run(1, 2, &[0xc1]).unwrap_err().contains("version 1 can't be read"));
    }
}
