//! Guard of the observer: token, names of the host, origins.
//!
//! | threat | check |
//! | --- | --- |
//! | another user of this machine, or of the network | the token, in a header |
//! | a page of another site sends requests | the token, which no browser adds; the origin |
//! | a name of another site leads here (DNS rebinding) | the name that the browser asked for |
//!
//! The token is a file, which is read for each request: who replaces or deletes it has locked all
//! pages out. The console makes one of its own if no file is configured.

use crate::config::token::read_token;
use crate::observe::http::{Request, Response};
use crate::protocol::observer::ObserverSettings;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Random bytes of a token that the console makes.
const RANDOM_BYTES: usize = 32;

/// Guard of one observer.
pub(super) struct Guard {
    token_file: PathBuf,
    /// Whether the console makes the file.
    makes: bool,
    /// Whether each request needs the token, those for metrics, too.
    always: bool,
    /// Names that browsers may ask for, in lower case.
    hosts: Vec<String>,
}

impl Guard {
    /// Makes the guard of these settings.
    pub(super) fn new(settings: &ObserverSettings) -> Guard {
        let always = settings.config.token_file.is_some();
        Guard {
            token_file: settings.token_file(),
            makes: settings.config.console && !always,
            always,
            hosts: settings.config.hosts.iter().map(|name| name.to_ascii_lowercase()).collect(),
        }
    }

    /// Looks whether there is a token, if one is needed, and makes the console's own. The error
    /// says why there is none, for the operator.
    pub(super) fn look(&self) -> Result<(), String> {
        match read_token(&self.token_file) {
            _ if !self.makes && !self.always => Ok(()),
            Ok(_) => Ok(()),
            // One that others could read is replaced: they may have done so.
            Err(_) if self.makes => make_token(&self.token_file)
                .map_err(|e| format!("{}: can't be made: {e}", self.token_file.display())),
            Err(why) => Err(why),
        }
    }

    /// Checks a request for metrics.
    pub(super) fn check_reader(&self, request: &Request) -> Result<(), Response> {
        // A page of another site has no token, so its name does not matter.
        if self.always { self.check_token(request) } else { self.check_host(request) }
    }

    /// Checks the name that a request asks for: an address, `localhost`, or a configured name. No
    /// other site can have one of these.
    pub(super) fn check_host(&self, request: &Request) -> Result<(), Response> {
        let host = request.host.as_deref().unwrap_or_default();
        match self.is_ours(host) {
            true => Ok(()),
            false => Err(Response::text(
                403,
                &format!("the host {host:?} is not this one; name it in observe.hosts of the configuration"),
            )),
        }
    }

    /// Checks a request of the console's page.
    pub(super) fn check_page(&self, request: &Request) -> Result<(), Response> {
        self.check_host(request)?;
        if let Some(origin) = &request.origin {
            let host = origin.split_once("://").map(|(_, host)| host);
            if host.is_none() || host != request.host.as_deref() {
                return Err(Response::text(403, "the request comes from a page of another origin"));
            }
        }
        self.check_token(request)
    }

    /// Checks the token of a request.
    fn check_token(&self, request: &Request) -> Result<(), Response> {
        let given = request.authorization.as_deref().and_then(|a| a.split_once(' '));
        let given =
            given.filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
        let Some(given) = given else {
            return Err(Response::text(401, "a token is needed: Authorization: Bearer TOKEN"));
        };
        match read_token(&self.token_file) {
            Ok(token) if is_same(token.as_bytes(), given.as_bytes()) => Ok(()),
            Ok(_) => Err(Response::text(401, "the token is another one; `greenroom console` prints it")),
            Err(_) => Err(Response::text(503, "the token can't be read; `greenroom status` says why")),
        }
    }

    /// Whether the host of a request is this one. The port does not matter: it may be a tunnel's.
    fn is_ours(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[') {
            Some(rest) => return rest.split_once(']').is_some_and(|(ip, _)| ip.parse::<Ipv6Addr>().is_ok()),
            None => host.split_once(':').map_or(host, |(name, _)| name).to_ascii_lowercase(),
        };
        name == "localhost" || name.parse::<IpAddr>().is_ok() || self.hosts.contains(&name)
    }
}

/// Whether two texts are the same. Takes as long for a wrong beginning as for a wrong end.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

/// Makes a file with a fresh token, for this user alone. A reader sees all of it, or none.
fn make_token(path: &Path) -> io::Result<()> {
    let mut random = [0; RANDOM_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    let made = path.with_extension("token.new");
    match std::fs::remove_file(&made) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&made)?;
    file.write_all(format!("{}\n", BASE64_URL_SAFE_NO_PAD.encode(random)).as_bytes())?;
    std::fs::rename(&made, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::observe::ObserveConfig;
    use crate::config::token::TOKEN_BYTES_MAX;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    fn guard(dir: &Path, hosts: &[&str]) -> Guard {
        let hosts = hosts.iter().map(|&name| name.to_owned()).collect();
        let config = ObserveConfig { console: true, hosts, ..ObserveConfig::default() };
        Guard::new(&ObserverSettings { runtime: dir.into(), config })
    }

    #[test]
    fn only_names_that_no_other_site_can_have_are_ours() {
        let guard = guard(Path::new("/"), &["Green.example"]);
        let ours =
            ["localhost:9900", "LOCALHOST", "127.0.0.1:1", "[::1]:9900", "10.1.2.3", "green.EXAMPLE:80"];
        for host in ours {
            assert!(guard.is_ours(host), "{host}");
        }
        for host in ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "[evil]", "[::1"]
        {
            assert!(!guard.is_ours(host), "{host}");
        }
    }

    #[test]
    fn the_console_makes_a_token_that_others_cannot_read() {
        let dir = tempfile::tempdir().unwrap();
        let guard = guard(dir.path(), &[]);
        let path = dir.path().join("console.token");
        guard.look().unwrap();
        let token = read_token(&path).unwrap();
        assert_eq!((token.len(), path.metadata().unwrap().mode() & 0o777), (43, 0o600));
        guard.look().unwrap();
        assert_eq!(read_token(&path).unwrap(), token, "it stays");
        // Whoever may have read it has no use of it.
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(read_token(&path).unwrap_err().contains("mode 644"));
        guard.look().unwrap();
        assert_ne!(read_token(&path).unwrap(), token);
        for bad in ["", "short", &"x".repeat(TOKEN_BYTES_MAX + 1), "with a space in the middle"] {
            std::fs::write(&path, bad).unwrap();
            assert!(read_token(&path).unwrap_err().contains("visible characters"), "{bad}");
        }
        assert!(is_same(b"abc", b"abc") && !is_same(b"abc", b"abd") && !is_same(b"abc", b"ab"));
    }
}
