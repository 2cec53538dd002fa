//! Option `greenroom serve --check-config`: checks whether a host could start, or go on, with
//! this configuration and these libraries.
//!
//! Nothing is served, no lock is taken and no port is opened, so the check runs beside a host
//! that serves. Each library is tried in a child process, one after the other; O(libraries).

use crate::admin::audit;
use crate::cli::check::look;
use crate::cli::confined::confined;
use crate::cli::offers::Together;
use crate::cli::output::{CommandFailure, complain, print_text};
use crate::config::Config;
use crate::keeper::handshaker_process;
use crate::protocol::found::Found;
use crate::saved_place;
use greenroom_state::address::Address;
use std::path::Path;

/// Checks all that can be checked without serving: the file of saved tables, certificates and
/// keys, libraries, their settings, frames against limits, and addresses that are wanted twice.
/// Prints the address of each service.
///
/// The first fault ends the check with exit code 1. Does not check whether an address is free,
/// and knows no live data. A configured service that no library offers is a warning, as in a
/// host.
pub(super) fn run(config: &Config, found: &Found) -> Result<(), CommandFailure> {
    check_saved(config).map_err(CommandFailure::Failed)?;
    audit::can_be_written(config.admin.audit.as_deref()).map_err(CommandFailure::Failed)?;
    if let Some(path) = &config.admin.audit {
        tell_if_folder_lacks("admin.audit", path);
    }
    config.check_socket_groups().map_err(CommandFailure::Failed)?;
    config.observe.check_token_file().map_err(CommandFailure::Failed)?;
    config.log.check_place().map_err(CommandFailure::Failed)?;
    confined(config, complain)?;
    handshaker_process::check(&config.tls_settings()).map_err(CommandFailure::Failed)?;
    let mut together = Together::default();
    for (path, _) in &found.libraries {
        let looked = look(path, config, None).map_err(CommandFailure::Failed)?;
        for offer in looked.tried.offers {
            let refuse = |why: String| CommandFailure::Failed(format!("{}: {why}", path.display()));
            for endpoint in together.add(config, &offer, false).map_err(refuse)? {
                print_text(&format!("{} on {endpoint}\n", offer.name));
                if let Address::Unix(path) = &endpoint.address {
                    tell_if_folder_lacks(&format!("service {}", offer.name), Path::new(&**path));
                }
            }
        }
    }
    together.end(config).map_err(CommandFailure::Failed)?;
    for service in config.service.keys().filter(|s| !together.has(s)) {
        complain(&format!("service {service} is configured, but no library offers it"));
    }
    if let Err(why) = together.end_with_all(config) {
        complain(&format!("once libraries offer all services, one is refused: {why}"));
    }
    print_text("the configuration is good\n");
    Ok(())
}

/// Tells if the folder of a file is not there. No fault yet: a service manager makes some at the
/// start.
fn tell_if_folder_lacks(what: &str, file: &Path) {
    if let Some(folder) = file.parent().filter(|f| *f != Path::new("") && !f.exists()) {
        print_text(&format!("{what}: {} is not there; a start without it fails\n", folder.display()));
    }
}

/// Checks the file of saved tables, if one is configured.
pub(super) fn check_saved(config: &Config) -> Result<(), String> {
    let checked = config.save.file.as_deref().map_or(Ok(()), saved_place::check);
    checked.map_err(|e| format!("save.file: {e}"))
}
