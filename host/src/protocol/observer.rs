//! Messages between the keeper and the observer: JSON, with the socket that the observer listens
//! on.
//!
//! All that the observer shows it asks for at the admin socket, as any command does. So the keeper
//! tells it nothing but where, and hears nothing but whether it works.

use crate::config::observe::ObserveConfig;
use crate::runtime_dir::token_path;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Messages from the keeper to the observer.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToObserver {
    /// Serve on the socket that comes with this message, in place of the one before.
    Serve(ObserverSettings),
}

/// Settings of the observer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObserverSettings {
    /// Runtime directory of the host, with its admin socket.
    pub runtime: PathBuf,
    /// Section of the configuration.
    pub config: ObserveConfig,
}

impl ObserverSettings {
    /// File of the token: the configured one, or the console's own.
    pub fn token_file(&self) -> PathBuf {
        self.config.token_file.clone().unwrap_or_else(|| token_path(&self.runtime))
    }
}

/// Messages from the observer to the keeper.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromObserver {
    /// The observer cannot do its work, for this reason, or can again.
    Failing(Option<String>),
}
